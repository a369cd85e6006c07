"""Where `quantize` puts Q/DQ pairs, scheme by scheme, on graphs that each hold one hard case."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import quantizer_graphs as cases
from calibration_graphs import graph_from_text
from quantizer_graphs import Quantized, calibrated, error_db, normal

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.schemes import (
    ONNXRUNTIME_ARM,
    ONNXRUNTIME_X86,
    QNN_A8W8,
    QNN_A16W8,
    SCHEMES,
    TENSORRT,
    TFLITE,
    TFLITE_INT16X8,
)
from edgedeploy.errors import InputError


def quantized(graph, scheme, **options) -> Quantized:
    return Quantized(quantize(graph, calibrated(graph)[0], scheme, **options))


@pytest.mark.parametrize("name", cases.GRAPHS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_case_under_every_scheme_is_valid_and_near_the_float_graph(name, scheme):
    graph = cases.GRAPHS[name]()
    table, samples = calibrated(graph)
    model = quantize(graph, table, scheme)
    onnx.checker.check_model(model, full_check=True)
    assert error_db(graph, model, samples) > 20
    assert [value.name for value in model.graph.output] == [spec.name for spec in graph.outputs]
    wide = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
    version = 21 if any(tensor.data_type in wide for tensor in model.graph.initializer) else 20
    assert model.opset_import[0].version == version


def test_int32_bias_has_the_accumulators_scale_and_no_zero_point():
    result = quantized(cases.residual(), ONNXRUNTIME_X86, bias_correction=False)
    conv = result.node("c1")
    data, weight, bias = (result.scale(name) for name in conv.input)
    assert bias == pytest.approx(data * weight, rel=1e-6)
    assert not result.zero_point(conv.input[2]).any()
    assert result.codes(conv.input[2]).dtype == np.int32
    assert result.codes(conv.input[2]) * bias == pytest.approx(normal(8), abs=float(bias.max()))


def test_weights_are_symmetric_per_output_channel_and_leave_out_the_lowest_code():
    result = quantized(cases.branches(), TFLITE)
    for output in ("d", "g"):
        codes = result.codes(result.node(output).input[1])
        assert codes.dtype == np.int8 and codes.min() >= -127
        assert result.scale(result.node(output).input[1]).shape == (8,)
        assert not result.zero_point(result.node(output).input[1]).any()


def test_reduced_weights_use_seven_bits():
    result = quantized(cases.residual(), SCHEMES["onnxruntime-x86-reduced"])
    codes = result.codes(result.node("c1").input[1])
    assert codes.min() >= -64 and codes.max() <= 63


def test_onnxruntime_runs_convolutions_and_residuals_in_integers_and_the_last_gemm_to_float(tmp_path):
    graph = cases.residual()
    model = quantize(graph, calibrated(graph)[0], ONNXRUNTIME_X86)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert ops["QLinearConv"] == 2 and ops["QLinearAdd"] == 1 and ops["QGemm"] == 1
    assert ops["QLinearGlobalAveragePool"] == 1
    assert ops["QuantizeLinear"] == 1  # the input
    assert not {"Conv", "Relu", "Add", "Gemm", "DequantizeLinear"} & set(ops)


def test_arm_stores_signed_and_x86_unsigned_activations():
    for scheme, dtype in ((ONNXRUNTIME_X86, np.uint8), (ONNXRUNTIME_ARM, np.int8)):
        result = quantized(cases.residual(), scheme)
        assert result.zero_point(result.node("c1").input[0]).dtype == dtype


def test_nothing_is_rounded_between_a_conv_and_its_only_activation():
    for scheme in SCHEMES.values():
        result = quantized(cases.residual(), scheme)
        assert result.stored("c1") is None


def test_an_activation_of_a_tensor_with_two_readers_stays_a_node_of_its_own():
    for scheme in (QNN_A8W8, TFLITE, ONNXRUNTIME_X86):
        result = quantized(cases.activation_with_two_readers(), scheme)
        assert result.stored("c") is not None and result.ops()["Clip"] == 1


def test_tflite_relu6_of_its_own_reads_and_writes_one_scale():
    result = quantized(cases.activation_with_two_readers(), TFLITE)
    clip = result.node("six")
    assert result.scale(clip.input[0]) == result.scale(result.stored("six"))
    assert result.scale(result.node("a").input[0]) > result.scale(clip.input[0])  # the Add reads the wide tensor


def test_qnn_drops_activations_that_saturation_replaces_and_their_bounds():
    result = quantized(cases.branches(), QNN_A8W8)
    assert "Clip" not in result.ops() and "six" not in result.constants


@pytest.mark.parametrize("scheme", [QNN_A8W8, QNN_A16W8], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize(("low", "high", "absorbed"), [(-1, 1, True), (-0.3, 0.9, True), (0.1, 1, False)])
def test_qnn_keeps_a_clip_whose_bounds_leave_zero_out_as_a_node_of_its_own(scheme, low, high, absorbed):
    """Codes hold zero: bounds around it are what saturation does, to half a step; others it cannot do."""
    graph = graph_from_text(
        """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) { c = Conv(x, w) a = Clip(c, low, high) y = Conv(a, v) }""",
        w=normal(4, 3, 1, 1),
        v=normal(4, 4, 1, 1),
        low=np.float32(low),
        high=np.float32(high),
    )
    result = quantized(graph, scheme)
    assert ("Clip" in result.ops()) is not absorbed
    assert (result.stored("c") is None) is absorbed


def test_tensorrt_graph_is_what_its_parser_takes():
    result = quantized(cases.residual(), TENSORRT)
    for node in result.nodes:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert not result.constants[node.input[2]].any()
            assert result.constants[node.input[2]].dtype == np.int8
    conv, gemm = result.node("c2"), result.node("y")
    assert result.is_integer(conv.input[0]) and result.is_integer(conv.input[1])
    assert not result.is_integer(result.node("c1").input[2])
    assert result.constants[gemm.input[2]].dtype == np.float32
    add = result.node("a")
    assert [result.is_integer(name) for name in add.input] == [True, False]  # the conv's branch is fused
    assert result.scale(conv.input[0]).shape == ()


def test_tensorrt_embedding_is_dequantized_by_row_before_the_gather():
    result = quantized(cases.embedding(), TENSORRT)
    table = result.node("e").input[0]
    assert result.scale(table).shape == (7,) and result.stored("e") is None
    assert result.node("e").input[1] == "ids"


def test_tensorrt_leaves_the_matmuls_of_masked_attention_float():
    masked = quantized(cases.attention(masked=True), TENSORRT)
    plain = quantized(cases.attention(), TENSORRT)
    for output in ("s0", "o"):
        assert not any(masked.is_integer(name) for name in masked.node(output).input)
        assert all(plain.is_integer(name) for name in plain.node(output).input)
    assert masked.is_integer(masked.node("v").input[1])


def test_tensorrt_can_leave_depthwise_float():
    result = quantized(cases.branches(), replace(TENSORRT, excluded_depthwise=True))
    assert not any(result.is_integer(name) for name in result.node("d").input)
    assert result.is_integer(result.node("g").input[0])


def test_tflite_concat_and_moves_share_one_scale_and_zero_point():
    result = quantized(cases.branches(), TFLITE)
    names = [*result.node("y").input, result.stored("y")]
    assert len({(float(result.scale(name)), int(result.zero_point(name))) for name in names}) == 1
    pool = result.node("m")
    assert result.scale(pool.input[0]) == result.scale(result.stored("m"))


def test_tflite_softmax_and_sigmoid_have_the_runtimes_output_scale():
    softmax = quantized(cases.attention(), TFLITE)
    assert softmax.scale(softmax.stored("p")) == 1 / 256 and softmax.zero_point(softmax.stored("p")) == -128
    sigmoid = quantized(cases.embedding(), TFLITE_INT16X8)
    assert sigmoid.scale(sigmoid.stored("y")) == 2**-15 and sigmoid.zero_point(sigmoid.stored("y")) == 0


def test_a_branch_with_a_dictated_scale_is_requantized_before_a_concat():
    graph = graph_from_text(
        """fixed (float[1, 4] x) => (float[1, 8] y) {
            s = Sigmoid(x)
            y = Concat <axis = 1> (s, x)
        }"""
    )
    result = quantized(graph, TFLITE)
    first, second = result.node("y").input
    assert result.scale(result.stored("s")) == 1 / 256
    assert result.scale(first) == result.scale(second) > 1 / 256


def test_tflite_matmul_and_its_add_are_one_op_with_an_integer_bias():
    result = quantized(cases.embedding(), TFLITE)
    add, matmul = result.node("b"), result.node("m")
    assert result.stored("m") is None
    assert result.codes(add.input[1]).dtype == np.int32
    assert result.scale(add.input[1]) == pytest.approx(
        result.scale(matmul.input[0]) * result.scale(matmul.input[1]), rel=1e-6
    )


def test_every_float_tensor_of_a_qnn_graph_is_rounded():
    for scheme in (QNN_A8W8, QNN_A16W8):
        for case in cases.GRAPHS.values():
            result = quantized(case(), scheme)
            for node in result.nodes:
                if node.op_type in {"QuantizeLinear", "DequantizeLinear", "Shape"}:
                    continue
                for name in node.input:
                    value = result.constants.get(name)
                    is_parameter = node.op_type in {"Resize", "Clip"} or not name
                    assert is_parameter or result.is_integer(name) or _is_integer(result, name, value), (node, name)


def _is_integer(result, name, value) -> bool:
    if value is not None:
        return value.dtype != np.float32
    typed = {v.name: v.type.tensor_type.elem_type for v in result.model.graph.value_info}
    typed |= {v.name: v.type.tensor_type.elem_type for v in result.model.graph.input}
    return typed.get(name) not in {None, onnx.TensorProto.FLOAT}


def test_a16w8_keeps_8_bit_weights_and_reads_an_8_bit_embedding_in_16_bits():
    result = quantized(cases.embedding(), QNN_A16W8)
    assert result.codes(result.node("m").input[1]).dtype == np.int8
    assert result.codes(result.node("e").input[0]).dtype == np.uint8
    assert result.zero_point(result.node("n").input[0]).dtype == np.uint16


def test_one_weight_on_two_axes_becomes_two_integer_tensors():
    result = quantized(cases.shared_weight(), ONNXRUNTIME_X86)
    gemm, matmul = result.node("g"), result.node("y")
    rows, columns = result.dequantize(gemm.input[1]), result.dequantize(matmul.input[1])
    assert rows.input[0] != columns.input[0]
    assert [a.i for a in rows.attribute] == [0] and [a.i for a in columns.attribute] == [1]
    assert "w" not in result.constants


def test_one_weight_read_twice_alike_stays_one():
    result = quantized(cases.activation_with_two_readers(), TENSORRT)
    assert result.node("c").input[1] == result.node("y").input[1]


def test_shapes_indices_and_masks_are_left_alone():
    result = quantized(cases.constants(), TFLITE)
    assert result.node("size").input[0] == "x"
    assert result.node("first").input == ["size", "zero"]
    assert result.node("z").input[1] == "target"
    assert result.node("c").input[1] == "" and result.node("c").input[2] == "top"
    where = quantized(cases.attention(masked=True), QNN_A8W8).node("k")
    assert where.input[0] == "mask"


def test_a_constant_operand_keeps_its_value():
    result = quantized(cases.constants(), QNN_A8W8)
    two = result.node("a").input[0]
    value = (int(result.codes(two)) - int(result.zero_point(two))) * float(result.scale(two))
    assert value == pytest.approx(2, rel=1e-6)


def test_a_dead_channel_and_a_bias_too_large_for_its_scale_stay_exact():
    weight = normal(4, 3, 1, 1)
    weight[1] = 0
    weight[2] *= 1e-12
    graph = graph_from_text(
        "dead (float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) { y = Conv(x, w, b) }",
        w=weight,
        b=np.array([0.5, 0.25, 3.0, -1.0], np.float32),
    )
    table, samples = calibrated(graph)
    for scheme in (ONNXRUNTIME_X86, TFLITE, QNN_A16W8):
        model = quantize(graph, table, scheme)
        result = Quantized(model)
        bias = result.node("y").input[2]
        assert np.abs(result.codes(bias).astype(np.int64)).max() < 2**31 - 1
        real = result.codes(bias) * result.scale(bias)
        assert real[1:3] == pytest.approx([0.25, 3.0], rel=1e-3)
        assert (result.scale(result.node("y").input[1]) > 1e-20).all()
        assert error_db(graph, model, samples) > 30


def test_an_input_that_is_an_output_passes_unchanged():
    graph = graph_from_text("same (float[1, 4] x) => (float[1, 4] x, float[1, 4] y) { y = Mul(x, x) }")
    table, samples = calibrated(graph)
    for scheme in SCHEMES.values():
        model = quantize(graph, table, scheme)
        assert error_db(graph, model, samples) > 20
        assert any(value.name == "x" for value in model.graph.output)


def test_a_dynamic_batch_stays_dynamic():
    model = quantize(cases.constants(), calibrated(cases.constants())[0], TFLITE)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(["y"], {"x": normal(5, 4)})[0].shape == (5, 4)


def test_gemm_with_alpha_and_beta_keeps_its_meaning():
    graph = graph_from_text(
        "scaled (float[1, 6] x) => (float[1, 3] y) { y = Gemm <alpha = 0.5, beta = 2.0> (x, w, b) }",
        w=normal(6, 3),
        b=normal(1, 3),
    )
    table, samples = calibrated(graph)
    for scheme in SCHEMES.values():
        assert error_db(graph, quantize(graph, table, scheme), samples) > 30


def test_an_excluded_layer_is_float_and_the_rest_is_not():
    graph = cases.residual()
    conv = next(node for node in graph.model.graph.node if node.output[0] == "c2")
    conv.name = "second conv"
    result = quantized(graph, ONNXRUNTIME_X86, exclude=frozenset({"second conv"}))
    assert result.node("c2").input[1] in result.constants and result.is_integer(result.node("c1").input[1])


def test_a_raised_tensor_is_stored_in_the_higher_format_and_converted_for_others():
    result = quantized(cases.residual(), QNN_A8W8, higher=frozenset({"r2"}))
    assert result.zero_point(result.stored("r2")).dtype == np.uint16
    pool = result.node("p")
    assert result.zero_point(pool.input[0]).dtype == np.uint8
    assert result.zero_point(result.node("a" if "a" in result.producer else "r2").input[0]).dtype == np.uint16
    assert result.model.opset_import[0].version == 21


def test_unknown_names_are_refused():
    graph = cases.residual()
    table, _ = calibrated(graph)
    with pytest.raises(InputError, match="does not exist in the graph"):
        quantize(graph, table, TFLITE, exclude=frozenset({"no such node"}))
    with pytest.raises(InputError, match="no such tensor"):
        quantize(graph, table, QNN_A8W8, higher=frozenset({"no such tensor"}))


def test_the_same_input_gives_the_same_bytes():
    graph = cases.branches()
    table, _ = calibrated(graph)
    first, second = (quantize(graph, table, TFLITE).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("scheme", [TFLITE, QNN_A8W8, QNN_A16W8, ONNXRUNTIME_X86, TENSORRT], ids=lambda s: s.name)
def test_a_mask_still_masks_after_rounding(scheme):
    graph = cases.attention(masked=True)
    table, samples = calibrated(graph)
    assert error_db(graph, quantize(graph, table, scheme), samples) > 15


def test_a_weight_that_is_not_finite_is_named():
    weight = normal(4, 4, 1, 1)
    graph = graph_from_text("w (float[1, 4, 2, 2] x) => (float[1, 4, 2, 2] y) { y = Conv(x, kernel) }", kernel=weight)
    table, _ = calibrated(graph)
    weight[0] = np.inf
    graph.model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "kernel"))
    with pytest.raises(InputError, match=r"'kernel'.*NaN or infinity"):
        quantize(graph, table, TFLITE)
