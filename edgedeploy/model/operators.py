"""The operators that a graph in a file may call, by name.

What torch.onnx translates, itself or after decomposition, without what touches files, storages, sizes or devices
(``from_file``, ``set_``, ``resize_``, sparse and nested tensors, random state). A name covers its overloads, those
that write into a given tensor (``out``) excepted. Read from torch 2.13: torch/onnx/_internal/exporter/_torchlib,
torch/_decomp, and the dispatcher's CompositeImplicitAutograd kernels.
"""

from __future__ import annotations

_ATEN = """
__and__ __iand__ __ior__ __ixor__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _addmm_activation
_assert_async _assert_scalar _assert_tensor_metadata _batch_norm_impl_index _batch_norm_with_update
_batch_norm_with_update_functional _cdist_forward _conj _convolution _convolution_mode _embedding_bag
_embedding_bag_forward_only _fft_c2c _fft_c2r _fft_r2c _fused_dropout _fused_rms_norm _grouped_mm
_local_scalar_dense _log_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
_native_batch_norm_legit_no_training _pad_circular _prelu_kernel _reshape_alias _safe_softmax
_scaled_dot_product_attention_math _scaled_dot_product_attention_math_for_mps
_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
_scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _to_copy _unique2 _unsafe_index
_unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view _upsample_bicubic2d_aa
_upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d _weight_norm_interface abs abs_ absolute absolute_ acos acos_ acosh acosh_
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d add add_ addbmm addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr addr_
adjoint affine_grid_generator alias alias_copy all allclose alpha_dropout amax amin aminmax angle any arange arccos
arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan2_ arctan_ arctanh arctanh_ argmax
argmin argsort argwhere as_strided as_strided_ as_strided_copy as_strided_scatter asin asin_ asinh asinh_ atan atan2
atan2_ atan_ atanh atanh_ atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm baddbmm_
batch_norm bernoulli bilinear bincount bitwise_and bitwise_and_ bitwise_left_shift bitwise_left_shift_ bitwise_not
bitwise_not_ bitwise_or bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor bitwise_xor_
blackman_window block_diag bmm broadcast_tensors broadcast_to bucketize cartesian_prod cat cdist ceil ceil_ celu
celu_ channel_shuffle chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clip clip_ clone col2im
column_stack complex concat concatenate conj conj_physical constant_pad_nd contiguous conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copy_ copysign copysign_ cos cos_ cosh cosh_
cosine_similarity count_nonzero cross cross_entropy_loss cumprod cumprod_ cumsum cumsum_ cumulative_trapezoid
deg2rad deg2rad_ det detach detach_ diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter diff digamma
dim div div_ divide divide_ dot dropout dropout_ dsplit dstack einsum elu elu_ embedding embedding_bag
embedding_renorm embedding_renorm_ empty empty_like empty_strided eq eq_ equal erf erf_ erfc erfc_ erfinv erfinv_
exp exp2 exp2_ exp_ expand expand_as expand_copy expm1 expm1_ eye fake_quantize_per_channel_affine
fake_quantize_per_tensor_affine feature_dropout fft_fft fft_fft2 fft_fftn fft_fftshift fft_ifft fft_irfft fft_rfft
fill fill_ fix fix_ flatten flip fliplr flipud float_power float_power_ floor floor_ floor_divide floor_divide_ fmax
fmin fmod fmod_ frac frac_ frobenius_norm full full_like gather ge ge_ gelu gelu_ ger glu greater greater_
greater_equal greater_equal_ grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt gt_
hamming_window hann_window hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ heaviside
heaviside_ histc hsplit hstack hypot hypot_ igamma im2col imag index index_add index_add_ index_copy index_copy_
index_fill index_fill_ index_put index_put_ index_select inner instance_norm inverse is_nonzero is_same_size isclose
isfinite isin isinf isnan isneginf isposinf isreal istft item kl_div kron l1_loss layer_norm ldexp le le_ leaky_relu
leaky_relu_ lerp lerp_ less less_ less_equal less_equal_ lgamma lift lift_fresh lift_fresh_copy linalg_cross
linalg_det linalg_diagonal linalg_inv linalg_matmul linalg_matrix_norm linalg_multi_dot linalg_norm linalg_vecdot
linalg_vector_norm linear linspace log log10 log10_ log1p log1p_ log2 log2_ log_ log_sigmoid log_sigmoid_forward
log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_and_ logical_not logical_not_ logical_or
logical_or_ logical_xor logical_xor_ logit logit_ logspace logsumexp lstm lstm_cell lt lt_ mH mT masked_fill
masked_fill_ masked_scatter masked_scatter_ masked_select matmul matrix_H matrix_exp max max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d
max_unpool3d maximum mean meshgrid min minimum mish mish_ mm moveaxis movedim mse_loss msort mul mul_ multinomial
multiply multiply_ mv nan_to_num nan_to_num_ nanmean nanquantile nansum narrow narrow_copy native_batch_norm
native_channel_shuffle native_dropout native_group_norm native_layer_norm ne ne_ neg neg_ negative negative_
new_empty new_empty_strided new_full new_ones new_zeros nll_loss nll_loss_forward nonzero nonzero_numpy norm normal
normal_ normal_functional not_equal not_equal_ nuclear_norm numel numpy_T one_hot ones ones_like outer pad
pad_sequence pairwise_distance permute permute_copy pixel_shuffle pixel_unshuffle polar positive pow pow_ prelu prod
quantile rad2deg rad2deg_ rand rand_like randint randint_like randn randn_like randperm ravel real reciprocal
reciprocal_ reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 relu6_ relu_ remainder remainder_ renorm
renorm_ repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as
resolve_conj resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round round_ row_stack
rrelu rsqrt rsqrt_ rsub scalar_tensor scaled_dot_product_attention scatter scatter_ scatter_add scatter_add_
scatter_reduce scatter_reduce_ select select_scatter selu selu_ sgn sgn_ sigmoid sigmoid_ sign sign_ signbit silu
silu_ sin sin_ sinc sinc_ sinh sinh_ size slice slice_scatter slow_conv3d smooth_l1_loss softmax softplus softshrink
sort special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1
special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp special_ndtr special_round
special_sinc special_softmax special_xlog1py special_xlogy special_zeta split split_with_sizes split_with_sizes_copy
sqrt sqrt_ square square_ squeeze squeeze_ squeeze_copy stack std std_mean stft stride sub sub_ subtract subtract_
sum sum_to_size swapaxes swapdims sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel
sym_size sym_storage_offset sym_stride t t_ t_copy take take_along_dim tan tan_ tanh tanh_ tensor_split tensordot
thnn_conv2d threshold threshold_ tile to topk trace transpose transpose_ transpose_copy trapezoid trapz tril tril_
tril_indices triu triu_ triu_indices true_divide true_divide_ trunc trunc_ type_as unbind unbind_copy unflatten
unfold unfold_copy uniform uniform_ unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes
unsqueeze unsqueeze_ unsqueeze_copy upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean vdot view view_as view_as_complex
view_as_real view_as_real_copy view_copy vsplit vstack where xlogy xlogy_ zero zero_ zeros zeros_like
"""
_PRIMS = """
abs acos acosh add asin asinh atan atanh broadcast_in_dim ceil convert_element_type cos cosh device_put div eq erf
exp floor ge gt le log lt mul ne neg pow remainder reshape round sin sinh sqrt squeeze sub sum tan tanh transpose
var where
"""
#: Graphs within the graph; what they call is held to the same names.
_HIGHER_ORDER = """
cond scan while_loop wrap_with_autocast wrap_with_set_grad_enabled
"""
#: Arithmetic on sizes.
_OPERATOR = """
abs add and_ eq floordiv ge getitem gt le lshift lt mod mul ne neg not_ or_ pos pow rshift sub truediv xor
"""
_MATH = """
ceil floor sqrt trunc
"""
_SYMBOLIC = """
_sym_sqrt sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum
"""

_NAMES = {
    namespace: frozenset(text.split())
    for namespace, text in (
        ("aten", _ATEN),
        ("prims", _PRIMS),
        ("higher_order", _HIGHER_ORDER),
        ("_operator", _OPERATOR),
        ("math", _MATH),
        ("torch", _SYMBOLIC),
    )
}


def is_allowed(target: str) -> bool:
    """True for a target that a node may have: ``torch.ops.aten.relu.default``, ``_operator.mul``, ``torch.sym_max``."""
    match target.split("."):
        case ["torch", "ops", "aten" | "prims" as namespace, name, overload]:
            return name in _NAMES[namespace] and _takes_no_out(overload)
        case ["torch", "ops", "higher_order", name]:
            return name in _NAMES["higher_order"]
        case ["_operator" | "math" | "torch" as namespace, name]:
            return name in _NAMES[namespace]
    return False


def _takes_no_out(overload: str) -> bool:
    return overload.isidentifier() and not overload.startswith("__") and overload.rsplit("_", maxsplit=1)[-1] != "out"
