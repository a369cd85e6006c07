"""`serialize`: the bytes of a .tflite file (TFLite schema v3), identical for identical models.

Two things differ from what converters write: constant data is aligned to 16 bytes (the schema asks for it and the
Python code generator ignores it), and equal vectors of scales, zero points and constants are stored once.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import MissingToolError
from edgedeploy.exporters.tflite_micro.ir import ALIGNMENT, Affine, Tensor, TfliteModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
OPERATOR_CODES_END = 127
"""Builtin codes above this one do not fit the schema's old 8-bit field, which then holds this marker."""

#: Lowest operator version that defines the integer kernel (tensorflow/lite/tools/versioning/op_version.cc);
#: (int8 version, int16 version). An older runtime refuses a newer version rather than computing something else.
VERSIONS: dict[str, tuple[int, int]] = {
    "CONV_2D": (3, 4),
    "DEPTHWISE_CONV_2D": (3, 5),
    "TRANSPOSE_CONV": (3, 3),
    "FULLY_CONNECTED": (4, 7),
    "BATCH_MATMUL": (2, 3),
    "ADD": (2, 4),
    "SUB": (2, 5),
    "MUL": (2, 4),
    "MAXIMUM": (2, 3),
    "MINIMUM": (2, 3),
    "CONCATENATION": (2, 3),
    "PAD": (2, 3),
    "PADV2": (2, 2),
    "MAX_POOL_2D": (2, 3),
    "AVERAGE_POOL_2D": (2, 3),
    "MEAN": (2, 3),
    "SUM": (1, 2),
    "REDUCE_MAX": (2, 3),
    "SOFTMAX": (2, 3),
    "LOGISTIC": (2, 3),
    "TANH": (2, 3),
    "RELU": (2, 3),
    "RELU6": (2, 3),
    "LEAKY_RELU": (2, 2),
    "PRELU": (1, 1),
    "RESIZE_BILINEAR": (2, 3),
    "RESIZE_NEAREST_NEIGHBOR": (2, 3),
    "SLICE": (2, 4),
    "STRIDED_SLICE": (2, 4),
    "SPLIT": (2, 4),
    "SPLIT_V": (2, 2),
    "TRANSPOSE": (2, 3),
    "PACK": (2, 3),
    "UNPACK": (2, 3),
    "GATHER": (2, 4),
    "QUANTIZE": (2, 2),
    "DEQUANTIZE": (2, 3),
    "DEPTH_TO_SPACE": (1, 1),
    "SPACE_TO_DEPTH": (2, 2),
    "MIRROR_PAD": (2, 3),
    "RSQRT": (2, 3),
    "SQUARED_DIFFERENCE": (2, 2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (2, 4),
    "SELECT_V2": (1, 1),
    "BROADCAST_TO": (3, 3),
    "L2_NORMALIZATION": (2, 2),
    "ARG_MAX": (2, 2),
    "EXPAND_DIMS": (1, 1),
}

#: Options tables whose name does not follow from the operator's.
OPTIONS_NAMES: dict[str, str] = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "PADV2": "PadV2Options",
    "SELECT_V2": "SelectV2Options",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
}

#: Operators that have no options table in the schema.
NO_OPTIONS = frozenset({"LOGISTIC", "TANH", "RELU", "RELU6", "PRELU", "RSQRT"})

_TYPES = {
    "float32": "FLOAT32",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}


