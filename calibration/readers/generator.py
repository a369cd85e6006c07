"""Samples that a user's code yields: run once, spooled to disk, read back one at a time."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.readers.reader import (
    Labels,
    Sample,
    check_count,
    check_dtype,
    check_names,
    conform,
    is_labels,
    labelled_output,
    no_samples,
    samples_in,
)
from edgedeploy.calibration.readers.spool import Spool
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

Source = Callable[[], Iterable[Mapping[str, Any]]]

#: More samples than any calibration needs; a generator that yields more most likely never ends.
MOST_SAMPLES = 100_000
_END = object()


def open_callable(name: str, inputs: Sequence[TensorSpec]) -> GeneratorReader:
    """Import ``package.module:callable`` and run it; only for a name that the user gave.

    Raises:
        InputError: it cannot be imported, fails, or yields something else than the model's inputs.
    """
    return GeneratorReader(import_callable(name), inputs, name)


def import_callable(name: str) -> Source:
    """Import ``package.module:callable``, the current folder included; only for a name that the user gave.

    Raises:
        InputError: it cannot be imported, or is not callable.
    """
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        source = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise InputError(
            f"The data callable {name} cannot be imported.",
            found=f"{type(error).__name__}: {error}",
            remedy=f"Give package.module:callable, installed or in the current folder ({folder}).",
        ) from None
    finally:
        sys.path.remove(folder)
    if not callable(source):
        raise InputError(f"{name} is not callable.", found=type(source).__name__)
    found: Source = source
    return found


def items_of(source: Source, name: str) -> Iterator[Mapping[str, Any]]:
    """What a callable yields, item by item.

    Raises:
        InputError: it fails, yields anything but dicts, or never ends.
    """
    items = _tried(name, lambda: iter(source()))
    for number in itertools.count():
        item = _tried(name, lambda: next(items, _END))
        if item is _END:
            return
        if not isinstance(item, Mapping):
            raise InputError(
                f"{name} must yield dicts from input name to array.", found=f"item {number}: {type(item).__name__}"
            )
        if number >= MOST_SAMPLES:
            raise endless(name)
        yield item


def _tried(name: str, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except Exception as error:  # whatever a user's code raises
        raise InputError(f"The data callable {name} failed.", found=f"{type(error).__name__}: {error}") from None


def endless(name: str) -> InputError:
    """The error for a callable that yields more than any calibration needs."""
    return InputError(f"{name} yields more than {MOST_SAMPLES} samples.", remedy="End it after a few hundred.")


class GeneratorReader:
    """Runs a callable once and keeps what it yields in a nameless temporary file.

    Args:
        source: takes nothing and returns an iterable of dicts from input name to array; a dict holds one sample or a
            batch of them, and may hold ``labels``.
        inputs: the model's inputs.
        name: what messages call it.

    Raises:
        InputError: it fails, yields nothing, never ends, or what it yields does not fit the model.
    """

    def __init__(self, source: Source, inputs: Sequence[TensorSpec], name: str) -> None:
        self._name, self._inputs = name, tuple(inputs)
        self._spool = Spool()
        self._places: list[dict[str, tuple[int, tuple[int, ...]]]] = []
        self._label_rows: dict[str, list[NDArray[np.generic]]] = {}
        self._fill(source)
        if not self._places:
            raise no_samples(name)
        for label, rows in self._label_rows.items():
            if len(rows) != len(self._places):
                raise InputError(
                    f"{name} yields {label} for some samples only.",
                    found=f"{len(rows)} labels, {len(self._places)} samples",
                )

    @property
    def source(self) -> str:
        """The callable's name."""
        return self._name

    @property
    def labels(self) -> Labels:
        """What was yielded as ``labels`` and ``labels:OUTPUT``."""
        return {labelled_output(name): np.stack(rows) for name, rows in self._label_rows.items()}

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> Sample:
        """Read one sample back."""
        sample: Sample = {}
        for spec in self._inputs:
            offset, shape = self._places[index][spec.name]
            content = self._spool.read(offset, math.prod(shape) * np.dtype(spec.dtype).itemsize)
            sample[spec.name] = np.frombuffer(content, spec.dtype).reshape(shape)
        return sample

    def describe(self, index: int) -> str:
        """Name the sample."""
        return f"sample {index}"

    def _fill(self, source: Source) -> None:
        for number, item in enumerate(items_of(source, self._name)):
            self._take(item, number)
            if len(self._places) > MOST_SAMPLES:
                raise endless(self._name)

    def _take(self, item: Mapping[str, Any], number: int) -> None:
        what = f"{self._name}, item {number}"
        check_names(list(item), self._inputs, what)
        arrays = {spec.name: np.asarray(item[spec.name]) for spec in self._inputs}
        for spec in self._inputs:
            check_dtype(arrays[spec.name].dtype, spec, what)
        layouts = {spec.name: _samples(arrays[spec.name], spec, what) for spec in self._inputs}
        counts = {name: len(rows) for name, rows in layouts.items()}
        for name in item:
            if is_labels(name) and name not in arrays:
                labels = np.atleast_1d(np.asarray(item[name]))
                counts[name] = len(labels)
                self._label_rows.setdefault(name, []).extend(labels)
        for index in range(check_count(counts, what)):
            self._places.append(
                {spec.name: self._write(layouts[spec.name][index], spec, what) for spec in self._inputs}
            )

    def _write(self, value: NDArray[np.generic], spec: TensorSpec, what: str) -> tuple[int, tuple[int, ...]]:
        value = conform(value, spec, what)
        return self._spool.append(value.tobytes()), value.shape


def _samples(value: NDArray[np.generic], spec: TensorSpec, what: str) -> Sequence[NDArray[np.generic]]:
    """Cut a yielded array into samples: a lone sample without batch axis, or a batch."""
    if value.ndim == len(spec.shape) - 1:
        return [value]
    count, own_axis = samples_in(value.shape, spec, what)
    if own_axis:
        return list(value)
    return list(value.reshape(count, -1, *value.shape[1:])) if count else []
