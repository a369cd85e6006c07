"""Control flow, lists, states, classifiers, suppression and compressed weights; and that no kernel goes untested."""
# ruff: noqa: E501 - one case a row, read as a table

import itertools

import numpy as np
import pytest
import test_coreml_ops_elementwise as elementwise
import test_coreml_ops_layers as layers
import test_coreml_ops_movement as movement
from mil_program import Batch, Case, package, run

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.registry import kernels

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 4)).astype(np.float32)


# ---- control flow and lists
def branch(mb, x):
    positive = mb.greater(x=mb.reduce_sum(x=x), y=0.0)
    return mb.cond(pred=positive, _true_fn=lambda: mb.mul(x=x, y=2.0), _false_fn=lambda: mb.sub(x=x, y=1.0))


def loop(mb, x):
    """Double x until it has been done three times."""
    return mb.while_loop(
        _cond=lambda i, v: mb.less(x=i, y=np.float32(3.0)),
        _body=lambda i, v: (mb.add(x=i, y=np.float32(1.0)), mb.mul(x=v, y=2.0)),
        loop_vars=(mb.reduce_sum(x=mb.mul(x=x, y=0.0)), x),
    )[1]


def lists(mb, x):
    made = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(4,))
    first, second = mb.split(x=x, num_splits=2, axis=0)
    made = mb.list_write(ls=made, index=0, value=mb.squeeze(x=first, axes=[0]))
    made = mb.list_write(ls=made, index=2, value=mb.squeeze(x=second, axes=[0]))
    made = mb.list_scatter(ls=made, indices=[1, 3], value=x)
    return (
        mb.list_read(ls=made, index=2),
        mb.list_gather(ls=made, indices=[3, 0]),
        mb.list_length(ls=made),
    )


PROGRAMS = [
    Case("cond", branch, {"x": np.abs(X)}, lambda x: x * 2, "true"),
    Case("cond", branch, {"x": -np.abs(X)}, lambda x: x - 1, "false"),
    Case("while_loop", loop, {"x": X}, lambda x: x * 8),
    Case("list_read", lists, {"x": X}, lambda x: (x[1], np.stack([x[1], x[0]]), np.int32(4))),
]

# ---- quantized activations
SCALES = np.array([0.1, 0.2, 0.05, 0.3], np.float32)
ZEROS = np.array([3, -4, 0, 7], np.int8)
WIDE = np.array([[0.05, -0.25, 100.0, -100.0], [0.15, 0.35, 0.0, 1.0]], np.float32)


def quantized(x, scale, zero, low, high):
    return np.clip(np.rint(x / np.float64(scale)) + zero, low, high)


QUANTIZED = [
    Case("quantize", lambda mb, x: mb.cast(x=mb.quantize(input=x, scale=0.5, output_dtype="int8"), dtype="int32"), {"x": WIDE},
         lambda x: quantized(x, 0.5, 0, -128, 127).astype(np.int32)),
    Case("quantize",
         lambda mb, x: mb.cast(x=mb.quantize(input=x, scale=0.25, zero_point=np.uint8(100), output_dtype="uint8"), dtype="int32"),
         {"x": WIDE}, lambda x: quantized(x, 0.25, 100, 0, 255).astype(np.int32), "uint8"),
    Case("dequantize",
         lambda mb, x: mb.dequantize(input=mb.quantize(input=x, scale=SCALES, zero_point=ZEROS, axis=1, output_dtype="int8"),
                                     scale=SCALES, zero_point=ZEROS, axis=1),
         {"x": X}, lambda x: (quantized(x, SCALES.astype(np.float64), ZEROS, -128, 127) - ZEROS) * SCALES.astype(np.float64), "axis"),
]  # fmt: skip

# ---- compressed constants: added to an input, compared with their expansion written out
BYTES = RNG.integers(-128, 128, (2, 4)).astype(np.int8)
CODES4 = np.array([[3, 0, 15, 7], [8, 1, 2, 14]], np.uint8)
PALETTE = np.linspace(-1, 1, 16).astype(np.float32)
SPARSE_MASK = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], np.uint8)
NONZERO = np.array([1.5, -2.0, 3.0, 0.5], np.float32)


def packed(bits):
    """Bits, least significant first."""
    flat = list(itertools.chain.from_iterable(bits)) if isinstance(bits[0], list) else list(bits)
    return np.packbits(np.array(flat, np.uint8), bitorder="little")


def bits_of(codes, width):
    return [[(int(code) >> bit) & 1 for bit in range(width)] for code in codes.ravel()]


def constexpr(op, expansion, note="", target="iOS16", **arguments):
    return Case(
        op, lambda mb, x: mb.add(x=x, y=getattr(mb, op)(**arguments)), {"x": X}, lambda x: x + expansion, note, target
    )


BLOCK_SCALE = np.array([[0.5, 0.25], [0.1, 2.0]], np.float32)
BLOCK_OFFSET = np.array([[1, -2], [0, 5]], np.int8)
BLOCKED = (BYTES - np.repeat(BLOCK_OFFSET, 2, 1).astype(float)) * np.repeat(BLOCK_SCALE, 2, 1)
GROUPS = np.stack([PALETTE, PALETTE * 10]).reshape(2, 1, 16, 1)
GROUPED = np.stack([PALETTE[CODES4[0]], PALETTE[CODES4[1]] * 10])
VECTORS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 1, 2, 2)


