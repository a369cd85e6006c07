"""The part of a run that all targets share: load, capture, open the data, compute the FP32 reference once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgedeploy.calibration.dataset import Dataset, check_source, open_dataset, sidecar, split
from edgedeploy.command_check import Options, check_loading, check_targets, target_options
from edgedeploy.config import Config, ConfigFile, load_config, names_code
from edgedeploy.device_profiles.loader import load_profiles, override
from edgedeploy.device_profiles.schema import DeviceProfile, Quality
from edgedeploy.errors import InputError
from edgedeploy.progress import Progress
from edgedeploy.request import DataSource, DeployRequest
from edgedeploy.stages import Stages
from edgedeploy.states import States, fed_back, find_states, finite_steps, zero_states
from edgedeploy.untrusted import check_regular, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.preprocessing import Preprocessing
    from edgedeploy.graph.graph import Graph
    from edgedeploy.model.loaded import LoadedModel
    from edgedeploy.tensors import TensorSpec


#: Samples of a data set that are looked at for the largest value of an integer input.
_MOST_FOR_LARGEST = 64


@dataclass(frozen=True)
class Plan:
    """What is known before anything is loaded; every mistake in the command shows up here.

    Attributes:
        file: deploy.toml, or an empty one.
        calibration, evaluation: what the command names, else deploy.toml, else what lies beside the model.
        labels: class names.
        options: backend options by target.
    """

    request: DeployRequest
    file: ConfigFile
    profiles: tuple[DeviceProfile, ...]
    calibration: DataSource
    evaluation: DataSource
    labels: tuple[str, ...]
    options: Options = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """What deploy.toml says."""
        return self.file.config


@dataclass(frozen=True)
class Data:
    """Calibration and evaluation samples.

    Attributes:
        calibration: ``None`` where the user gave none.
        evaluation: never empty, never seen by calibration; made-up inputs where ``data_free``.
        held_back: evaluation is a slice of what the user gave for calibration.
    """

    calibration: Dataset | None
    evaluation: Dataset
    held_back: bool
    data_free: bool


@dataclass(frozen=True)
class Prepared:
    """One loaded and captured model with its data and reference outputs (samples, …) by output name.

    Attributes:
        graph: with a dynamic batch where any target wants one.
        states: the outputs that are fed back, and to which inputs.
        loop_reference: the reference outputs again, of the evaluation samples as one sequence in which the model is fed
            its own state; empty where it has none.
    """

    model: LoadedModel
    graph: Graph
    data: Data
    reference: Mapping[str, NDArray[Any]]
    states: States = field(default_factory=States)
    loop_reference: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def graph_for(self, profile: DeviceProfile) -> Graph:
        """The graph as this target takes it: with a batch of 1 unless its profile keeps a dynamic one."""
        return self.graph if profile.quantization.dynamic_batch else self._fixed

    @cached_property
    def _fixed(self) -> Graph:
        from edgedeploy.graph.batch import fixed_batch

        return fixed_batch(self.graph)


def plan(request: DeployRequest) -> Plan:
    """Read deploy.toml and every profile, apply overrides.

    Raises:
        InputError: a mistake in any of them, a missing model file, or no target at all.
    """
    chosen = plan_model(request)
    names = request.targets or chosen.file.targets()
    profiles = tuple(
        _with_gates(
            override(profile, request.budgets, request.require, request.allow_unverified), chosen.config.quality
        )
        for profile in load_profiles(names)
    )
    options = target_options(request, chosen.file, profiles)
    check_targets(request, profiles, options)
    return replace(chosen, profiles=profiles, options=options)


def plan_model(request: DeployRequest) -> Plan:
    """The part of a plan that needs no target: the model, deploy.toml, labels and data.

    Raises:
        InputError: a mistake in any of them.
    """
    if not os.path.lexists(str(request.model).replace("\0", "")):
        raise InputError(f"There is no model file {shown(request.model)}.")
    check_regular(request.model, f"The model file {shown(request.model)}")
    check_loading(request)
    file = load_config(request.model, request.config)
    return Plan(
        request,
        file,
        profiles=(),
        calibration=_source(request.calibration, file, request.model, "calibration"),
        evaluation=_source(request.evaluation, file, request.model, "evaluation"),
        labels=file.labels(),
    )


def _source(
    given: DataSource, file: ConfigFile, model: Path, purpose: Literal["calibration", "evaluation"]
) -> DataSource:
    """Where the data lie: as the command says, else as deploy.toml says, else beside the model, else nowhere."""
    source = given if given is not None else file.data(purpose)
    if source is None:
        return sidecar(model, {"calibration": "calib", "evaluation": "eval"}[purpose])
    if not callable(source):
        check_source(source)
    return source


def _with_gates(profile: DeviceProfile, own: Quality) -> DeviceProfile:
    """Replace the profile's default gates one by one by those of deploy.toml."""
    merged = {**profile.quality.model_dump(exclude_none=True), **own.model_dump(exclude_none=True)}
    return profile.model_copy(update={"quality": Quality.model_validate(merged)})


