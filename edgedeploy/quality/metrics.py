"""Accuracy as the people who deploy a model measure it, for the output and kind that deploy.toml's ``[metric]`` names.

Every metric compares with labels where the evaluation data have them, for the artefact and for the FP32 reference, else
with what the FP32 reference answers. Scores are 0 to 1, larger is better; what is judged is the drop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.quality.measures import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["classification", "segmentation", "text", "embedding", "regression"]
#: Pairwise similarities are ranked over so many samples at most.
_RANKED_SAMPLES = 200


@dataclass(frozen=True)
class MetricFigure:
    """One metric of one output.

    Attributes:
        name: "top1", "top5", "macro_f1", "miou", "cer", "wer", "cosine", "spearman", "mae".
        against: "labels" or "FP32 reference".
        value: the artefact's score; ``cer``, ``wer`` and ``mae`` are errors, smaller is better.
        reference_value: the FP32 reference's, against the same truth.
        drop: by how much the artefact is worse; for ``mae`` in spreads of the truth.
    """

    name: str
    output: str
    against: str
    value: float
    reference_value: float
    drop: float


def metric_figures(
    kind: Kind,
    output: str,
    reference: NDArray[Any],
    given: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    class_axis: int = -1,
    top_k: int = 5,
    blank: int = 0,
    separator: int | None = None,
) -> tuple[MetricFigure, ...]:
    """All metrics of a kind.

    Args:
        kind: what the output is.
        output: its name.
        reference: the FP32 outputs, shape (samples, *output shape).
        given: the artefact's, a prefix of the same samples.
        labels: classification (samples,) or one a position; segmentation one a pixel, negative ones count for nothing;
            text (samples, length) of token ids, padded with negative numbers; regression as the output; embedding none.
        class_axis: of class scores, counted with the samples axis.
        top_k: the largest k of top-k.
        blank: the CTC blank's token id.
        separator: the token id between words; without it there is no WER.

    Raises:
        InputError: labels of a shape that does not fit the output.
    """
    count = len(given)
    want, got = np.asarray(reference[:count]), np.asarray(given)
    truth = None if labels is None else np.asarray(labels)[:count]
    against = "FP32 reference" if truth is None else "labels"

    def figure(name: str, score: Callable[[NDArray[Any]], float], *, error: bool = False, unit: float = 1.0) -> Any:
        value, base = score(got), score(want)
        drop = (value - base if error else base - value) / unit
        return MetricFigure(name, output, against, value, base, drop)

    if kind == "classification":
        scores, answers = np.moveaxis(got, class_axis, -1), np.moveaxis(want, class_axis, -1)
        right = answers.argmax(-1) if truth is None else _shaped(truth, answers.shape[:-1], output)
        figures = [figure("top1", lambda y: top_k_accuracy(np.moveaxis(y, class_axis, -1), right, 1))]
        if scores.shape[-1] > top_k > 1:
            figures.append(
                figure(f"top{top_k}", lambda y: top_k_accuracy(np.moveaxis(y, class_axis, -1), right, top_k))
            )
        return (*figures, figure("macro_f1", lambda y: macro_f1(np.moveaxis(y, class_axis, -1).argmax(-1), right)))
    if kind == "segmentation":
        right = (
            _classes(want, class_axis) if truth is None else _shaped(truth, _classes(want, class_axis).shape, output)
        )
        return (figure("miou", lambda y: mean_iou(_classes(y, class_axis), right)),)
    if kind == "text":
        texts = [_padded(row) for row in truth] if truth is not None else [greedy_text(row, blank) for row in want]
        figures = [figure("cer", lambda y: error_rate([greedy_text(row, blank) for row in y], texts), error=True)]
        if separator is not None:
            words = [_words(text, separator) for text in texts]
            figures.append(
                figure(
                    "wer",
                    lambda y: error_rate([_words(greedy_text(row, blank), separator) for row in y], words),
                    error=True,
                )
            )
        return tuple(figures)
    if kind == "embedding":
        return (
            figure("cosine", lambda y: float(np.mean([cosine(a, b) for a, b in zip(want, y, strict=True)]))),
            figure("spearman", lambda y: spearman(_similarities(want), _similarities(y))),
        )
    right = want if truth is None else _shaped(truth, want.shape, output)
    spread = float(np.std(right.astype(np.float64), axis=0).mean()) or 1.0
    return (
        figure("mae", lambda y: float(np.abs(y.astype(np.float64) - right).mean()), error=True, unit=spread),
        figure("spearman", lambda y: spearman(right.reshape(count, -1), y.reshape(count, -1))),
    )


def top_k_accuracy(scores: NDArray[Any], right: NDArray[Any], k: int) -> float:
    """Share of positions whose class is among the ``k`` largest scores; NaN never is."""
    ordered = np.where(np.isnan(scores), -np.inf, scores)
    best = np.argsort(-ordered, axis=-1, kind="stable")[..., :k]
    return float((best == right[..., None]).any(-1).mean())


def macro_f1(answers: NDArray[Any], right: NDArray[Any]) -> float:
    """Mean over the classes that occur in the truth or the answers of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for label in np.union1d(answers, right):
        said, is_it = answers == label, right == label
        scores.append(2.0 * (said & is_it).sum() / (said.sum() + is_it.sum()))
    return float(np.mean(scores))