def sub_byte(data, kind):
    from coremltools.converters.mil.mil import types

    return data.astype(types.nptype_from_builtin(getattr(types, kind)))


def sparse_scaled(mb, x):
    mask, values = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=sub_byte(SPARSE_MASK, "uint1"), nonzero_data=np.array([10, 11, -3, 4], np.int8),
        scale=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), offset=np.array([[1, 2, 3, 4]], np.int8),
    )  # fmt: skip
    return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))


SPARSE_SCALED = np.array([[0.9, 0, 0, (11 - 4) * 0.4], [0, (-3 - 2) * 0.2, (4 - 3) * 0.3, 0]])


def sparse_palette(mb, x):
    mask, values = mb.constexpr_lut_to_sparse(
        indices_mask=sub_byte(SPARSE_MASK, "uint1"), indices_nonzero_data=sub_byte(np.array([0, 1, 1, 0], np.uint8), "uint1"),
        lut=np.array([2.0, 3.0], np.float32).reshape(1, 1, 2, 1),
    )  # fmt: skip
    return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))


COMPRESSED = [
    constexpr("constexpr_affine_dequantize", (BYTES - 3.0) * np.array([[0.1], [0.2]], np.float32).astype(float),
              quantized_data=BYTES, zero_point=np.int8(3), scale=np.array([0.1, 0.2], np.float32), axis=0),
    constexpr("constexpr_cast", X.astype(np.float16).astype(float), source_val=X.astype(np.float16), output_dtype="fp32"),
    constexpr("constexpr_lut_to_dense", PALETTE[CODES4].astype(float), "packed", indices=packed(bits_of(CODES4, 4)),
              lut=PALETTE, shape=np.array([2, 4], np.uint32)),
    constexpr("constexpr_sparse_to_dense", np.array([[1.5, 0, 0, -2.0], [0, 3.0, 0.5, 0]]), "packed",
              nonzero_data=NONZERO, mask=packed(SPARSE_MASK.ravel()), shape=np.array([2, 4], np.uint32)),
    constexpr("constexpr_blockwise_shift_scale", BLOCKED, target="iOS18", data=BYTES, scale=BLOCK_SCALE, offset=BLOCK_OFFSET),
    Case("constexpr_blockwise_shift_scale",
         lambda mb, x: mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=sub_byte((BYTES % 8) - 4, "int4"), scale=BLOCK_SCALE)),
         {"x": X}, lambda x: x + ((BYTES % 8) - 4.0) * np.repeat(BLOCK_SCALE, 2, 1), "int4", "iOS18"),
    Case("constexpr_lut_to_dense",
         lambda mb, x: mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=sub_byte(CODES4, "uint4"), lut=GROUPS)),
         {"x": X}, lambda x: x + GROUPED, "grouped", "iOS18"),
    Case("constexpr_lut_to_dense",
         lambda mb, x: mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=sub_byte(SPARSE_MASK[:, :2], "uint1"), lut=VECTORS, vector_axis=1)),
         {"x": X}, lambda x: x + np.array([[3, 4, 1, 2], [1, 2, 3, 4]]), "vectors", "iOS18"),
    Case("constexpr_sparse_to_dense",
         lambda mb, x: mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=NONZERO, mask=sub_byte(SPARSE_MASK, "uint1"))),
         {"x": X}, lambda x: x + np.array([[1.5, 0, 0, -2.0], [0, 3.0, 0.5, 0]]), target="iOS18"),
    Case("constexpr_sparse_blockwise_shift_scale", sparse_scaled, {"x": X}, lambda x: x + SPARSE_SCALED, target="iOS18"),
    Case("constexpr_lut_to_sparse", sparse_palette, {"x": X}, lambda x: x + np.array([[2, 0, 0, 3], [0, 3, 2, 0]]), target="iOS18"),
]  # fmt: skip

# ---- suppression: three boxes on one spot, one apart
BOXES = np.array([[[1, 1, 2, 2], [1.1, 1, 2, 2], [5, 5, 2, 2], [1, 1.2, 2, 2]]], np.float32)
SCORES = np.array([[[0.6, 0.1], [0.2, 0.9], [0.3, 0.5], [0.8, 0.1]]], np.float32)


def suppressed(order, most):
    padding = most - len(order)
    return (
        np.concatenate([BOXES[0, order], np.zeros((padding, 4))])[None],
        np.concatenate([SCORES[0, order], np.zeros((padding, 2))])[None],
        np.array([order + [-1] * padding], np.int32),
    )