def prepare(plan: Plan, work_dir: Path, stages: Stages, progress: Progress) -> Prepared:
    """Load and capture the model, open and check the data, compute the reference outputs.

    The graph keeps a dynamic batch where any target wants one.
    """
    model, given, graph = load_and_capture(plan, stages, progress)
    data = given or _data_free(graph, progress)
    with stages.stage("reference"):
        reference = run_reference(model, data.evaluation, work_dir, progress)
        states = _states(plan, model, data, progress)
        if not states.pairs:
            return Prepared(model, graph, data, reference)
        loop = run_reference(model, data.evaluation, work_dir, progress, states.pairs)
        # A state that runs away in the source itself can be followed no further.
        steps = finite_steps({name: loop[name] for name in states.pairs})
        loop = {name: value[:steps] for name, value in loop.items()}
    return Prepared(model, graph, data, reference, states, loop)


def load_and_capture(plan: Plan, stages: Stages, progress: Progress) -> tuple[LoadedModel, Data | None, Graph]:
    """Load the model, open its data (``None`` where there are none) and capture it on them."""
    with stages.stage("load"):
        model = load(plan)
    with stages.stage("data"):
        given = open_data(plan, model.inputs, progress)
    with stages.stage("capture"):
        return model, given, capture_graph(plan, model, given, progress)


def load(plan: Plan) -> LoadedModel:
    """Load the model as the command and deploy.toml say."""
    from edgedeploy.model.load import load_model
    from edgedeploy.model.options import LoadOptions, parse_input

    request, section = plan.request, plan.config.model
    options = LoadOptions(
        factory=request.factory or section.factory or None,
        inputs=tuple(parse_input(text) for text in request.inputs or section.inputs),
        allow_globals=frozenset(request.allow_globals),
        trust_code=request.trust_code,
        unsafe_load=request.unsafe_load,
        dynamic_batch=any(profile.quantization.dynamic_batch for profile in plan.profiles),
    )
    return load_model(request.model, options)


def capture_graph(plan: Plan, model: LoadedModel, data: Data | None, progress: Progress) -> Graph:
    """Capture the model and prove the graph on two of the user's samples."""
    from edgedeploy.graph.capture import capture

    progress.note(f"Capturing {model.name}")
    if data is None:
        return capture(model)
    model.learn(data.evaluation[0])
    return capture(model, list(data.evaluation.take(2)), largest=_largest(model, data))


def _largest(model: LoadedModel, data: Data) -> dict[str, int]:
    """The largest value of each integer input in the first samples of each data set."""
    names = [spec.name for spec in model.inputs if spec.dtype.startswith(("int", "uint"))]
    sets = [data.evaluation, *([data.calibration] if data.calibration else [])]
    samples = [sample for given in sets for sample in given.take(_MOST_FOR_LARGEST)] if names else []
    return {name: max(int(sample[name].max(initial=0)) for sample in samples) for name in names}


def open_data(plan: Plan, inputs: tuple[TensorSpec, ...], progress: Progress) -> Data | None:
    """Open both data sets; hold a slice back where there is none to evaluate on; ``None`` without any data."""
    section = plan.config.data
    calibration = _open(plan.calibration, plan, inputs)
    evaluation = _open(plan.evaluation, plan, inputs)
    if calibration is not None:
        calibration = calibration.take(section.calibration_samples or len(calibration))
        calibration.check(progress)
    if evaluation is not None:
        evaluation = evaluation.take(section.evaluation_samples or len(evaluation))
        _refuse_overlap(calibration, evaluation, progress)
        return Data(calibration, evaluation, held_back=False, data_free=calibration is None)
    if calibration is not None:
        rest, held = split(calibration)
        return Data(rest, held, held_back=True, data_free=False)
    return None


def _data_free(graph: Graph, progress: Progress) -> Data:
    """No data at all: say so loudly, and run on synthetic samples whose accuracy proves nothing."""
    from edgedeploy.calibration.datafree import synthetic_dataset

    progress.note("No calibration or evaluation data was given: the run is data-free, its accuracy stays unverified.")
    return Data(None, synthetic_dataset(graph), held_back=False, data_free=True)


