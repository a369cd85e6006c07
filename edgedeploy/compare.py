"""How close a deployed artefact's outputs are to the FP32 reference, and whether the comparison proves anything.

A model whose output hardly depends on its input scores a perfect cosine whatever was broken in it, and a large channel
hides what happens to a small one. So errors are put in relation to how much the reference itself moves over the
inputs: for each part of an output that has a scale of its own, for each slice of its axes, and for each sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.quality.discrete import Discrete, compare_discrete
from edgedeploy.quality.groups import Group, Moments, groups_of, mean_over
from edgedeploy.quality.measures import cosine, decibels
from edgedeploy.quality.nonfinite import MOST_UNDEFINED, Pattern

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A slice that moves less than this share of its group's typical spread is measured against that share of it: the
#: error that a group may have on average is no damage in a slice that hardly varies.
SLICE_FLOOR = 0.35
#: The share of the samples that is named as the worst.
WORST_SHARE = 0.01


@dataclass(frozen=True)
class GroupComparison:
    """A part of an output with a scale of its own.

    Attributes:
        where: its slices ("axis 1: 4-6"); "" for the whole output.
        sqnr_db: 10 log10 of the reference's variance over the inputs (its mean square where it does not vary) over the
            error's mean square.
        spread: rms of the reference's deviation from its mean over the inputs.
        varies: False where that is rounding: then ``sqnr_db`` says only that the values are right.
    """

    where: str
    sqnr_db: float
    spread: float
    varies: bool


@dataclass(frozen=True)
class OutputComparison:
    """One output of the artefact against the FP32 reference, over ``samples`` samples.

    Elements in which the reference is NaN or infinite are left out of every figure but the counts of them.

    Attributes:
        total_sqnr_db: 10 log10 of signal power over error power, over all elements; infinite for identical outputs.
        sqnr_db: of the worst group, centred: the reference's variance over the inputs by the error's power.
        channel_sqnr_db: the same for the worst slice of any axis, which needs no more than `SLICE_FLOOR` of its
            group's spread; ``None`` for an output of one element.
        sample_sqnr_db: for the worst sample, its error against its own deviation or, if larger, its group's spread.
        worst_samples: numbers of the worst 1 % of the samples, worst first.
        groups: all groups, worst first.
        worst_channel: which slice ``channel_sqnr_db`` is of.
        cosine_mean, cosine_min: of each sample's flattened output.
        max_abs_error: over all elements.
        spread: rms of the reference's deviation from its mean over the inputs, divided by its rms.
        error_to_spread: rms error divided by that deviation's rms; ``None`` where the output is constant.
        agreement: share of samples (or positions) with the same argmax, with its 95 % Wilson interval.
        accuracy, reference_accuracy: top-1 against the labels, artefact and FP32.
        distinct_classes: how many different argmaxes the reference gives.
        identical: share of equal elements, for integer and boolean outputs.
        identical_constant: the share that the best constant would reach.
        dead: which part of an integer or boolean output is no better than a constant, or which sample is wrong.
        broken_samples: samples in which the artefact gives NaN or Inf and the reference does not; their broken elements
            count as 0 in the other figures.
        infinities: elements in which the reference is infinite; ``infinities_wrong`` of them are not in the artefact,
            ``infinities_finite`` are there as a finite number far beyond all others (see `Pattern`).
        undefined_samples: samples in which the reference has NaN; ``undefined_share`` of all elements is NaN.
    """

    output: str
    samples: int
    total_sqnr_db: float | None
    cosine_mean: float | None
    cosine_min: float | None
    max_abs_error: float
    spread: float | None
    error_to_spread: float | None
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None
    distinct_classes: int | None = None
    identical: float | None = None
    broken_samples: int = 0
    sqnr_db: float | None = None
    channel_sqnr_db: float | None = None
    worst_channel: str = ""
    sample_sqnr_db: float | None = None
    worst_samples: tuple[int, ...] = ()
    groups: tuple[GroupComparison, ...] = ()
    identical_constant: float | None = None
    dead: str = ""
    infinities: int = 0
    infinities_wrong: int = 0
    infinities_finite: int = 0
    undefined_samples: int = 0
    undefined_share: float = 0.0

    @property
    def vacuous(self) -> str:
        """Why the comparison proves nothing, or ``""``."""
        if self.samples < 2:
            return "one sample can't show whether the output depends on the input"
        if self.undefined_share > MOST_UNDEFINED:
            return f"the FP32 reference is NaN in {self.undefined_share:.0%} of the elements of {self.output!r}"
        if self.groups and not any(group.varies for group in self.groups):
            return f"the reference output hardly varies over the inputs (spread {self.spread:.1e} of its size)"
        if self.distinct_classes == 1 and self.agreement is not None:
            return "the reference gives the same class for every sample"
        if self.identical_constant == 1.0:
            return f"the reference output {self.output!r} is the same for every sample"
        return ""


def wilson_interval(successes: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, JASA 22, 1927)."""
    share = successes / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def compare(
    reference: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]],
    *,
    class_outputs: Mapping[str, int] | None = None,
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[OutputComparison, ...]:
    """Compare every output, sample by sample, so that memory-mapped arrays are never held whole.

    Args:
        reference: by output name, (samples, …); may hold more samples than ``outputs``.
        outputs: the artefact's, a prefix of the same samples.
        class_outputs: class axis (counted with the samples axis) of the outputs that are class scores.
        labels: by output name, one integer (or one a position) per sample.

    Raises:
        ToolFailedError: an output is missing, or has another shape or kind of number.
    """
    missing = [name for name in reference if name not in outputs]
    if missing:
        raise ToolFailedError(
            f"The artefact did not give the output(s) {', '.join(missing)}.", found=f"it gave {', '.join(outputs)}"
        )
    return tuple(
        _compare_one(
            name,
            reference[name],
            outputs[name],
            (class_outputs or {}).get(name),
            (labels or {}).get(name),
        )
        for name in reference
    )


