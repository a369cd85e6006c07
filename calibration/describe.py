"""Tables for people: what a calibration table holds, what each method would give, how two tables differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgedeploy.calibration.options import AUTO, METHODS
from edgedeploy.calibration.ranges import NEGLIGIBLE
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.statistics import TensorStatistics
from edgedeploy.calibration.table import CalibrationTable

#: The format that tables are described for unless another is named.
DEFAULT_FORMAT = IntegerFormat(bits=8, signed=True)


#: Tensors that a sentence names before it stops.
_NAMED = 5


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a described table.

    Attributes:
        name: the tensor.
        minimum, maximum: exact extremes.
        low, high: the range that the table's method gives the format.
        method: which method gave it.
        sqnr_db: of every method on samples it was not fitted to, in dB; infinite where nothing is lost.
        note: a sentence where the tensor is odd (all zero, constant, extreme values); else empty.
    """

    name: str
    minimum: float
    maximum: float
    low: float
    high: float
    method: str
    sqnr_db: dict[str, float]
    note: str


@dataclass(frozen=True)
class TableDescription:
    """A table as a person reads it.

    Attributes:
        samples: calibration samples.
        data_free: made from synthetic samples.
        rows: one a tensor, in graph order.
        chosen: how many tensors each method was chosen for.
    """

    samples: int
    data_free: bool
    rows: tuple[TensorRow, ...]
    chosen: dict[str, int]


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs between two tables; a range is ``None`` where the table lacks the tensor.

    Attributes:
        name: the tensor.
        before, after: (low, high) under each table's own method.
        change: largest change of either end, relative to the range's magnitude before; infinite where one is missing.
    """

    name: str
    before: tuple[float, float] | None
    after: tuple[float, float] | None
    change: float


def describe_table(table: CalibrationTable, fmt: IntegerFormat = DEFAULT_FORMAT) -> TableDescription:
    """Describe every tensor: extremes, range, the method behind it and what each method would have given."""
    rows = tuple(_row(table, name, fmt) for name in table.tensors)
    chosen = Counter(row.method for row in rows)
    provenance = table.provenance
    return TableDescription(
        provenance.samples, provenance.data_free, rows, {m: chosen[m] for m in METHODS if chosen[m]}
    )


def compare_tables(
    before: CalibrationTable, after: CalibrationTable, fmt: IntegerFormat = DEFAULT_FORMAT
) -> tuple[TensorDifference, ...]:
    """List the tensors whose ranges differ, largest change first; empty where the tables agree."""
    differences = []
    for name in dict.fromkeys([*before.tensors, *after.tensors]):
        old = before.range(name, fmt) if name in before else None
        new = after.range(name, fmt) if name in after else None
        if old == new:
            continue
        change = math.inf
        if old is not None and new is not None:
            change = max(abs(old.low - new.low), abs(old.high - new.high)) / old.magnitude
        differences.append(
            TensorDifference(
                name,
                None if old is None else (old.low, old.high),
                None if new is None else (new.low, new.high),
                change,
            )
        )
    return tuple(sorted(differences, key=lambda difference: -difference.change))


def odd(statistics: TensorStatistics) -> str:
    """Say what is unusual about a tensor and what becomes of it, or nothing."""
    if statistics.extreme and statistics.count == 0:
        return f"all {statistics.extreme} values are infinite or beyond 2^96: leave it float"
    if statistics.extreme:
        return f"{statistics.extreme} values are infinite or beyond 2^96 and will be clipped (mask fillers do no harm)"
    if statistics.count == 0:
        return "no calibration sample reached it: add samples that do; its range is the safe [0, 1]"
    if max(-statistics.minimum, statistics.maximum) < NEGLIGIBLE:
        return "always zero on this data: add samples that reach it; its range is the safe [0, 1]"
    if statistics.is_constant:
        return "constant on this data: check that the samples differ"
    return ""


def unreached(tensors: Mapping[str, TensorStatistics]) -> str:
    """Name the tensors that hold nothing to take a range from, in one sentence; empty where there are none."""
    names = [name for name, item in tensors.items() if max(-item.minimum, item.maximum) < NEGLIGIBLE]
    if not names:
        return ""
    listed = ", ".join(map(repr, names[:_NAMED])) + (" …" if len(names) > _NAMED else "")
    return (
        f"{len(names)} of {len(tensors)} tensors hold nothing but zeros or infinities on these data ({listed}): "
        "add samples that reach them; until then their range is the safe [0, 1]."
    )


def _row(table: CalibrationTable, name: str, fmt: IntegerFormat) -> TensorRow:
    statistics = table.tensors[name]
    values = table.range(name, fmt)
    choice = table.choice(name, fmt)
    method = table.provenance.options.method
    return TensorRow(
        name,
        statistics.minimum,
        statistics.maximum,
        values.low,
        values.high,
        choice.method if method == AUTO else method,
        dict(choice.sqnr_db),
        odd(statistics),
    )
