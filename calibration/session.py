"""`Calibration`: the data and the table of one graph, computed on first use and shared by all targets."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.calibration.collector import collect
from edgedeploy.calibration.dataset import Dataset
from edgedeploy.calibration.describe import unreached
from edgedeploy.calibration.observed import observed_tensors
from edgedeploy.calibration.options import AUTO, METHODS, CalibrationOptions
from edgedeploy.calibration.table import CalibrationTable, Provenance
from edgedeploy.calibration.table_file import load_table, save_table, table_key, versions
from edgedeploy.errors import InputError
from edgedeploy.graph.graph import Graph
from edgedeploy.progress import NoProgress, Progress

if TYPE_CHECKING:
    from edgedeploy.calibration.input_moments import InputMoments
    from edgedeploy.calibration.method_choice import MethodChoice
    from edgedeploy.calibration.scheme import Scheme

#: Held-back samples on which methods are compared by a model's outputs.
HELD_SAMPLES = 16


class Calibration:
    """Calibration data of one graph and, once someone asks for it, the table made from them.

    Args:
        graph: the FP32 graph.
        data: calibration samples; ``None`` makes the run data-free, on synthetic samples.
        options: choices that change the table.
        cache: folder of earlier tables, keyed by graph, data, options and versions; ``None`` keeps none.
        progress: told of long work.
    """

    def __init__(
        self,
        graph: Graph,
        data: Dataset | None,
        options: CalibrationOptions | None = None,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.graph = graph
        self.options = options or CalibrationOptions()
        self._given = data
        self._cache = cache
        self._progress = progress or NoProgress()
        self._method_choices: dict[str, MethodChoice | None] = {}
        self._readings: dict[tuple[str, bool], CalibrationTable] = {}

    @property
    def data_free(self) -> bool:
        """True where there are no calibration data."""
        return self._given is None

    @cached_property
    def data(self) -> Dataset:
        """The calibration samples, synthetic ones in a data-free run."""
        if self._given is not None:
            return self._given
        from edgedeploy.calibration.datafree import synthetic_dataset

        return synthetic_dataset(self.graph)

    @cached_property
    def provenance(self) -> Provenance:
        """What the table is, or will be, made from."""
        self.data.check(self._progress)
        return Provenance(
            graph_sha256=self.graph.sha256,
            data_digest=self.data.digest,
            samples=len(self.data),
            options=self.options,
            versions=versions(),
            data_free=self.data_free,
        )

    @cached_property
    def table(self) -> CalibrationTable:
        """The calibration table: from the cache where there is one, else from one pass over the data.

        Raises:
            InputError: the data hold NaN, or make a tensor NaN.
        """
        table = self._cached_or_collected()
        if sentence := unreached(table.tensors):
            self._progress.note(sentence)
        return table

    def _cached_or_collected(self) -> CalibrationTable:
        provenance = self.provenance
        path = self._cache / f"{table_key(provenance)}.npz" if self._cache else None
        if path is not None and path.is_file():
            try:
                return replace(load_table(path, provenance), provenance=provenance)
            except InputError:
                self._progress.note(f"The cached calibration table {path} is damaged; calibrating again.")
        observed = observed_tensors(self.graph)
        tensors = collect(self.graph, self.data, observed, self._folds(), self._progress)
        table = CalibrationTable(provenance, tensors, observed.aliases, observed.clipped)
        if path is not None:
            save_table(table, path)
        return table

    def table_for(self, scheme: Scheme, higher: frozenset[str] = frozenset()) -> CalibrationTable:
        """The table as a model quantized by ``scheme`` should read it: by the method whose outputs are best.

        With ``method="auto"`` the per-tensor choice and every single method are compared on a held-back fold, by the
        error of the model's outputs, and min/max is kept unless another is clearly better; any other method was the
        user's word. Computed once a scheme. It carries what weights are rounded by (`input_moments.py`), from one more
        run of a few samples, where that makes the held-back outputs better.

        Args:
            scheme: the backend's rules.
            higher: tensors that the backend stores in ``scheme.higher``.
        """
        choice = self.method_choice(scheme, higher)
        if choice is None:
            return self.table
        return self.read_by(choice.method, rounded=choice.rounds_by_outputs)

    def method_choice(self, scheme: Scheme, higher: frozenset[str] = frozenset()) -> MethodChoice | None:
        """What `table_for` chose and what every method would have given; ``None`` where there was nothing to choose."""
        if scheme.name not in self._method_choices:
            self._method_choices[scheme.name] = self._choose_method(scheme, higher)
        return self._method_choices[scheme.name]

    def chosen_method(self, scheme_name: str) -> str:
        """The method behind a scheme's ranges as the manifest names it; "" where the scheme asked for none."""
        if scheme_name not in self._method_choices:
            return ""
        choice = self._method_choices[scheme_name]
        return self.options.method if choice is None else choice.method

    def _choose_method(self, scheme: Scheme, higher: frozenset[str]) -> MethodChoice | None:
        methods = METHODS if self.options.method == AUTO else (self.options.method,)
        if self.parts is None or (len(methods) == 1 and not self.options.round_by_outputs):
            return None
        from edgedeploy.calibration.method_choice import choose_method

        samples = list(self.parts[1].take(HELD_SAMPLES))
        self._progress.note(f"Comparing ways to quantize under {scheme.name}")
        return choose_method(
            self.graph,
            self.table.without_fold(0),
            scheme,
            samples,
            higher,
            methods=methods,
            moments=self._moments,
        )

    def read_by(self, method: str, *, rounded: bool = True) -> CalibrationTable:
        """The table read by one method, with what weights are rounded by where they are not to go to the nearest."""
        if (method, rounded) not in self._readings:
            table = self.table if method == self.options.method else self.table.by_method(method)
            moments = self._moments if rounded else None
            self._readings[method, rounded] = table if moments is None else replace(table, moments=moments)
        return self._readings[method, rounded]

    @cached_property
    def _moments(self) -> InputMoments | None:
        """What each layer's weights multiply, on all samples but the held-back ones that are to judge it."""
        if self.parts is None or not self.options.round_by_outputs:
            return None
        from edgedeploy.calibration.input_moments import collect_moments

        self._progress.note("Measuring what each layer's weights multiply, to round them by it")
        return collect_moments(self.graph, self.parts[0], self.table)

    @cached_property
    def parts(self) -> tuple[Dataset, Dataset] | None:
        """The samples without those of the first fold, and those; ``None`` without data or with only one fold.

        The first fold's are in the order of their hashes, so that taking some of them does not depend on the data's.
        """
        if self.data_free:
            return None
        folds, hashes = self._folds(), self.data.hashes
        held = sorted((index for index, value in enumerate(hashes) if folds[value] == 0), key=hashes.__getitem__)
        rest = [index for index, value in enumerate(hashes) if folds[value] != 0]
        return (self.data.select(rest), self.data.select(held)) if rest else None

    def _folds(self) -> dict[str, int]:
        """Deal the samples out to folds by content hash; equal samples share a fold."""
        return {value: index % self.options.folds for index, value in enumerate(sorted(set(self.data.hashes)))}


def calibrate_to_file(
    graph: Graph,
    data: Dataset | None,
    path: Path,
    options: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> CalibrationTable:
    """Calibrate and write the table, for any target to use later.

    Raises:
        InputError: the data do not fit the graph or make a tensor NaN, or ``path`` cannot be written.
    """
    table = Calibration(graph, data, options, progress=progress).table
    save_table(table, path)
    return table
