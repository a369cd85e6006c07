"""`CalibrationTable`: every observed tensor's statistics and, from them, a range for any number format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgedeploy.calibration.methods.method import methods
from edgedeploy.calibration.options import AUTO, METHODS, CalibrationOptions
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.selection import Choice, choose, range_by
from edgedeploy.calibration.statistics import TensorStatistics
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from edgedeploy.calibration.input_moments import InputMoments


@dataclass(frozen=True)
class Provenance:
    """What a table was made from; its hash is the table's key.

    Attributes:
        graph_sha256: of the FP32 graph.
        data_digest: order-independent hash of the samples.
        samples: how many there were.
        options: the choices made.
        versions: of edgedeploy, onnxruntime and the table format, by name.
        data_free: made from synthetic samples because there were no data.
    """

    graph_sha256: str
    data_digest: str
    samples: int
    options: CalibrationOptions
    versions: Mapping[str, str]
    data_free: bool = False


@dataclass(frozen=True)
class CalibrationTable:
    """Statistics of every observed tensor of one graph over one set of data.

    Attributes:
        provenance: what it was made from.
        tensors: statistics by tensor name, in graph order.
        aliases: tensors that hold a permutation of another's values, by name.
        clipped: tensors that only Relu or Clip read, with those ops' outputs, whose ranges are theirs.
        moments: what each layer's weights multiply, to round them by; ``None`` rounds to the nearest. Not in the file,
            and not in the tables that `by_method` and `without_fold` give: those compare ranges.
    """

    provenance: Provenance
    tensors: Mapping[str, TensorStatistics]
    aliases: Mapping[str, str] = field(default_factory=dict)
    clipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _ranges: dict[tuple[str, IntegerFormat, str], Range] = field(default_factory=dict, repr=False, compare=False)
    _choices: dict[tuple[str, IntegerFormat], Choice] = field(default_factory=dict, repr=False, compare=False)
    moments: InputMoments | None = field(default=None, repr=False, compare=False)

    def __contains__(self, tensor: str) -> bool:
        """True where the tensor has statistics; `range` answers for ``clipped`` tensors as well."""
        return self.aliases.get(tensor, tensor) in self.tensors

    def statistics(self, tensor: str) -> TensorStatistics:
        """Return what is known of one tensor; `InputError` where it was not observed."""
        name = self.aliases.get(tensor, tensor)
        if name in self.tensors:
            return self.tensors[name]
        if tensor in self.clipped:
            raise InputError(
                f"Tensor {tensor!r} was not observed: only a Relu or Clip reads it.",
                remedy=f"Ask for what they give: {', '.join(self.clipped[tensor])}.",
            )
        raise InputError(
            f"Tensor {tensor!r} is not in the calibration table.",
            found=f"{len(self.tensors)} tensors of graph {self.provenance.graph_sha256[:12]}",
            remedy="Calibrate this graph again; the table belongs to another one, or the tensor is not float32.",
        )

    def range(self, tensor: str, fmt: IntegerFormat, method: str = "") -> Range:
        """Return the range that ``fmt`` should span for a tensor.

        Of a tensor that only Relu or Clip read, that is the range of what they let through.

        Args:
            tensor: its name in the graph.
            fmt: the activation format.
            method: "minmax", "percentile", "mse", "entropy", "auto" for the one expected to lose least on new
                data (`selection.py`), or "" for the one in the table's options.

        Raises:
            InputError: the tensor was not observed, or there is no such method.
        """
        if tensor in self.clipped:
            passed = [self.range(name, fmt, method) for name in self.clipped[tensor]]
            return Range(min(item.low for item in passed), max(item.high for item in passed))
        name = self.statistics(tensor).name
        method = method or self.provenance.options.method
        key = (name, fmt, method)
        if key not in self._ranges:
            if method not in METHODS:
                raise InputError(
                    f"There is no calibration method {method!r}.", remedy=f"Choose one of: {', '.join(METHODS)}."
                )
            self._ranges[key] = (
                self.choice(name, fmt).values
                if method == AUTO
                else range_by(methods()[method], self.tensors[name], fmt, self.provenance.options)
            )
        return self._ranges[key]

    def by_method(self, method: str) -> CalibrationTable:
        """Return the same statistics, read by another method."""
        return CalibrationTable(
            replace(self.provenance, options=replace(self.provenance.options, method=method)),
            self.tensors,
            self.aliases,
            self.clipped,
            self._ranges,
            self._choices,
        )

    def without_fold(self, fold: int) -> CalibrationTable:
        """Return the statistics without the values of one fold, for a judgement on samples that ranges did not see."""
        tensors = {name: statistics.without_fold(fold) for name, statistics in self.tensors.items()}
        return CalibrationTable(self.provenance, tensors, self.aliases, self.clipped)

    def choice(self, tensor: str, fmt: IntegerFormat) -> Choice:
        """Return which method ``auto`` takes for a tensor, and what each would have given (SQNR in dB)."""
        statistics = self.statistics(tensor)
        key = (statistics.name, fmt)
        if key not in self._choices:
            own = {name: self.range(statistics.name, fmt, name) for name in methods()}
            self._choices[key] = choose(statistics, fmt, own)
        return self._choices[key]