SUPPRESSED = [
    Case("non_maximum_suppression",
         lambda mb, b, s: mb.non_maximum_suppression(boxes=b, scores=s, iou_threshold=0.3, score_threshold=0.0, max_boxes=3),
         {"b": BOXES, "s": SCORES}, lambda b, s: (*suppressed([1, 2], 3), np.array([2], np.int32)), target="iOS15"),
    Case("non_maximum_suppression",
         lambda mb, b, s: mb.non_maximum_suppression(boxes=b, scores=s, iou_threshold=0.3, score_threshold=0.55, max_boxes=3, per_class_suppression=True),
         {"b": BOXES, "s": SCORES}, lambda b, s: (*suppressed([1, 3], 3), np.array([2], np.int32)), "per-class", target="iOS15"),
    Case("non_maximum_suppression",
         lambda mb, b, s: mb.non_maximum_suppression(boxes=b, scores=s, iou_threshold=0.3, max_boxes=2),
         {"b": BOXES.swapaxes(1, 2).copy(), "s": SCORES.swapaxes(1, 2).copy()},
         lambda b, s: (suppressed([1, 2], 2)[0].swapaxes(1, 2), suppressed([1, 2], 2)[1].swapaxes(1, 2), suppressed([1, 2], 2)[2]), "boxes-last"),
]  # fmt: skip

CASES = PROGRAMS + QUANTIZED + COMPRESSED + SUPPRESSED
BATCH = Batch(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32(case):
    BATCH.check(case)


def test_a_classifier_gives_a_label_and_probabilities(tmp_path):
    import coremltools as ct
    import torch

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.softmax(x, -1)

    labels = ["cat", "dog", "bird"]
    traced = torch.jit.trace(Net(), torch.zeros(1, 3))
    model = ct.convert(
        traced, inputs=[ct.TensorType("x", (1, 3))], classifier_config=ct.ClassifierConfig(labels),
        convert_to="mlprogram", minimum_deployment_target=ct.target.iOS15, skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "m.mlpackage"))
    results = Executor(tmp_path / "m.mlpackage").run({"x": np.array([[0.0, 2.0, 1.0]], np.float32)})
    assert "dog" in results.values()
    table = next(value for value in results.values() if isinstance(value, dict))
    expected = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    np.testing.assert_allclose([table[label] for label in labels], expected, atol=1e-3)


def test_states_live_from_run_to_run_until_reset(tmp_path):
    import coremltools as ct
    import torch

    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(2))

        def forward(self, x):
            self.total.add_(x)
            return self.total * 1.0

    traced = torch.jit.trace(Counter(), torch.zeros(2), check_trace=False)
    model = ct.convert(
        traced, inputs=[ct.TensorType("x", (2,))], states=[ct.StateType(ct.TensorType(shape=(2,)), name="total")],
        outputs=[ct.TensorType("y", dtype=np.float32)], minimum_deployment_target=ct.target.iOS18, skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "m.mlpackage"))
    executor = Executor(tmp_path / "m.mlpackage")
    port = executor.function.inputs[0].type.dtype
    step = np.array([1.0, 2.0], port)
    assert {"read_state", "write_state"} <= {operation.type for operation in executor.function.block.operations}
    assert [executor.run({"x": step})["y"].tolist() for _ in range(2)] == [[1.0, 2.0], [2.0, 4.0]]
    executor.reset()
    assert executor.run({"x": step})["y"].tolist() == [1.0, 2.0]


def test_values_are_freed_after_their_last_use():
    def chain(mb, x):
        for _ in range(20):
            x = mb.add(x=x, y=1.0)
        return x

    big = np.zeros((256, 256), np.float32)
    executor = run(chain, {"x": big})[1]
    assert executor.peak_bytes <= 2 * big.nbytes


def test_an_unknown_op_is_named():
    with pytest.raises(UnsupportedOpError, match="random_normal") as caught:
        run(lambda mb, x: mb.add(x=x, y=mb.random_normal(shape=[2, 4])), {"x": X})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "'x' of the Core ML program is missing"),
        ({"x": X[:1]}, "does not fit"),
        ({"x": X.astype(np.float64)}, "does not fit"),
        ({"x": X, "y": X}, r"no input \['y'\]"),
    ],
)
def test_wrong_inputs_are_refused(tmp_path, feeds, words):
    executor = Executor(package(lambda mb, x: mb.relu(x=x), {"x": X}, tmp_path / "m.mlpackage"))
    with pytest.raises(InputError, match=words):
        executor.run(feeds)


def test_float32_mode_computes_the_same_program_without_rounding(tmp_path):
    x = np.array([2.0**-11], np.float32)
    path = package(lambda mb, x: mb.sub(x=mb.add(x=x, y=1.0), y=1.0), {"x": x}, tmp_path / "m.mlpackage", half=True)
    rounded = next(iter(Executor(path).run({"x": x}).values()))
    exact = next(iter(Executor(path, precision="float32").run({"x": x}).values()))
    assert float(rounded[0]) == 0.0
    assert float(exact[0]) == 2.0**-11


def test_every_kernel_has_a_test():
    tested = {
        case.op for module in (elementwise, layers, movement) for case in module.CASES
    } | {case.op for case in CASES}  # fmt: skip
    tested |= {"const", "classify", "list_write", "list_gather", "list_length", "list_scatter", "make_list"}
    assert set(kernels()) - tested == set()
    assert len(kernels()) >= 100
