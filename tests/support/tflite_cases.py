"""One-op float graphs for the TFLite writer, by family: what each is made of and what it should become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper
from tflite_graphs import FloatGraph

RNG_SEED = 7


@dataclass
class Case:
    """A graph, what it must be written as, and how closely it must follow the float graph.

    ``builtins`` is the exact operator sequence, int8 and int16 alike; ``sqnr_db`` the floor in int8; ``wide`` says
    whether the op has int16 kernels in both interpreters.
    """

    name: str
    graph: FloatGraph
    builtins: Sequence[str]
    sqnr_db: float = 25.0
    wide: bool = True
    litert: bool = True
    low: float = -2.0
    high: float = 2.0
    tolerance: int = 2

    def samples(self, count: int = 4) -> np.ndarray:
        rng = np.random.default_rng(RNG_SEED)
        if self.graph.input_dtype != "float32":
            return rng.integers(0, int(self.high), (count, *self.graph.input_shape)).astype(self.graph.input_dtype)
        return rng.uniform(self.low, self.high, (count, *self.graph.input_shape)).astype(np.float32)


@dataclass
class _Maker:
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(RNG_SEED))

    def weights(self, *shape: int) -> np.ndarray:
        fan_in = max(int(np.prod(shape[1:])), 1)
        return (self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), list(outputs), **attributes)


def unary(op_type: str, shape: tuple[int, ...], **attributes: object) -> FloatGraph:
    return FloatGraph([node(op_type, ["x"], ["y"], **attributes)], shape, ["y"], {})


def conv(
    shape: tuple[int, ...], out: int, kernel: Sequence[int], *, group: int = 1, bias: bool = True, **attributes: object
) -> FloatGraph:
    make = _Maker()
    weights = {"w": make.weights(out, shape[1] // group, *kernel)}
    if bias:
        weights["b"] = make.weights(out)
    graph_node = node(
        "Conv", ["x", "w", *(["b"] if bias else [])], ["y"], group=group, kernel_shape=list(kernel), **attributes
    )
    return FloatGraph([graph_node], shape, ["y"], weights)


def convolution_cases() -> list[Case]:
    cases = [
        Case("plain", conv((1, 3, 9, 7), 5, (3, 3)), ["CONV_2D"]),
        Case("no_bias", conv((1, 3, 9, 7), 5, (3, 3), bias=False), ["CONV_2D"]),
        Case("same_odd", conv((1, 5, 9, 7), 7, (3, 3), pads=[1, 1, 1, 1]), ["CONV_2D"]),
        Case("stride2_odd_is_same", conv((1, 3, 9, 7), 5, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]), ["CONV_2D"]),
        Case("stride2_even_pads", conv((1, 3, 8, 6), 5, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]), ["PAD", "CONV_2D"]),
        Case("same_upper", conv((1, 3, 8, 6), 5, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2]), ["CONV_2D"]),
        Case("same_lower", conv((1, 3, 8, 6), 5, (3, 3), auto_pad="SAME_LOWER", strides=[2, 2]), ["PAD", "CONV_2D"]),
        Case("asymmetric_pads", conv((1, 3, 8, 6), 5, (3, 3), pads=[0, 2, 1, 1]), ["PAD", "CONV_2D"]),
        Case("kernel_5x3_strides_2x1", conv((1, 3, 12, 9), 4, (5, 3), strides=[2, 1], pads=[2, 1, 2, 1]), None),
        Case("dilation", conv((1, 3, 11, 9), 4, (3, 3), dilations=[2, 3]), ["CONV_2D"]),
        Case("dilation_same", conv((1, 3, 11, 9), 4, (3, 3), dilations=[2, 2], pads=[2, 2, 2, 2]), ["CONV_2D"]),
        Case("pointwise", conv((1, 7, 5, 5), 9, (1, 1)), ["CONV_2D"]),
        Case("groups", conv((1, 6, 7, 7), 9, (3, 3), group=3), ["CONV_2D"]),
        Case("depthwise", conv((1, 7, 9, 9), 7, (3, 3), group=7, pads=[1, 1, 1, 1]), ["DEPTHWISE_CONV_2D"]),
        Case("depthwise_multiplier", conv((1, 3, 9, 9), 6, (3, 3), group=3), ["DEPTHWISE_CONV_2D"]),
        Case("depthwise_stride2", conv((1, 8, 10, 10), 8, (3, 3), group=8, strides=[2, 2], pads=[1, 1, 1, 1]), None),
        Case("depthwise_dilated", conv((1, 4, 11, 11), 4, (3, 3), group=4, dilations=[2, 2]), ["DEPTHWISE_CONV_2D"]),
        Case("one_dimension", conv((1, 4, 20), 6, (5,), pads=[2, 2]), ["RESHAPE", "CONV_2D", "RESHAPE"]),
        Case("one_dimension_depthwise", conv((1, 4, 20), 4, (3,), group=4, strides=[2]), None),
    ]
    for activation, code in (("Relu", 1), ("Clip", 3)):
        graph = conv((1, 3, 8, 8), 5, (3, 3))
        graph.nodes[0].output[0] = "c"
        limits = ["six0", "six"] if activation == "Clip" else []
        graph.nodes.append(node(activation, ["c", *limits], ["y"]))
        if limits:
            graph.weights.update(six0=np.float32(0), six=np.float32(6))
        cases.append(Case(f"fused_{activation.lower()}", graph, ["CONV_2D"], low=-6, high=6))
        assert code
    graph = conv((1, 3, 8, 8), 5, (3, 3))
    graph.nodes[0].output[0] = "c"
    graph.nodes.append(node("Clip", ["c", "lo", "hi"], ["y"]))
    graph.weights.update(lo=np.float32(-1), hi=np.float32(1))
    cases.append(Case("fused_relu_n1_to_1", graph, ["CONV_2D"], low=-4, high=4))
    return cases


def transposed_cases() -> list[Case]:
    def graph(
        shape: tuple[int, ...], out: int, kernel: Sequence[int], group: int = 1, **attributes: object
    ) -> FloatGraph:
        make = _Maker()
        weights = {"w": make.weights(shape[1], out // group, *kernel), "b": make.weights(out)}
        made = node("ConvTranspose", ["x", "w", "b"], ["y"], group=group, kernel_shape=list(kernel), **attributes)
        return FloatGraph([made], shape, ["y"], weights)

    return [
        Case("exact", graph((1, 4, 5, 5), 3, (2, 2), strides=[2, 2]), ["TRANSPOSE_CONV"]),
        Case("same", graph((1, 4, 5, 6), 3, (4, 4), strides=[2, 2], pads=[1, 1, 1, 1]), ["TRANSPOSE_CONV"]),
        Case(
            "cropped",
            graph((1, 4, 5, 5), 3, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
            ["TRANSPOSE_CONV", "SLICE"],
        ),
        Case("stride1", graph((1, 3, 6, 5), 5, (3, 3), pads=[1, 1, 1, 1]), ["TRANSPOSE_CONV"]),
        Case(
            "groups",
            graph((1, 4, 5, 5), 6, (2, 2), group=2, strides=[2, 2]),
            ["SPLIT", "TRANSPOSE_CONV", "TRANSPOSE_CONV", "CONCATENATION"],
        ),
        Case(
            "depthwise",
            graph((1, 3, 4, 5), 3, (3, 3), group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
            ["SPLIT", *["TRANSPOSE_CONV"] * 3, "CONCATENATION"],
        ),
    ]


def dense_cases() -> list[Case]:
    make = _Maker()
    gemm = FloatGraph(
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        (1, 13),
        ["y"],
        {"w": make.weights(7, 13), "b": make.weights(7)},
    )
    plain = FloatGraph([node("Gemm", ["x", "w"], ["y"])], (1, 13), ["y"], {"w": make.weights(13, 7)})
    batched = FloatGraph([node("MatMul", ["x", "w"], ["y"])], (1, 5, 13), ["y"], {"w": make.weights(13, 7)})
    square = FloatGraph(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"])], (1, 5, 13), ["y"], {}
    )
    left = FloatGraph(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["t", "x"], ["y"])], (2, 5, 13), ["y"], {}
    )
    constant = FloatGraph([node("MatMul", ["x", "w"], ["y"])], (1, 3, 5, 6), ["y"], {"w": make.weights(3, 6, 4)})
    return [
        Case("gemm", gemm, ["FULLY_CONNECTED"]),
        Case("gemm_untransposed_no_bias", plain, ["FULLY_CONNECTED"]),
        Case("matmul_constant", batched, ["FULLY_CONNECTED"]),
        Case("matmul_adjoint_right", square, ["BATCH_MATMUL"]),
        Case("matmul_adjoint_left", left, ["BATCH_MATMUL"]),
        Case("matmul_constant_batched", constant, ["BATCH_MATMUL"]),
    ]


def elementwise_cases() -> list[Case]:
    make = _Maker()

    def with_constant(op_type: str, shape: tuple[int, ...], constant: np.ndarray, swap: bool = False) -> FloatGraph:
        inputs = ["c", "x"] if swap else ["x", "c"]
        return FloatGraph([node(op_type, inputs, ["y"])], shape, ["y"], {"c": constant})

    def with_self(op_type: str, shape: tuple[int, ...]) -> FloatGraph:
        return FloatGraph([node("Relu", ["x"], ["r"]), node(op_type, ["x", "r"], ["y"])], shape, ["y"], {})

    channel = make.weights(5, 1, 1) + 1
    return [
        Case("add", with_self("Add", (1, 5, 6, 7)), ["RELU", "ADD"]),
        Case("sub", with_self("Sub", (1, 5, 6, 7)), ["RELU", "SUB"]),
        Case("mul", with_self("Mul", (1, 5, 6, 7)), ["RELU", "MUL"]),
        Case("max", with_self("Max", (1, 5, 6)), None),
        Case("min", with_self("Min", (1, 5, 6)), None),
        Case("add_channel", with_constant("Add", (1, 5, 6, 7), channel), ["ADD"]),
        Case("mul_channel", with_constant("Mul", (1, 5, 6, 7), channel), ["MUL"]),
        Case("sub_from_constant", with_constant("Sub", (1, 5, 6), channel[:, :, 0], swap=True), ["SUB"]),
        Case("mul_scalar", with_constant("Mul", (1, 9), np.float32(0.37)), ["MUL"]),
        Case("div_scalar", with_constant("Div", (1, 9), np.float32(3.7)), ["MUL"]),
        Case("pow_square", with_constant("Pow", (1, 9), np.float32(2)), ["MUL"]),
    ]


def activation_cases() -> list[Case]:
    clip = FloatGraph(
        [node("Clip", ["x", "a", "b"], ["y"])], (1, 4, 5, 3), ["y"], {"a": np.float32(-0.5), "b": np.float32(1.2)}
    )
    relu6 = FloatGraph([node("Clip", ["x", "a", "b"], ["y"])], (1, 40), ["y"], {"a": np.float32(0), "b": np.float32(6)})
    prelu = FloatGraph(
        [node("PRelu", ["x", "s"], ["y"])], (1, 4, 5, 3), ["y"], {"s": np.abs(_Maker().weights(4, 1, 1))}
    )
    channels = FloatGraph([node("Softmax", ["x"], ["y"], axis=1)], (1, 4, 5, 3), ["y"], {})
    silu = FloatGraph([node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])], (1, 4, 5, 3), ["y"], {})
    shape = (1, 4, 5, 3)
    table = ["CAST", "ADD", "GATHER"]
    return [
        Case("relu", unary("Relu", shape), ["RELU"]),
        Case("relu6", relu6, None, low=-3, high=9),
        Case("clip", clip, None),
        Case("leaky_relu", unary("LeakyRelu", shape, alpha=0.1), ["LEAKY_RELU"]),
        Case("prelu", prelu, ["PRELU"], wide=False),
        Case("sigmoid", unary("Sigmoid", shape), ["LOGISTIC"], low=-5, high=5),
        Case("tanh", unary("Tanh", shape), ["TANH"], low=-3, high=3),
        Case("abs", unary("Abs", shape), ["ABS"]),
        Case("hard_swish", unary("HardSwish", shape), ["HARD_SWISH"], wide=False, low=-4, high=4),
        Case("softmax", unary("Softmax", (1, 10), axis=-1), ["SOFTMAX"], low=-4, high=4),
        Case("softmax_3d", unary("Softmax", (1, 6, 10), axis=-1), ["SOFTMAX"], low=-4, high=4),
        Case("softmax_channels", channels, None, low=-4, high=4),
        Case("log_softmax", unary("LogSoftmax", (1, 10), axis=-1), ["LOG_SOFTMAX"], wide=False, litert=True),
        Case("silu", silu, ["LOGISTIC", "MUL"], low=-4, high=4),
        Case("gelu", unary("Gelu", shape), table, wide=False, low=-4, high=4),
        Case("gelu_tanh", unary("Gelu", shape, approximate="tanh"), table, wide=False, low=-4, high=4),
        Case("hard_sigmoid", unary("HardSigmoid", shape, alpha=1 / 6), table, wide=False, low=-4, high=4),
        Case("erf", unary("Erf", shape), table, wide=False),
        Case("softplus", unary("Softplus", shape), table, wide=False),
        Case("mish", unary("Mish", shape), table, wide=False, low=-4, high=4),
        Case("elu", unary("Elu", shape), table, wide=False),
        Case("exp", unary("Exp", shape), table, wide=False),
        Case("sqrt", unary("Sqrt", shape), table, wide=False, low=0, high=4),
        Case("neg", unary("Neg", shape), table, wide=False),
    ]


def pooling_cases() -> list[Case]:
    shape = (1, 5, 9, 8)

    def reduced(op_type: str, axes: Sequence[int], keepdims: int, shape: tuple[int, ...] = shape) -> FloatGraph:
        return FloatGraph(
            [node(op_type, ["x", "a"], ["y"], keepdims=keepdims)], shape, ["y"], {"a": np.asarray(axes, np.int64)}
        )

    return [
        Case("max", unary("MaxPool", shape, kernel_shape=[2, 2], strides=[2, 2]), ["MAX_POOL_2D"]),
        Case("max_3x3_same", unary("MaxPool", shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), ["MAX_POOL_2D"]),
        Case(
            "max_resnet",
            unary("MaxPool", (1, 5, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            ["PADV2", "MAX_POOL_2D"],
        ),
        Case("max_ceil", unary("MaxPool", shape, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), None),
        Case("average", unary("AveragePool", shape, kernel_shape=[3, 2], strides=[3, 2]), ["AVERAGE_POOL_2D"]),
        Case("average_same", unary("AveragePool", shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), ["AVERAGE_POOL_2D"]),
        Case(
            "average_counts_padding",
            unary("AveragePool", shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            ["PAD", "AVERAGE_POOL_2D"],
        ),
        Case("max_one_dimension", unary("MaxPool", (1, 5, 12), kernel_shape=[3], strides=[3]), None),
        Case("global_average", unary("GlobalAveragePool", shape), ["MEAN"], sqnr_db=18),
        Case("global_max", unary("GlobalMaxPool", shape), ["MAX_POOL_2D"]),
        Case("mean_spatial", reduced("ReduceMean", (2, 3), 0), ["MEAN"], sqnr_db=18),
        Case("mean_channels", reduced("ReduceMean", (1,), 1), ["MEAN"], sqnr_db=18),
        Case("mean_last", reduced("ReduceMean", (-1,), 1, (1, 6, 11)), ["MEAN"], sqnr_db=18),
        Case("sum_last", reduced("ReduceSum", (2,), 0, (1, 6, 11)), ["SUM"], litert=False, sqnr_db=18),
        Case("reduce_max", reduced("ReduceMax", (2,), 1, (1, 6, 11)), ["REDUCE_MAX"], wide=False),
    ]


def movement_cases() -> list[Case]:
    ints = {name: np.asarray(values, np.int64) for name, values in {
        "s12": (1, 12), "flat": (1, -1), "heads": (1, 6, 2, 4), "b": (0, 1), "e": (4, 5), "ax": (2, 3), "st": (2, 2),
        "sp": (2, 3), "pads": (0, 0, 1, 0, 0, 0, 2, 1), "i0": 1, "sizes": (1, 4, 10, 12)}.items()}  # fmt: skip

    def graph(
        nodes: list[onnx.NodeProto], shape: tuple[int, ...], outputs: Sequence[str], *names: str, **more: np.ndarray
    ) -> FloatGraph:
        return FloatGraph(nodes, shape, outputs, {**{name: ints[name] for name in names}, **more})

    make = _Maker()
    flatten_dense = graph(
        [node("Relu", ["x"], ["r"]), node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
         node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w"], ["y"], transB=1)],
        (1, 5, 6, 4), ["y"], w=make.weights(3, 30),
    )  # fmt: skip
    return [
        Case("reshape", graph([node("Reshape", ["x", "s12"], ["y"])], (1, 3, 4), ["y"], "s12"), ["RESHAPE"]),
        Case("flatten_dense", flatten_dense, ["RELU", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"], sqnr_db=22),
        Case("transpose", graph([node("Transpose", ["x"], ["y"], perm=[0, 2, 1])], (1, 3, 4), ["y"]), ["TRANSPOSE"]),
        Case(
            "heads",
            graph(
                [node("Reshape", ["x", "heads"], ["h"]), node("Transpose", ["h"], ["y"], perm=[0, 2, 1, 3])],
                (1, 6, 8),
                ["y"],
                "heads",
            ),
            ["RESHAPE", "TRANSPOSE"],
        ),
        Case(
            "slice",
            graph([node("Slice", ["x", "b", "e", "ax"], ["y"])], (1, 3, 5, 6), ["y"], "b", "e", "ax"),
            ["SLICE"],
        ),
        Case(
            "strided_slice",
            graph([node("Slice", ["x", "b", "e", "ax", "st"], ["y"])], (1, 3, 5, 6), ["y"], "b", "e", "ax", "st"),
            ["STRIDED_SLICE"],
        ),
        Case(
            "split",
            graph(
                [node("Split", ["x"], ["p", "q"], axis=1, num_outputs=2), node("Add", ["p", "q"], ["y"])],
                (1, 4, 3, 5),
                ["y"],
            ),
            ["SPLIT", "ADD"],
        ),
        Case(
            "split_v",
            graph(
                [
                    node("Split", ["x", "sp"], ["p", "q"], axis=1),
                    node("Relu", ["p"], ["y"]),
                    node("Relu", ["q"], ["z"]),
                ],
                (1, 5, 3, 5),
                ["y", "z"],
                "sp",
            ),
            ["SPLIT_V", "RELU", "RELU"],
        ),
        Case(
            "concat",
            graph([node("Relu", ["x"], ["r"]), node("Concat", ["x", "r"], ["y"], axis=1)], (1, 3, 4, 5), ["y"]),
            None,
        ),
        Case("pad", graph([node("Pad", ["x", "pads"], ["y"])], (1, 3, 4, 5), ["y"], "pads"), ["PAD"]),
        Case(
            "pad_value",
            graph([node("Pad", ["x", "pads", "v"], ["y"])], (1, 3, 4, 5), ["y"], "pads", v=np.float32(1.0)),
            ["PADV2"],
            wide=False,
        ),
        Case(
            "pad_reflect",
            graph([node("Pad", ["x", "pads"], ["y"], mode="reflect")], (1, 3, 4, 5), ["y"], "pads"),
            ["MIRROR_PAD"],
            wide=False,
        ),
        Case(
            "gather_row",
            graph([node("Gather", ["x", "i0"], ["y"], axis=1)], (1, 4, 6), ["y"], "i0"),
            ["SLICE", "RESHAPE"],
        ),
        Case(
            "resize_nearest",
            graph(
                [
                    node(
                        "Resize",
                        ["x", "", "", "sizes"],
                        ["y"],
                        mode="nearest",
                        coordinate_transformation_mode="asymmetric",
                        nearest_mode="floor",
                    )
                ],
                (1, 4, 5, 6),
                ["y"],
                "sizes",
            ),
            ["RESIZE_NEAREST_NEIGHBOR"],
        ),
        Case(
            "resize_linear",
            graph([node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")], (1, 4, 5, 6), ["y"], "sizes"),
            ["RESIZE_BILINEAR"],
            wide=False,
        ),
        Case(
            "resize_corners",
            graph(
                [
                    node(
                        "Resize",
                        ["x", "", "", "sizes"],
                        ["y"],
                        mode="linear",
                        coordinate_transformation_mode="align_corners",
                    )
                ],
                (1, 4, 5, 6),
                ["y"],
                "sizes",
            ),
            ["RESIZE_BILINEAR"],
            wide=False,
        ),
        Case(
            "depth_to_space",
            graph([node("DepthToSpace", ["x"], ["y"], blocksize=2)], (1, 8, 3, 5), ["y"]),
            ["DEPTH_TO_SPACE"],
            wide=False,
        ),
        Case(
            "depth_to_space_crd",
            graph([node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], (1, 12, 3, 5), ["y"]),
            ["GATHER", "DEPTH_TO_SPACE"],
            wide=False,
        ),
        Case(
            "space_to_depth",
            graph([node("SpaceToDepth", ["x"], ["y"], blocksize=2)], (1, 3, 4, 6), ["y"]),
            ["SPACE_TO_DEPTH"],
            wide=False,
        ),
        *repetition_cases(),
    ]


def repetition_cases() -> list[Case]:
    def graph(op_type: str, shape: tuple[int, ...], numbers: Sequence[int]) -> FloatGraph:
        return FloatGraph([node(op_type, ["x", "n"], ["y"])], shape, ["y"], {"n": np.asarray(numbers, np.int64)})

    return [
        Case("expand", graph("Expand", (1, 4, 1, 1), (1, 4, 3, 5)), ["BROADCAST_TO"]),
        Case("expand_rank", graph("Expand", (1, 3), (1, 2, 3)), ["RESHAPE", "BROADCAST_TO"]),
        Case("tile_one", graph("Tile", (1, 1, 4), (1, 12, 1)), ["BROADCAST_TO"]),
        Case("tile", graph("Tile", (1, 3, 4, 2), (1, 2, 1, 3)), ["CONCATENATION", "CONCATENATION"]),
        Case("tile_both", graph("Tile", (1, 1, 4), (1, 3, 2)), ["BROADCAST_TO", "CONCATENATION"]),
    ]


FAMILIES = {
    "convolution": convolution_cases,
    "transposed": transposed_cases,
    "dense": dense_cases,
    "elementwise": elementwise_cases,
    "activation": activation_cases,
    "pooling": pooling_cases,
    "movement": movement_cases,
}


def all_cases() -> list[Case]:
    cases = []
    for family, make in FAMILIES.items():
        for case in make():
            case.name = f"{family}-{case.name}"
            cases.append(case)
    return cases