def mean_iou(answers: NDArray[Any], right: NDArray[Any]) -> float:
    """Mean over the classes of the truth of intersection over union; negative labels are left out (as in VOC)."""
    known = right >= 0
    ratios = []
    for label in np.unique(right[known]):
        said, is_it = (answers == label) & known, right == label
        ratios.append((said & is_it).sum() / (said | is_it).sum())
    return float(np.mean(ratios)) if ratios else 0.0


def greedy_text(scores: NDArray[Any], blank: int) -> tuple[int, ...]:
    """Token ids of one sample: integers as they are; logits (…, steps, tokens) decoded as CTC does, best path.

    Repeats collapse, then blanks go (Graves et al., ICML 2006, section 3.2).
    """
    path = scores.reshape(-1, scores.shape[-1]).argmax(-1) if scores.dtype.kind == "f" else scores.ravel()
    if scores.dtype.kind != "f":
        return _padded(path)
    changed = np.concatenate([[True], path[1:] != path[:-1]])
    return tuple(int(token) for token in path[changed] if token != blank)


def error_rate(answers: Sequence[Sequence[Any]], right: Sequence[Sequence[Any]]) -> float:
    """Edit distance over all samples by the length of the truth: CER of characters, WER of words."""
    length = sum(len(text) for text in right)
    errors = sum(edit_distance(text, answer) for text, answer in zip(right, answers, strict=True))
    return errors / length if length else float(errors > 0)


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Insertions, deletions and substitutions between two sequences (Levenshtein, 1966)."""
    row = list(range(len(second) + 1))
    for place, item in enumerate(first, start=1):
        corner, row[0] = row[0], place
        for column, other in enumerate(second, start=1):
            corner, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, corner + (item != other))
    return row[-1]


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean rank correlation of the columns of two arrays (samples, columns); 0 where one of them has no order."""
    found = []
    for a, b in zip(first.T, second.T, strict=True):
        ranks = [_ranks(np.asarray(column, np.float64)) for column in (a, b)]
        deviations = [values - values.mean() for values in ranks]
        size = float(np.sqrt(np.square(deviations[0]).sum() * np.square(deviations[1]).sum()))
        found.append(float(deviations[0] @ deviations[1]) / size if size else float(np.array_equal(a, b)))
    return float(np.mean(found))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, ties sharing their mean."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[where], np.float64)


def _similarities(values: NDArray[Any]) -> NDArray[np.float64]:
    """Cosines of all pairs of samples, as one column."""
    flat = np.nan_to_num(values[:_RANKED_SAMPLES].reshape(min(len(values), _RANKED_SAMPLES), -1).astype(np.float64))
    sizes = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(sizes == 0, 1.0, sizes)
    pairs = np.triu_indices(len(unit), 1)
    return np.asarray((unit @ unit.T)[pairs][:, None], np.float64)


def _classes(values: NDArray[Any], class_axis: int) -> NDArray[Any]:
    return values.argmax(class_axis) if values.dtype.kind == "f" else values


def _padded(row: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(token) for token in np.asarray(row).ravel() if token >= 0)


def _words(text: Sequence[int], separator: int) -> list[tuple[int, ...]]:
    words: list[list[int]] = [[]]
    for token in text:
        if token == separator:
            words.append([])
        else:
            words[-1].append(token)
    return [tuple(word) for word in words if word]


def _shaped(labels: NDArray[Any], shape: tuple[int, ...], output: str) -> NDArray[Any]:
    if labels.size != int(np.prod(shape)):
        raise InputError(
            f"The labels do not fit the output {output!r}.",
            found=f"{labels.size} label(s) of shape {labels.shape} for {int(np.prod(shape))} position(s)",
            remedy="Give one label a sample, or one a position of the output.",
        )
    return labels.reshape(shape)
