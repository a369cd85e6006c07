"""How close a deployed artefact's outputs are to the FP32 reference, and whether the comparison proves anything.

A model whose output hardly depends on its input scores a perfect cosine whatever was broken in it. So
every comparison also measures how much the reference itself moves over the inputs and puts the error in
relation to that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import ToolFailedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Below this share of its own size, a reference output counts as constant over the inputs.
VACUOUS_SPREAD = 1e-3


@dataclass(frozen=True)
class OutputComparison:
    """One output of the artefact against the FP32 reference, over ``samples`` samples.

    Attributes:
        sqnr_db: 10 log10 of signal power over error power, over all elements; infinite for identical outputs.
        cosine_mean, cosine_min: of each sample's flattened output.
        max_abs_error: over all elements.
        spread: rms of the reference's deviation from its mean over the inputs, divided by its rms.
        error_to_spread: rms error divided by that deviation's rms; ``None`` where the output is constant.
        agreement: share of samples (or positions) with the same argmax, with its 95 % Wilson interval.
        accuracy, reference_accuracy: top-1 against the labels, artefact and FP32.
        distinct_classes: how many different argmaxes the reference gives.
        identical: share of equal elements, for integer outputs.
        broken_samples: samples in which the artefact gives NaN or Inf and the reference does not; their broken elements
            count as 0 in the other figures.
    """

    output: str
    samples: int
    sqnr_db: float | None
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

    @property
    def vacuous(self) -> str:
        """Why the comparison proves nothing, or ``""``."""
        if self.samples < 2:
            return "one sample can't show whether the output depends on the input"
        if self.spread is not None and self.spread < VACUOUS_SPREAD:
            return f"the reference output hardly varies over the inputs (spread {self.spread:.1e} of its size)"
        if self.distinct_classes == 1 and self.agreement is not None:
            return "the reference gives the same class for every sample"
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
    """Compare every output, sample by sample, so that memory-mapped arrays are read once and never held whole.

    Args:
        reference: by output name, (samples, …); may hold more samples than ``outputs``.
        outputs: the artefact's, a prefix of the same samples.
        class_outputs: class axis (counted with the samples axis) of the outputs that are class scores.
        labels: by output name, one integer (or one a position) per sample.

    Raises:
        ToolFailedError: an output is missing, or has another shape.
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
    if not np.issubdtype(reference.dtype, np.floating):
        equal = float(np.mean([np.mean(reference[i] == output[i]) for i in range(count)]))
        worst = max(float(np.max(np.abs(reference[i].astype(float) - output[i].astype(float)))) for i in range(count))
        return OutputComparison(name, count, None, None, None, worst, None, None, identical=equal)

    signal = error = 0.0
    worst = 0.0
    cosines = []
    total = np.zeros(reference.shape[1:], dtype=np.float64)
    agree = correct = reference_correct = positions = 0
    classes: set[int] = set()
    broken = 0
    for index in range(count):
        want = np.asarray(reference[index], dtype=np.float64)
        got = np.asarray(output[index], dtype=np.float64)
        if not np.isfinite(got).all() and np.isfinite(want).all():
            broken += 1
            got = np.where(np.isfinite(got), got, 0.0)
        difference = got - want
        signal += float(np.sum(want * want))
        error += float(np.sum(difference * difference))
        worst = max(worst, float(np.max(np.abs(difference), initial=0.0)))
        cosines.append(_cosine(want.ravel(), got.ravel()))
        total += want
        if class_axis is not None:
            wanted, given = want.argmax(class_axis - 1), got.argmax(class_axis - 1)
            classes.update(np.unique(wanted).tolist())
            agree += int(np.sum(wanted == given))
            positions += wanted.size
            if labels is not None:
                reference_correct += int(np.sum(wanted == labels[index]))
                correct += int(np.sum(given == labels[index]))
    mean = total / count
    deviation = sum(float(np.sum((np.asarray(reference[i], dtype=np.float64) - mean) ** 2)) for i in range(count))
    return OutputComparison(
        name,
        count,
        sqnr_db=math.inf if error == 0 else 10 * math.log10(signal / error) if signal else -math.inf,
        cosine_mean=float(np.mean(cosines)),
        cosine_min=float(np.min(cosines)),
        max_abs_error=worst,
        spread=math.sqrt(deviation / signal) if signal else 0.0,
        error_to_spread=math.sqrt(error / deviation) if deviation else None,
        agreement=agree / positions if positions else None,
        agreement_interval=wilson_interval(agree, positions) if positions else None,
        accuracy=correct / positions if positions and labels is not None else None,
        reference_accuracy=reference_correct / positions if positions and labels is not None else None,
        distinct_classes=len(classes) if positions else None,
        broken_samples=broken,
    )


def _cosine(want: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(want) * np.linalg.norm(got))
    if norms == 0:
        return 1.0 if not want.any() and not got.any() else 0.0
    return float(np.dot(want, got) / norms)