def _states(plan: Plan, model: LoadedModel, data: Data, progress: Progress) -> States:
    """The model's state, with what a user should know of the data for it."""
    found = find_states(model.inputs, model.outputs, plan.config.state)
    silent = zero_states(data.calibration, found.pairs.values()) if data.calibration else ()
    if silent:
        what = (
            f"the calibration data hold nothing but zeros for the state {', '.join(silent)}: the range that it has in "
            "the loop was not seen; record it while the model runs"
        )
        found = replace(found, notes=(*found.notes, what))
    for note in found.notes:
        progress.note(note)
    return found


def run_reference(
    model: LoadedModel, samples: Dataset, work_dir: Path, progress: Progress, states: Mapping[str, str] | None = None
) -> dict[str, NDArray[Any]]:
    """Run the FP32 source over ``samples`` into memory-mapped arrays of shape (samples, *output shape).

    Args:
        states: input by output; the samples are then one sequence, and the model is fed its own state.

    Raises:
        InputError: where the size of an output depends on the input's values.
    """
    from edgedeploy.graph.agreement import depends_on_data

    outputs: dict[str, NDArray[Any]] = {}
    last: Mapping[str, NDArray[Any]] | None = None
    for index, sample in enumerate(progress.track(samples, what="FP32 reference", total=len(samples))):
        last = model.reference(fed_back(sample, last, states or {}))
        for name, value in last.items():
            if name in outputs and outputs[name].shape[1:] != value.shape:
                raise depends_on_data(name, outputs[name].shape[1:], value.shape)
            if name not in outputs:
                path = work_dir / f"{'loop' if states else 'reference'}-{len(outputs)}"
                outputs[name] = np.memmap(path, value.dtype, "w+", shape=(len(samples), *value.shape))
            outputs[name][index] = value
    return outputs


def _open(source: DataSource, plan: Plan, inputs: tuple[TensorSpec, ...]) -> Dataset | None:
    if callable(source):
        from edgedeploy.calibration.readers.generator import GeneratorReader

        reader = GeneratorReader(source, inputs, callable_name(source))
        return Dataset(reader, tuple(range(len(reader))))
    return None if source is None else open_dataset(source, inputs, _preprocessing(plan, inputs))


def callable_name(given: Callable[..., object]) -> str:
    """What messages call a callable that the user gave."""
    return str(getattr(given, "name", "") or getattr(given, "__qualname__", "callable"))


def with_recorded_data(plan: Plan, folder: Path) -> Plan:
    """The plan with what the user's data callables yield written below ``folder``, so that only files are left to read.

    The code that a user names runs in the user's own process; the worker that holds the model needs no more than files.
    """
    return replace(
        plan,
        request=replace(plan.request, calibration=None, evaluation=None),
        calibration=_recorded(plan.calibration, folder / "calibration-items"),
        evaluation=_recorded(plan.evaluation, folder / "evaluation-items"),
    )


def _recorded(source: DataSource, folder: Path) -> DataSource:
    if callable(source):
        from edgedeploy.calibration.readers.recorded import record

        return record(source, folder, callable_name(source))
    if isinstance(source, str) and names_code(source, Path()):
        from edgedeploy.calibration.readers.generator import import_callable
        from edgedeploy.calibration.readers.recorded import record

        return record(import_callable(source), folder, source)
    return source


def _preprocessing(plan: Plan, inputs: tuple[TensorSpec, ...]) -> Preprocessing | None:
    table = plan.config.preprocessing
    unknown = set(table) - {spec.name for spec in inputs}
    if unknown:
        raise InputError(
            f"deploy.toml describes preprocessing for {', '.join(sorted(unknown))}, which the model does not take.",
            found=f"inputs: {', '.join(spec.name for spec in inputs)}",
        )
    return next(iter(table.values()), None)


def _refuse_overlap(calibration: Dataset | None, evaluation: Dataset, progress: Progress) -> None:
    """Evaluation on samples that calibration saw proves too much: name how many there are."""
    if calibration is None:
        evaluation.check(progress)
        return
    shared = set(calibration.hashes) & set(evaluation.hashes)
    if shared:
        raise InputError(
            f"{len(shared)} evaluation sample(s) are also calibration samples.",
            found=f"{evaluation.source} and {calibration.source}",
            remedy="Evaluate on data that calibration does not see, or leave --eval away to have a slice held back.",
        )