def _compare_one(
    name: str,
    reference: NDArray[Any],
    output: NDArray[Any],
    class_axis: int | None,
    labels: NDArray[Any] | None,
) -> OutputComparison:
    count = len(output)
    if count == 0 or output.shape[1:] != reference.shape[1:] or count > len(reference):
        raise ToolFailedError(
            f"Output {name!r} of the artefact has another shape than the reference.",
            found=f"{output.shape} against {reference.shape}",
        )
    if np.issubdtype(reference.dtype, np.floating) != np.issubdtype(output.dtype, np.floating):
        raise ToolFailedError(
            f"Output {name!r} of the artefact has another kind of number than the reference.",
            found=f"{output.dtype} against {reference.dtype}",
        )
    if not np.issubdtype(reference.dtype, np.floating):
        return _of_discrete(name, count, compare_discrete(reference[:count], output))

    moments, mean, pattern = _moments(reference, count)
    groups = groups_of(moments, None if class_axis is None else class_axis - 1)
    squares = np.zeros(reference.shape[1:], np.float64)
    signal = error = deviation = worst = 0.0
    cosines: list[float] = []
    by_sample: list[float] = []
    votes = _Votes(class_axis, labels)
    broken = 0
    for index in range(count):
        want = np.asarray(reference[index], dtype=np.float64)
        got = np.asarray(output[index], dtype=np.float64)
        pattern.add(want, got)
        votes.add(index, want, got)
        finite = np.isfinite(want)
        if not np.isfinite(got[finite]).all():
            broken += 1
        got = np.where(finite & np.isfinite(got), got, 0.0)
        want = np.where(finite, want, 0.0)
        difference = got - want
        squared = np.square(difference)
        away = np.square(np.where(finite, want - mean, 0.0))
        squares += squared
        signal += float(np.sum(want * want))
        error += float(np.sum(squared))
        deviation += float(np.sum(away))
        worst = max(worst, float(np.max(np.abs(difference), initial=0.0)))
        cosines.append(cosine(want, got))
        by_sample.append(min((_sample_db(group, away, squared, finite) for group in groups), default=math.inf))
    noise = squares / np.maximum(moments.count, 1)
    compared = sorted((_compare_group(group, moments, noise) for group in groups), key=lambda item: item.sqnr_db)
    channel_db, channel = min(
        (_worst_slice(group, moments, noise) for group in groups), key=lambda item: item[0], default=(math.inf, "")
    )
    order = np.argsort(by_sample, kind="stable")[: math.ceil(WORST_SHARE * count)]
    return OutputComparison(
        name,
        count,
        total_sqnr_db=decibels(signal, error),
        cosine_mean=float(np.mean(cosines)),
        cosine_min=float(np.min(cosines)),
        max_abs_error=worst,
        spread=math.sqrt(deviation / signal) if signal else 0.0,
        error_to_spread=math.sqrt(error / deviation) if deviation else None,
        agreement=votes.share(votes.agree),
        agreement_interval=wilson_interval(votes.agree, votes.positions) if votes.positions else None,
        accuracy=votes.share(votes.correct) if labels is not None else None,
        reference_accuracy=votes.share(votes.reference_correct) if labels is not None else None,
        distinct_classes=len(votes.classes) if votes.positions else None,
        broken_samples=broken,
        sqnr_db=min((item.sqnr_db for item in compared), default=math.inf),
        channel_sqnr_db=channel_db if squares.size > 1 else None,
        worst_channel=channel,
        sample_sqnr_db=min(by_sample),
        worst_samples=tuple(int(place) for place in order),
        groups=tuple(compared),
        infinities=pattern.infinities,
        infinities_wrong=pattern.wrong,
        infinities_finite=pattern.stand_ins,
        undefined_samples=pattern.undefined_samples,
        undefined_share=pattern.undefined / max(pattern.elements, 1),
    )


