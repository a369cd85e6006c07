"""Mixed precision: keep the fewest layers at higher precision that meet an accuracy goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.layers import Layer
from edgedeploy.calibration.sensitivity import SensitivityRanking
from edgedeploy.calibration.simulate import Simulator, sqnr_db
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from edgedeploy.calibration.quantizer.table import RangeTable
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph


@dataclass(frozen=True)
class Goal:
    """What the quantized model must keep; a bound that is ``None`` does not count.

    Attributes:
        max_accuracy_drop: largest loss of top-1 accuracy against the float model, as a fraction (0.005 is half a
            point); without labels, largest share of samples whose top-1 class changes.
        min_sqnr_db: smallest signal-to-noise ratio of the outputs, in dB.
    """

    max_accuracy_drop: float | None = None
    min_sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.max_accuracy_drop is None and self.min_sqnr_db is None:
            raise InputError(
                "Mixed precision needs a goal and has none.", remedy="Set max_accuracy_drop, min_sqnr_db or both."
            )


@dataclass(frozen=True)
class Measured:
    """One mixture's accuracy: top-1 loss against the float model as a fraction, and output SQNR in dB."""

    accuracy_drop: float
    sqnr_db: float

    def meets(self, goal: Goal) -> bool:
        """True where every bound of the goal holds."""
        return (goal.max_accuracy_drop is None or self.accuracy_drop <= goal.max_accuracy_drop) and (
            goal.min_sqnr_db is None or self.sqnr_db >= goal.min_sqnr_db
        )


@dataclass(frozen=True)
class Mixture:
    """Which layers compute at higher precision, and what that gives.

    Attributes:
        kept: the layers at higher precision, worst first; none where plain integers meet the goal.
        exclude, higher: arguments of `quantize` that make it.
        integer_macs_share: share of the multiply-accumulates that stay in the scheme's integers, 0 to 1.
        plain, mixed: accuracy with no layer and with ``kept`` at higher precision.
        met: whether the goal is met; where it is not, ``kept`` is the best of what was tried.
        tried: (layers kept, accuracy) of every mixture that was simulated, in order.
    """

    kept: tuple[Layer, ...]
    exclude: frozenset[str]
    higher: frozenset[str]
    integer_macs_share: float
    plain: Measured
    mixed: Measured
    met: bool
    tried: tuple[tuple[int, Measured], ...]


def mix_precision(
    graph: Graph,
    table: RangeTable,
    scheme: Scheme,
    ranking: SensitivityRanking,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    goal: Goal,
    *,
    labels: NDArray[np.integer[Any]] | None = None,
    max_layers: int | None = None,
    bias_correction: bool = True,
) -> Mixture:
    """Raise layers in the order of ``ranking`` until the goal is met, then lower again what is not needed.

    The count is found by doubling and bisection; layers are then tried for removal from the least to the most
    sensitive, so that the mixture holds no layer without which the goal would also be met. A layer is raised to
    ``scheme.higher`` activations, or left float where the scheme names no higher format.

    Args:
        graph: the float graph.
        table: its calibrated ranges.
        scheme: the backend's rules.
        ranking: from `rank_layers`, same graph and scheme.
        samples: feeds by input name, on which the goal is measured; not the calibration samples.
        goal: what must hold.
        labels: true classes of all samples, in order; as many for each as its batch holds. Without them accuracy is
            agreement with the float model.
        max_layers: raise no more than this many; default all.
        bias_correction: as `quantize` will be told.
    """
    search = _Search(graph, table, scheme, ranking, samples, goal, labels, bias_correction=bias_correction)
    order = tuple(entry.layer for entry in ranking.layers)[:max_layers]
    plain = search.measure(())
    kept: tuple[Layer, ...] = ()
    if not plain.meets(goal):
        kept = search.shortest_prefix(order)
        met = search.measure(kept).meets(goal)
        kept = search.without_needless(kept) if met else search.best(order)
    exclude, higher = raised(kept, scheme)
    macs = {entry.layer.name: entry.macs_share for entry in ranking.layers}
    return Mixture(
        kept=kept,
        exclude=exclude,
        higher=higher,
        integer_macs_share=1.0 - sum(macs[layer.name] for layer in kept),
        plain=plain,
        mixed=search.measure(kept),
        met=search.measure(kept).meets(goal),
        tried=tuple((len(key), value) for key, value in search.known.items()),
    )


def raised(kept: Sequence[Layer], scheme: Scheme) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ``exclude`` and ``higher`` of `quantize` that raise these layers under a scheme."""
    if scheme.higher is None:
        return frozenset(name for layer in kept for name in layer.nodes), frozenset()
    return frozenset(), frozenset(name for layer in kept for name in layer.tensors)


class _Search:
    """Measures mixtures, each once."""

    def __init__(
        self,
        graph: Graph,
        table: RangeTable,
        scheme: Scheme,
        ranking: SensitivityRanking,
        samples: Sequence[Mapping[str, NDArray[Any]]],
        goal: Goal,
        labels: NDArray[np.integer[Any]] | None,
        *,
        bias_correction: bool,
    ) -> None:
        self._bias_correction = bias_correction
        self._graph, self._table, self._scheme = graph, table, scheme
        self._samples, self._goal, self._labels = samples, goal, labels
        self._place = {entry.layer.name: place for place, entry in enumerate(ranking.layers)}
        self.known: dict[frozenset[str], Measured] = {}

    @cached_property
    def _reference(self) -> dict[str, NDArray[Any]]:
        return Simulator(self._graph, optimized=False).run(self._samples)

    def measure(self, kept: Sequence[Layer]) -> Measured:
        key = frozenset(layer.name for layer in kept)
        if key not in self.known:
            exclude, higher = raised(kept, self._scheme)
            graph, table, correct = self._graph, self._table, self._bias_correction
            model = quantize(graph, table, self._scheme, exclude=exclude, higher=higher, bias_correction=correct)
            self.known[key] = self._compare(model)
        return self.known[key]

    def _compare(self, model: onnx.ModelProto) -> Measured:
        outputs = Simulator(model, optimized=False).run(self._samples)
        name = next(iter(self._reference))
        before = _top1(self._reference[name])
        after = _top1(outputs[name])
        if self._labels is None:
            drop = float((before != after).mean())
        else:
            truth = np.asarray(self._labels).reshape(len(before), -1)
            drop = float((before == truth).mean() - (after == truth).mean())
        return Measured(drop, sqnr_db(self._reference, outputs))

    def shortest_prefix(self, order: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The shortest prefix of the ranking that meets the goal, as bisection finds it; all where none does."""
        enough = 1
        while enough < len(order) and not self.measure(order[:enough]).meets(self._goal):
            enough = min(2 * enough, len(order))
        too_few = enough // 2
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self.measure(order[:middle]).meets(self._goal):
                enough = middle
            else:
                too_few = middle
        return order[:enough]

    def without_needless(self, kept: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The layers without those whose removal still meets the goal, least sensitive first."""
        for layer in reversed(kept):
            fewer = tuple(other for other in kept if other is not layer)
            if fewer and self.measure(fewer).meets(self._goal):
                kept = fewer
        return kept

    def best(self, order: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The measured mixture with the highest SQNR, where the goal is out of reach."""
        names = max(self.known, key=lambda key: self.known[key].sqnr_db)
        return tuple(layer for layer in order if layer.name in names)


def _top1(values: NDArray[Any]) -> NDArray[np.int64]:
    flat = values.reshape(len(values), -1, values.shape[-1])
    return np.asarray(flat.argmax(axis=-1), np.int64)
