"""`Scheme`: what a backend declares about its integer arithmetic; `quantize` reads nothing else about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True)
class IntegerFormat:
    """An integer number format for activations or weights.

    Attributes:
        bits: 4, 8 or 16.
        signed: two's complement or unsigned.
        symmetric: zero_point fixed at 0 (signed) or at the middle (unsigned).
        narrow: leaves out the lowest code of a signed format, so that the range is exactly symmetric.
        per_channel: one scale per output channel (weights only).
        reduced: one bit less is used of each code (x86 without VNNI saturates 8-bit pair sums).
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = False
    narrow: bool = False
    per_channel: bool = False
    reduced: bool = False

    @property
    def qmin(self) -> int:
        """Smallest code."""
        bits = self.bits - self.reduced
        return -(2 ** (bits - 1)) + self.narrow if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        bits = self.bits - self.reduced
        return int(2 ** (bits - 1)) - 1 if self.signed else int(2**bits) - 1

    @property
    def dtype(self) -> str:
        """Return the numpy name of the storage type ("int8", "uint16"; 4 bits are "int4"/"uint4")."""
        return f"{'int' if self.signed else 'uint'}{self.bits}"


class Placement(StrEnum):
    """Where Q/DQ pairs go."""

    INPUTS = "inputs"
    """Only on the inputs of the scheme's ops; what they produce stays float until another op wants it."""

    EVERYWHERE = "everywhere"
    """On every float tensor the scheme's ops read or write, so that a device computes in integers throughout."""


#: ``Scheme.op_types`` of a device that computes everything in integers.
EVERY_OP: frozenset[str] = frozenset({"*"})


@dataclass(frozen=True)
class FixedOutput:
    """An output format that the runtime dictates for an op (softmax: scale 1/256, zero point -128)."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Scheme:
    """A backend's quantization rules.

    Attributes:
        name: as the manifest shows it ("onnxruntime-x86").
        activation, weight: number formats.
        bias: "int32" (scale = input scale x weight scale), "int64", or "float32".
        op_types: ops that compute in integers under this scheme; `EVERY_OP` for all of them.
        placement: where Q/DQ pairs go.
        fused_activations: ops that the backend fuses into the producer (no Q/DQ between).
        shared_scale: ops whose float inputs and outputs share one scale (Concat, MaxPool, Reshape, Pad ...).
        fixed_outputs: output formats that the runtime dictates, by op type.
        weight_axis: output-channel axis of the weights where it is not 0, by op type (MatMul: -1, ConvTranspose: 1).
        weight_formats: weight formats that differ from ``weight``, by op type (an embedding table, a LayerNorm gamma).
        per_tensor_weights: op types, and names of single nodes, whose weights stay per-tensor even if
            ``weight.per_channel``.
        float_outputs: ops that the runtime computes from integers to float at no cost, so that a tensor which only
            float ops read is not rounded (QGemm, MatMulIntegerToFloat).
        absorbed_activations: drop a fused Relu or Clip where the rounding to integers already saturates at its bounds.
        fused_bias: a MatMul by a weight and the Add of a constant after it are one op with a bias (fully connected).
        residual_one_branch: an Add gets Q/DQ on its non-fused branch only (TensorRT).
        masked_attention_float: leave the dynamic matmuls of masked attention float (TensorRT).
        excluded_depthwise: leave depthwise convolutions float (TensorRT: padding bloats the engine).
        octave_weight_scales: per-channel scales of weights that multiply wider activations are a power of two apart
            (`quantizer/octaves.py`: Hexagon).
        higher_fixed_outputs: ``fixed_outputs`` of tensors in ``higher``.
        higher: the format of tensors that accuracy repair raises; ``None`` means float.
    """

    name: str
    activation: IntegerFormat
    weight: IntegerFormat
    bias: str
    op_types: frozenset[str]
    placement: Placement = Placement.EVERYWHERE
    fused_activations: frozenset[str] = frozenset({"Relu", "Clip"})
    shared_scale: frozenset[str] = frozenset()
    fixed_outputs: Mapping[str, FixedOutput] = field(default_factory=dict)
    weight_axis: Mapping[str, int] = field(default_factory=lambda: {"MatMul": -1, "ConvTranspose": 1})
    weight_formats: Mapping[str, IntegerFormat] = field(default_factory=dict)
    per_tensor_weights: frozenset[str] = frozenset()
    float_outputs: frozenset[str] = frozenset()
    absorbed_activations: bool = False
    fused_bias: bool = False
    residual_one_branch: bool = False
    masked_attention_float: bool = False
    excluded_depthwise: bool = False
    octave_weight_scales: bool = False
    higher: IntegerFormat | None = None
    higher_fixed_outputs: Mapping[str, FixedOutput] = field(default_factory=dict)

    def computes(self, op_type: str) -> bool:
        """True where the op computes in integers under this scheme."""
        return "*" in self.op_types or op_type in self.op_types

    def weight_format(self, op_type: str, node: str = "") -> IntegerFormat:
        """The format of the weights of a node of this type and name, its per-tensor exception applied."""
        form = self.weight_formats.get(op_type, self.weight)
        return replace(form, per_channel=False) if self.per_tensor_weights & {op_type, node} else form
