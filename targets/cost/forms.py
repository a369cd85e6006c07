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
    Kind.MOVE: 0.1,
    Kind.OTHER: 1.0,
}

#: On a CPU every output of a matrix product is rescaled or stored by the same unit.
_STORES: dict[Kind, float] = {**_VECTOR, Kind.CONV: 1.0, Kind.DEPTHWISE: 1.0, Kind.LINEAR: 1.0, Kind.ATTENTION: 1.0}


@dataclass(frozen=True)
class Form:
    """How a kind of processor spends time.

    Attributes:
        lanes: channels are padded to a multiple of this.
        io_channels: an image is laid out with at least this many channels when it enters.
        on_chip_bytes: what a layer reads and writes beyond this goes through memory.
        dilation: factor on the multiply-accumulates of a dilated convolution.
        integer_activation: factor on activations computed by table lookup in integers.
        winograd: factor on the multiply-accumulates of wide 3x3 convolutions of stride 1 (Lavin and Gray 2016), in
            float only.
        vector: passes of the vector unit by kind of layer.
    """

    lanes: int = 1
    io_channels: int = 1
    on_chip_bytes: float = 0.0
    dilation: float = 1.0
    integer_activation: float = 1.0
    winograd: float = 1.0
    vector: Mapping[Kind, float] = field(default_factory=lambda: dict(_VECTOR))


FORMS: dict[str, Form] = {
    "npu": Form(lanes=32, io_channels=32, on_chip_bytes=8e6, dilation=2.5, integer_activation=0.2),
    "ane": Form(lanes=16, on_chip_bytes=3e7),
    "gpu": Form(lanes=8, on_chip_bytes=2e6),
    "cpu": Form(lanes=4, on_chip_bytes=1e6, winograd=0.6, vector=_STORES),
    "mcu": Form(lanes=1, on_chip_bytes=1e12, vector=_STORES),
}
