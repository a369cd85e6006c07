"""Networks like this one: what they were measured at, against what the form says of them.

A network's position is how its time divides over kinds of work. The correction is a kernel mean (Nadaraya 1964) of
the measured networks' log ratios, shrunk towards none where no measured network is near.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.targets.cost.layers import Kind, Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.targets.cost.latency import LayerTimes

TABLE = Path(__file__).with_name("peers.json")
_GROUPS: dict[Kind, int] = {
    Kind.DEPTHWISE: 3,
    Kind.LINEAR: 4,
    Kind.RECURRENT: 4,
    Kind.ATTENTION: 5,
    Kind.SOFTMAX: 5,
    Kind.PERMUTE: 5,
    Kind.NORM: 6,
    Kind.ACTIVATION: 7,
    Kind.ELEMENTWISE: 8,
    Kind.OTHER: 8,
}
_DATA = 9  # pooling, resizing, moving
_SPREAD, _SHRINK, _SIZE, _LARGEST = 0.2, 0.25, 0.05, 1.0


@dataclass(frozen=True)
class Peers:
    """Measured networks: positions, shape (networks, 14), and log(measured / form), shape (networks,)."""

    positions: NDArray[np.float64]
    log_ratio: NDArray[np.float64]


def groups(layers: Sequence[Layer]) -> NDArray[np.int64]:
    """The kind of work of each layer: wide, 1x1 and grouped convolutions apart."""
    return np.array([_group(layer) for layer in layers], np.int64)


def _group(layer: Layer) -> int:
    if layer.kind is Kind.CONV:
        return 2 if layer.groups > 1 else int(layer.taps == 1)
    return _GROUPS.get(layer.kind, _DATA)


def position(group: NDArray[np.int64], times: LayerTimes) -> NDArray[np.float64]:
    """Where a network lies: square roots of its shares of time, and a little of its size; shape (14,)."""
    busy = np.bincount(group, times.total_us - times.calls_us, minlength=_DATA + 1)
    parts = np.array([times.overhead_us, times.calls_us.sum(), *busy, times.waiting_us.sum()])
    total = times.overhead_us + times.total_us.sum()
    return np.append(np.sqrt(parts / total), _SIZE * np.log(total))


def correction(at: NDArray[np.float64], peers: Peers) -> float:
    """Log factor on the form's latency, from the measured networks near ``at``."""
    near = np.exp(-((peers.positions - at) ** 2).sum(1) / (2 * _SPREAD**2))
    ratio = np.clip(peers.log_ratio, -_LARGEST, _LARGEST)
    return float((near * ratio).sum() / (near.sum() + _SHRINK))


@cache
def load_peers(form: str, precision: str) -> Peers | None:
    """The measured networks of a kind of processor in one precision; ``None`` where the form stands alone."""
    found = json.loads(TABLE.read_text(encoding="utf-8")).get(form, {}).get(precision)
    return Peers(np.array(found["positions"]), np.array(found["log_ratio"])) if found else None
