"""The fixed part of the latency model, by kind of processor; what is fitted per device is in its profile.

Each constant is physical and was chosen on the networks of the fit, never on the frozen test set (docs/cost_model.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgedeploy.targets.cost.layers import Kind

#: Bytes through the vector unit, in outputs written (pooling: inputs read), by kind of layer.
_VECTOR: dict[Kind, float] = {
    Kind.ELEMENTWISE: 1.0,
    Kind.ACTIVATION: 1.0,
    Kind.SOFTMAX: 3.0,
    Kind.NORM: 3.0,
    Kind.POOL: 1.0,
    Kind.RESIZE: 1.0,
    Kind.PERMUTE: 3.0,
    Kind.LAYOUT: 3.0,
    Kind.MOVE: 0.1,
    Kind.OTHER: 1.0,
}

#: Where every output of a matrix product is rescaled or stored by the same unit.
_STORES: dict[Kind, float] = {**_VECTOR, Kind.CONV: 1.0, Kind.DEPTHWISE: 1.0, Kind.LINEAR: 1.0, Kind.ATTENTION: 1.0}
#: A CPU library copies what an NPU only lays out differently.
_COPIES: dict[Kind, float] = {**_STORES, Kind.MOVE: 1.0}
#: Hexagon: vectors of 128 bytes hold whole pixels, so that shuffling single elements is dear.
_HEXAGON: dict[Kind, float] = {
    Kind.ELEMENTWISE: 1.0,
    Kind.ACTIVATION: 3.3,
    Kind.SOFTMAX: 4.0,
    Kind.NORM: 4.0,
    Kind.POOL: 1.3,
    Kind.RESIZE: 1.5,
    Kind.PERMUTE: 20.0,
    Kind.LAYOUT: 0.0,
    Kind.MOVE: 0.4,
    Kind.OTHER: 1.0,
}


@dataclass(frozen=True)
class Form:
    """How a kind of processor spends time.

    Attributes:
        lanes: channels are padded to a multiple of this.
        input_lanes: what a convolution's or matrix product's input channels are padded to; ``lanes`` where 0.
        tensor_lanes: channels of every tensor are padded to a multiple of this in memory and in the vector unit.
        planes: in integers a tensor of one channel is not padded.
        io_channels: an image is laid out with at least this many channels when it enters or leaves.
        leaving: what a byte that leaves costs against one that enters.
        on_chip_bytes: what a layer reads and writes beyond this goes through memory.
        spill: share of that which really does.
        dilation: factor on the multiply-accumulates of a dilated convolution.
        integer_activation: factor on activations computed by table lookup in integers.
        winograd: factors on the multiply-accumulates of wide 3x3 convolutions of stride 1 (Lavin and Gray 2016), in
            float and in integers.
        winograd_weights: factor on the bytes of their weights, which are kept transformed.
        unfold: passes of the vector unit over what a convolution wider than 1x1 unfolds (or Winograd transforms).
        grouped_calls: every group of a grouped convolution is a call of its own.
        sequences: a dense layer on a sequence runs at the rate of attention's products, not at that of convolutions.
        vector: passes of the vector unit by kind of layer; in 16-bit elements for the kinds of ``by_element``.
        by_element: kinds of layer that take as long in 8 bits as in 16.
        free: kinds of layer that are not executed at all.
    """

    lanes: int = 1
    input_lanes: int = 0
    tensor_lanes: int = 1
    planes: bool = False
    io_channels: int = 1
    leaving: float = 1.0
    on_chip_bytes: float = 0.0
    spill: float = 1.0
    dilation: float = 1.0
    integer_activation: float = 1.0
    winograd: tuple[float, float] = (1.0, 1.0)
    winograd_weights: float = 1.0
    unfold: float = 0.0
    grouped_calls: bool = False
    sequences: bool = False
    vector: Mapping[Kind, float] = field(default_factory=lambda: dict(_VECTOR))
    by_element: frozenset[Kind] = frozenset()
    free: frozenset[Kind] = frozenset()


FORMS: dict[str, Form] = {
    "npu": Form(
        lanes=32,
        input_lanes=16,
        tensor_lanes=32,
        planes=True,
        io_channels=32,
        leaving=0.4,
        on_chip_bytes=8e6,
        spill=0.4,
        dilation=2.2,
        integer_activation=0.6,
        vector=_HEXAGON,
        by_element=frozenset({Kind.SOFTMAX, Kind.PERMUTE}),
        free=frozenset({Kind.LAYOUT}),
    ),
    "ane": Form(lanes=16, on_chip_bytes=3e7, sequences=True),
    "gpu": Form(lanes=8, on_chip_bytes=4e6, vector=_STORES),
    "cpu": Form(
        lanes=4,
        on_chip_bytes=1e6,
        winograd=(0.4, 0.8),
        winograd_weights=4.0,
        unfold=1.0,
        grouped_calls=True,
        sequences=True,
        vector=_COPIES,
    ),
    # Two int8 multiply-accumulates an instruction (SMLAD).
    "mcu": Form(lanes=2, on_chip_bytes=1e12, vector=_STORES),
}
