"""Mixed precision: keep the fewest layers at higher precision that meet an accuracy goal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.layers import Layer
from edgedeploy.calibration.sensitivity import SensitivityRanking
from edgedeploy.calibration.simulate import Simulator
from edgedeploy.compare import OutputComparison, compare
from edgedeploy.device_profiles.schema import Quality
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence
from edgedeploy.judge import FIDELITY, Outcome, judge_quality

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from edgedeploy.calibration.quantizer.table import RangeTable
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph

#: A gate of the calibrated ranges, which float layers do not mend.
_NOT_OURS = "max_clipped_fraction"


@dataclass(frozen=True)
class Goal:
    """What the quantized model must keep: the same gates on the same outputs as the judge will ask about.

    Attributes:
        gates: those that must not fail; others than the ones of `FIDELITY` do not count.
        class_outputs: class axis, counted with the samples axis, of the outputs that are class scores.
    """

    gates: Quality
    class_outputs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(getattr(self.gates, gate) is not None for gate in FIDELITY):
            raise InputError("Mixed precision needs a goal and has none.", remedy=f"Set one of {', '.join(FIDELITY)}.")


@dataclass(frozen=True)
class Measured:
    """One mixture, compared with the float model.

    Attributes:
        sqnr_db: over all float outputs, the worst group's centred SQNR; infinite where no output is float.
        failed: gates of the goal that it fails.
        accuracy_drop: loss of top-1 accuracy (of agreement, without labels) as a fraction; 0 without class scores.
    """

    sqnr_db: float
    failed: tuple[str, ...]
    accuracy_drop: float = 0.0

    @property
    def met(self) -> bool:
        """True where every gate of the goal holds."""
        return not self.failed


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
    labels: Mapping[str, NDArray[Any]] | None = None,
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
        labels: true classes of all samples by output, in order.
        max_layers: raise no more than this many; default all.
        bias_correction: as `quantize` will be told.
    """
    search = _Search(graph, table, scheme, ranking, samples, goal, labels, bias_correction=bias_correction)
    order = tuple(entry.layer for entry in ranking.layers)[:max_layers]
    plain = search.measure(())
    kept: tuple[Layer, ...] = ()
    if not plain.met:
        kept = search.shortest_prefix(order)
        met = search.measure(kept).met
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
        met=search.measure(kept).met,
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
        labels: Mapping[str, NDArray[Any]] | None,
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
        goal = self._goal
        found = compare(self._reference, outputs, class_outputs=goal.class_outputs, labels=self._labels)
        verdicts = judge_quality(goal.gates, found, Evidence.EXECUTOR)
        failed = tuple(item.name for item in verdicts if item.outcome is Outcome.FAIL and item.name != _NOT_OURS)
        noises = [item.sqnr_db for item in found if item.sqnr_db is not None]
        drops = [_drop(item) for item in found]
        return Measured(min(noises, default=math.inf), failed, max(drops, default=0.0))

    def shortest_prefix(self, order: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The shortest prefix of the ranking that meets the goal, as bisection finds it; all where none does."""
        enough = 1
        while enough < len(order) and not self.measure(order[:enough]).met:
            enough = min(2 * enough, len(order))
        too_few = enough // 2
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if self.measure(order[:middle]).met:
                enough = middle
            else:
                too_few = middle
        return order[:enough]

    def without_needless(self, kept: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The layers without those whose removal still meets the goal, least sensitive first."""
        for layer in reversed(kept):
            fewer = tuple(other for other in kept if other is not layer)
            if fewer and self.measure(fewer).met:
                kept = fewer
        return kept

    def best(self, order: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """The measured mixture with the highest SQNR, where the goal is out of reach."""
        names = max(self.known, key=lambda key: self.known[key].sqnr_db)
        return tuple(layer for layer in order if layer.name in names)


def _drop(found: OutputComparison) -> float:
    if found.accuracy is not None and found.reference_accuracy is not None:
        return found.reference_accuracy - found.accuracy
    return 0.0 if found.agreement is None else 1.0 - found.agreement