def _of_discrete(name: str, count: int, found: Discrete) -> OutputComparison:
    return OutputComparison(
        name,
        count,
        None,
        None,
        None,
        found.max_abs_error,
        None,
        None,
        identical=found.identical,
        identical_constant=found.constant,
        dead=found.dead,
        worst_samples=found.worst_samples,
    )


def _moments(reference: NDArray[Any], count: int) -> tuple[Moments, NDArray[np.float64], Pattern]:
    """The reference's moments per element over the samples (Welford, Technometrics 4, 1962), and its mean."""
    shape = reference.shape[1:]
    seen = np.zeros(shape, np.int64)
    mean, second, square = (np.zeros(shape, np.float64) for _ in range(3))
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for index in range(count):
        want = np.asarray(reference[index], dtype=np.float64)
        finite = np.isfinite(want)
        want = np.where(finite, want, mean)
        seen += finite
        step = want - mean
        mean = mean + step / np.maximum(seen, 1)
        second += step * (want - mean)
        square += np.where(finite, want * want, 0.0)
        low, high = np.where(finite, np.minimum(low, want), low), np.where(finite, np.maximum(high, want), high)
    variance = second / np.maximum(seen - 1, 1)
    moments = Moments(seen, variance, square / np.maximum(seen, 1), low, high)
    known = seen > 0
    ends = (float(low[known].min()), float(high[known].max())) if known.any() else (0.0, 0.0)
    return moments, mean, Pattern(*ends)


def _compare_group(group: Group, moments: Moments, noise: NDArray[np.float64]) -> GroupComparison:
    power = float(mean_over(group.of(noise), group.of(moments.count) > 0))
    db = decibels(group.scale**2, power)
    return GroupComparison(group.name(noise.shape), db, group.spread, group.varies)


def _worst_slice(group: Group, moments: Moments, noise: NDArray[np.float64]) -> tuple[float, str]:
    """(dB, where) of the slice whose error is largest in relation to its own spread, or to its group's floor."""
    valid = group.of(moments.count) > 0
    own = group.of(moments.variance if group.varies else moments.square)
    errors = group.of(noise)
    floor = (SLICE_FLOOR * group.scale) ** 2
    worst, where = math.inf, ""
    for axis in range(errors.ndim):
        if errors.shape[axis] < 2:
            continue
        power, error = mean_over(own, valid, axis), mean_over(errors, valid, axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error > 0, np.maximum(power, floor) / error, np.inf)
        place = int(ratio.argmin())
        db = decibels(float(max(power[place], floor)), float(error[place]))
        if db < worst:
            worst, where = db, f"axis {axis}: {group.index[axis][place]}"
    return worst, where


def _sample_db(
    group: Group, away: NDArray[np.float64], squared: NDArray[np.float64], finite: NDArray[np.bool_]
) -> float:
    valid = group.of(finite)
    error = float(mean_over(group.of(squared), valid))
    own = float(mean_over(group.of(away), valid)) if group.varies else 0.0
    return decibels(max(own, group.scale**2), error)


class _Votes:
    """Counts argmaxes along a class axis; without one, nothing."""

    def __init__(self, axis: int | None, labels: NDArray[Any] | None) -> None:
        self._axis, self._labels = axis, labels
        self.agree = self.correct = self.reference_correct = self.positions = 0
        self.classes: set[int] = set()

    def add(self, index: int, want: NDArray[np.float64], got: NDArray[np.float64]) -> None:
        """Count one sample. NaN never wins: it loses against every number, and a NaN in the reference has no vote."""
        if self._axis is None:
            return
        axis = self._axis - 1
        defined = ~np.isnan(want).any(axis)
        wanted = np.where(np.isnan(want), -np.inf, want).argmax(axis)
        given = np.where(np.isnan(got), -np.inf, got).argmax(axis)
        self.classes.update(np.unique(wanted[defined]).tolist())
        self.agree += int(np.sum((wanted == given) & defined))
        self.positions += int(defined.sum())
        if self._labels is not None:
            self.reference_correct += int(np.sum((wanted == self._labels[index]) & defined))
            self.correct += int(np.sum((given == self._labels[index]) & defined))

    def share(self, number: int) -> float | None:
        """A count as a share of the positions."""
        return number / self.positions if self.positions else None