def schema() -> Any:
    """The generated schema module of ai-edge-litert, imported on first use.

    Raises:
        MissingToolError: where ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingToolError(
            "ai-edge-litert (the TFLite schema)", install="pip install 'edgedeploy[tflm]'", found=str(error)
        ) from error
    return schema_py_generated


def serialize(model: TfliteModel) -> bytes:
    """Return the file's bytes."""
    import flatbuffers

    fb = schema()
    writer = _Writer(fb)
    root = writer.model(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(root.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def operators_of(content: bytes) -> tuple[str, ...]:
    """The distinct operators of a .tflite file, sorted; custom ones by their own name."""
    fb = schema()
    model = fb.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(fb.BuiltinOperator).items() if isinstance(value, int)}
    used = {operator.opcodeIndex for subgraph in model.subgraphs for operator in subgraph.operators}
    found = set()
    for index in used:
        code = model.operatorCodes[index]
        custom = code.customCode
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        found.add(custom.decode() if custom else names[number])
    return tuple(sorted(found))


def options_name(builtin: str) -> str:
    """The schema's options table of an operator ("PAD" → "PadOptions")."""
    return OPTIONS_NAMES.get(builtin, "".join(word.capitalize() for word in builtin.split("_")) + "Options")


class _Writer:
    """Turns a `TfliteModel` into the schema's object API."""

    def __init__(self, fb: Any) -> None:
        self._fb = fb
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._constants: dict[bytes, int] = {}
        # Buffer 0 is by convention the empty buffer of every tensor without data.
        self._buffers: list[Any] = [fb.BufferT()]

    def model(self, model: TfliteModel) -> Any:
        fb = self._fb
        subgraph = fb.SubGraphT(
            tensors=[self._tensor(tensor) for tensor in model.tensors],
            inputs=np.asarray(model.inputs, np.int32),
            outputs=np.asarray(model.outputs, np.int32),
            operators=[],
            name="main",
        )
        codes: dict[tuple[str, int], int] = {}
        for operator in model.operators:
            version = _version(model, operator.builtin, operator.inputs)
            index = codes.setdefault((operator.builtin, version), len(codes))
            subgraph.operators.append(self._operator(operator, index))
        return fb.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[self._code(builtin, version) for builtin, version in codes],
            subgraphs=[subgraph],
            description="edgedeploy",
            buffers=self._buffers,
        )

    def _code(self, builtin: str, version: int) -> Any:
        number = getattr(self._fb.BuiltinOperator, builtin)
        return self._fb.OperatorCodeT(
            deprecatedBuiltinCode=min(number, OPERATOR_CODES_END), builtinCode=number, version=version
        )

    def _operator(self, operator: Any, code: int) -> Any:
        fb = self._fb
        made = fb.OperatorT(
            opcodeIndex=code,
            inputs=np.asarray(operator.inputs, np.int32),
            outputs=np.asarray(operator.outputs, np.int32),
        )
        if operator.intermediates:
            made.intermediates = np.asarray(operator.intermediates, np.int32)
        if operator.builtin not in NO_OPTIONS:
            name = options_name(operator.builtin)
            made.builtinOptionsType = getattr(fb.BuiltinOptions, name)
            made.builtinOptions = getattr(fb, name + "T")(**operator.options)
        return made

    def _tensor(self, tensor: Tensor) -> Any:
        fb = self._fb
        return fb.TensorT(
            shape=np.asarray(tensor.shape, np.int32),
            type=getattr(fb.TensorType, _TYPES[tensor.dtype]),
            buffer=0 if tensor.data is None else self._buffer(tensor.data),
            name=tensor.name,
            quantization=None if tensor.quantization is None else self._quantization(tensor.quantization),
            isVariable=tensor.variable,
            hasRank=True,
        )

    def _buffer(self, data: NDArray[Any]) -> int:
        content = np.ascontiguousarray(data).tobytes()
        if content not in self._constants:
            self._constants[content] = len(self._buffers)
            made = _packers()[1]()
            made.content = content
            self._buffers.append(made)
        return self._constants[content]

    def _quantization(self, affine: Affine) -> Any:
        made = _packers()[0]()
        made.affine, made.vectors = affine, self._vectors
        return made


def _shared(builder: Any, vectors: dict[tuple[str, bytes], int], array: NDArray[Any]) -> int:
    key = (array.dtype.char, array.tobytes())
    if key not in vectors:
        vectors[key] = builder.CreateNumpyVector(array)
    return vectors[key]


@cache
def _packers() -> tuple[Any, Any]:
    """The two classes whose packing differs from the generated one, built on first use: building one takes long."""
    fb = schema()

    class SharedQuantization(fb.QuantizationParametersT):  # type: ignore[misc,name-defined]
        """Stores a vector that an earlier tensor had as a reference to it."""

        def Pack(self, builder: Any) -> Any:  # noqa: N802
            scale = _shared(builder, self.vectors, self.affine.scale)
            points = _shared(builder, self.vectors, self.affine.zero_point)
            fb.QuantizationParametersStart(builder)
            fb.QuantizationParametersAddScale(builder, scale)
            fb.QuantizationParametersAddZeroPoint(builder, points)
            fb.QuantizationParametersAddQuantizedDimension(builder, self.affine.axis)
            return fb.QuantizationParametersEnd(builder)

    class AlignedBuffer(fb.BufferT):  # type: ignore[misc,name-defined]
        """A buffer whose data starts on a multiple of `ALIGNMENT` from the start of the file."""

        def Pack(self, builder: Any) -> Any:  # noqa: N802
            size = len(self.content)
            builder.StartVector(1, size, ALIGNMENT)
            builder.head = builder.head - size
            builder.Bytes[builder.head : builder.head + size] = self.content
            data = builder.EndVector()
            fb.BufferStart(builder)
            fb.BufferAddData(builder, data)
            return fb.BufferEnd(builder)

    return SharedQuantization, AlignedBuffer


def _version(model: TfliteModel, builtin: str, inputs: tuple[int, ...]) -> int:
    eight, sixteen = VERSIONS.get(builtin, (1, 1))
    types = {model.tensors[index].dtype for index in inputs if index >= 0 and model.tensors[index].data is None}
    if "int16" in types:
        return sixteen
    return eight if "int8" in types else 1
