"""What the quantizer asks of a calibration table, and the ranges it takes from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgedeploy.calibration.histogram import EXTREME
from edgedeploy.calibration.quantizer.topology import Topology
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.input_moments import InputMoments

#: A masked score is stored this far below the smallest real one, so that softmax gives it less than 1e-6.
_MASKED = 16.0


class TensorRange(Protocol):
    """The real range that a tensor's codes must hold."""

    @property
    def low(self) -> float:
        """Smallest value."""
        ...

    @property
    def high(self) -> float:
        """Largest value."""
        ...


class ChannelMeans(Protocol):
    """Means per channel along an axis."""

    @property
    def axis(self) -> int:
        """The channel axis."""
        ...

    @property
    def mean(self) -> NDArray[np.float64]:
        """Shape (channels,)."""
        ...


class Statistics(Protocol):
    """What bias correction needs to know of a tensor."""

    @property
    def name(self) -> str:
        """The tensor that was observed: another one where this one only reorders its values."""
        ...

    @property
    def extreme(self) -> int:
        """Values too large to be data: the filler of an attention mask."""
        ...

    @property
    def channels(self) -> ChannelMeans | None:
        """Means per channel, ``None`` for a tensor without a channel axis."""
        ...


class RangeTable(Protocol):
    """What `quantize` needs of a calibration table."""

    @property
    def moments(self) -> InputMoments | None:
        """What each layer's weights multiply; ``None`` rounds every weight to the nearest code."""
        ...

    def statistics(self, tensor: str) -> Statistics:
        """What is known of a float tensor."""
        ...

    def range(self, tensor: str, fmt: IntegerFormat) -> TensorRange:
        """The chosen range of a float tensor for a number format."""
        ...


def tensor_range(name: str, form: IntegerFormat, topology: Topology, table: RangeTable) -> TensorRange:
    """Range that a tensor's codes must hold: what nothing but a Relu or Clip reads need only hold what passes it."""
    readers = topology.consumers.get(name, ())
    if not readers or name in topology.outputs or any(node.op_type not in {"Relu", "Clip"} for node, _ in readers):
        found = table.range(name, form)
        masked = _MASKED if table.statistics(name).extreme else 0.0
        return Range(found.low - masked, found.high)
    passed = [tensor_range(node.output[0], form, topology, table) for node, _ in readers]
    return Range(min(item.low for item in passed), max(item.high for item in passed))


def constant_range(values: NDArray[np.float32]) -> Range:
    """Range of a constant operand; the filler of a mask saturates."""
    data = values[np.abs(values) < EXTREME]
    return Range(float(data.min(initial=0.0)), float(data.max(initial=0.0)))
