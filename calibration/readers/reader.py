"""`Reader`: random access to samples, and the checks that every source shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

Sample = dict[str, NDArray[np.generic]]
"""One inference's inputs by name, the batch axis kept."""

LABELS = "labels"
"""The array of this name holds labels, and ``labels:scores`` those of one output; unless an input is called so."""

Labels = Mapping[str, NDArray[np.generic]]
"""Labels by output name, in the order of the samples; "" for those that name no output."""


class Reader(Protocol):
    """A source of samples that are read one at a time, so that memory does not grow with their number."""

    @property
    def source(self) -> str:
        """What a message calls it: a path, or ``module:callable``."""
        ...

    @property
    def labels(self) -> Labels:
        """Labels by output name, empty where there are none."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Return sample ``index``, already in the inputs' shapes and dtypes."""
        ...

    def describe(self, index: int) -> str:
        """Name sample ``index`` so that a user finds it ("cat.jpg", "row 7")."""
        ...


def check_names(found: Sequence[str], inputs: Sequence[TensorSpec], source: str) -> None:
    """Refuse data whose arrays are not exactly the model's inputs (``labels`` aside)."""
    wanted = [spec.name for spec in inputs]
    given = [name for name in found if name in wanted or not is_labels(name)]
    if sorted(given) != sorted(wanted):
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        parts = [f"missing {missing}" if missing else "", f"unknown {extra}" if extra else ""]
        raise InputError(
            f"The arrays in {source} are not the model's inputs.",
            found="; ".join(part for part in parts if part),
            remedy=f"Name the arrays after the inputs: {', '.join(wanted)} (labels: {LABELS!r} or '{LABELS}:OUTPUT').",
        )


def is_labels(name: str) -> bool:
    """True for "labels" and "labels:OUTPUT"."""
    return name.partition(":")[0] == LABELS


def labelled_output(name: str) -> str:
    """The output that an array of labels judges: "scores" for "labels:scores", "" for "labels"."""
    return name.partition(":")[2]


def check_dtype(dtype: np.dtype[np.generic], spec: TensorSpec, source: str) -> None:
    """Refuse a type that the input cannot take without changing what the values mean.

    Allowed are the input's own type, float64 or float16 for a float input, and integers that fit without loss.
    """
    wanted = np.dtype(spec.dtype)
    if dtype == wanted or (dtype.kind == "f" and wanted.kind == "f"):
        return
    if dtype.kind in "iu" and wanted.kind in "iu" and np.can_cast(dtype, wanted):
        return
    if dtype.kind == "f" and wanted.kind in "iu":
        remedy = f"Save the ids as integers: array.astype({spec.dtype!r})."
    elif dtype.kind in "iu" and wanted.kind == "f":
        remedy = "Apply the model's preprocessing (scale, mean, std) and save the result as float32."
    else:
        remedy = f"Save it as {spec.dtype}."
    raise InputError(
        f"{source}: input {spec.name!r} takes {spec.dtype}.", found=f"an array of dtype {dtype}", remedy=remedy
    )


def leading_rows(spec: TensorSpec) -> int:
    """Rows of the leading axis that one sample takes (the static batch, 1 where it is dynamic)."""
    return spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1


def samples_in(shape: tuple[int, ...], spec: TensorSpec, source: str) -> tuple[int, bool]:
    """Count the samples in an array of ``shape``; the flag says whether samples stand on an axis of their own.

    Two layouts are understood: (n, *shape without batch), where the leading axis is the batch axis, and
    (n, *whole input shape).
    """
    if _matches(shape[1:], spec.shape[1:]) and len(shape) == len(spec.shape) and spec.shape:
        rows = leading_rows(spec)
        if rows == 0 or shape[0] % rows:
            raise InputError(
                f"{source}: input {spec.name!r} takes {rows} rows at a time.",
                found=f"{shape[0]} rows, which is not a multiple of {rows}",
                remedy="Drop or add rows.",
            )
        return shape[0] // rows, False
    if len(shape) == len(spec.shape) + 1 and _matches(shape[1:], spec.shape):
        return shape[0], True
    raise InputError(
        f"{source}: the shape of input {spec.name!r} does not fit the model.",
        found=f"({', '.join(map(str, shape))})",
        remedy=f"Save it as (samples, {', '.join(map(str, spec.shape[1:]))}).",
    )


def conform(value: NDArray[np.generic], spec: TensorSpec, what: str) -> NDArray[np.generic]:
    """Give one sample the input's dtype and batch axis; `InputError` where its shape does not fit."""
    check_dtype(value.dtype, spec, what)
    found = value.shape
    if len(value.shape) == len(spec.shape) - 1 and leading_rows(spec) == 1:
        value = value[None]
    if len(value.shape) != len(spec.shape) or not _matches(value.shape, _one_sample(spec)):
        raise InputError(
            f"{what}: the shape of input {spec.name!r} does not fit the model.",
            found=f"({', '.join(map(str, found))})",
            remedy=f"Each sample must have shape ({', '.join(map(str, _one_sample(spec)))}).",
        )
    return np.ascontiguousarray(value, dtype=spec.dtype)


def check_count(counts: Mapping[str, int], source: str) -> int:
    """Return the common number of samples; `InputError` where arrays disagree (ragged) or there are none."""
    if len(set(counts.values())) > 1:
        raise InputError(
            f"The arrays in {source} do not hold the same number of samples.",
            found=", ".join(f"{name}: {count}" for name, count in counts.items()),
            remedy="Save one row per sample in every array.",
        )
    count = next(iter(counts.values()), 0)
    if count == 0:
        raise no_samples(source)
    return count


def no_samples(source: str) -> InputError:
    """Build the error for data without a single sample."""
    return InputError(
        f"{source} holds no samples.", found="0 samples", remedy="Give at least one; 100 or more is usual."
    )


def _one_sample(spec: TensorSpec) -> tuple[int | str, ...]:
    return (leading_rows(spec), *spec.shape[1:]) if spec.shape else ()


def _matches(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want for size, want in zip(shape, wanted, strict=True)
    )
