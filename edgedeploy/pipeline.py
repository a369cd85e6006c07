"""`deploy`: from a request to one judged bundle a target."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.backends import backend
from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.folder import work_folder
from edgedeploy.bundle.lock import Lock, find_lock, lock_key
from edgedeploy.bundle.place import check_replaceable, move_into_place, remove_outdated
from edgedeploy.bundle.write import BundleParts, write_bundle
from edgedeploy.candidates import judged_classes, try_candidates
from edgedeploy.command_check import check_places
from edgedeploy.confinement import limits_of, runs_own_code
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import EdgeDeployError, ExitCode, ToolFailedError, worst
from edgedeploy.exhausted import unexpected
from edgedeploy.interfaces import ExportContext, Finisher, Selection
from edgedeploy.judge import Verdict
from edgedeploy.prepare import Plan, Prepared, plan, prepare, with_recorded_data
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.request import DeployRequest
from edgedeploy.sandbox.channel import Channel
from edgedeploy.sandbox.confine import Job, confined
from edgedeploy.stages import Stages, peak_memory_mb
from edgedeploy.trial import Trial, choose, records
from edgedeploy.version import VERSION

if TYPE_CHECKING:
    from edgedeploy.calibration.session import Calibration

#: The folder of a finished bundle inside its target's work folder.
BUNDLE = "bundle"
#: Where a target's bundle goes, by exit code: only a full pass takes the target's own name.
_SUFFIX = {ExitCode.OK: "", ExitCode.BUDGET_FAILED: ".failed", ExitCode.UNVERIFIED: ".unverified"}


@dataclass(frozen=True)
class TargetResult:
    """How one target ended: a judged bundle, or the error that stopped it."""

    target: str
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...] = ()
    bundle: Path | None = None
    candidate: str = ""
    notes: tuple[str, ...] = ()
    error: EdgeDeployError | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes the same result of, its bundle aside."""
        return {
            "target": self.target,
            "exit_code": int(self.exit_code),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "candidate": self.candidate,
            "notes": list(self.notes),
            "error": self.error.to_json() if self.error else None,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TargetResult:
        """Read what a worker handed over."""
        return cls(
            target=str(fields["target"]),
            exit_code=ExitCode(fields["exit_code"]),
            verdicts=tuple(Verdict.from_json(item) for item in fields["verdicts"]),
            candidate=str(fields["candidate"]),
            notes=tuple(map(str, fields["notes"])),
            error=EdgeDeployError.from_json(fields["error"]) if fields["error"] else None,
        )


@dataclass(frozen=True)
class DeployResult:
    """How a whole command ended; ``exit_code`` is the one that stands for all targets."""

    targets: tuple[TargetResult, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The first of 70, 130, 2, 4, 5, 1, 3, 0 that occurred."""
        return worst(target.exit_code for target in self.targets)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict of every target, in order."""
        return tuple(verdict for target in self.targets for verdict in target.verdicts)

    @property
    def bundle(self) -> Path | None:
        """The bundle of the first target."""
        return self.targets[0].bundle if self.targets else None


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C or a signal stopped a run.

    Attributes:
        result: the targets that were done by then.
        placed: the bundles that stand where they did not stand before.
    """

    def __init__(self, result: DeployResult, placed: tuple[Path, ...]) -> None:
        super().__init__()
        self.result, self.placed = result, placed

    def __str__(self) -> str:
        if not self.placed:
            return "interrupted: nothing was changed"
        return f"interrupted: {', '.join(map(str, self.placed))} had been written, the rest is as it was"


def run(request: DeployRequest, progress: Progress | None = None) -> DeployResult:
    """Deploy one model to one or more targets.

    Whatever touches the model happens in a limited worker (see `edgedeploy.sandbox`); this process checks the command,
    runs the code that the user named, watches, and moves finished bundles into place.
    A mistake in the command, the model or the data raises; what goes wrong with one target is in its result.

    Raises:
        EdgeDeployError: before any target was tried.
        InterruptedRun: Ctrl-C; it says what had been done.
    """
    progress = progress or NoProgress()
    results: list[TargetResult] = []
    chosen = plan(request)
    check_places(request)
    for place in _places(chosen):
        check_replaceable(place)
    before = _standing(chosen)
    try:
        _run(chosen, results, progress)
    except KeyboardInterrupt:
        placed = tuple(place for place, folder in _standing(chosen).items() if before.get(place) != folder)
        raise InterruptedRun(DeployResult(tuple(results)), placed) from None
    return DeployResult(tuple(results))


def _places(chosen: Plan) -> list[Path]:
    """Every name that a bundle of this run may take."""
    return [_place(profile.name, code, chosen.request.output) for profile in chosen.profiles for code in _SUFFIX]


def _place(target: str, code: ExitCode, output: Path) -> Path:
    return output / (target + _SUFFIX[code])


def _standing(chosen: Plan) -> dict[Path, tuple[int, int]]:
    """Which folder stands under each name that a bundle of this run may take."""
    found = {}
    for place in _places(chosen):
        with contextlib.suppress(OSError):
            status = place.lstat()
            found[place] = (status.st_dev, status.st_ino)
    return found


def _run(chosen: Plan, results: list[TargetResult], progress: Progress) -> None:
    """Try every target; one that fails, or crashes, leaves the others theirs."""
    output = chosen.request.output
    with work_folder(output) as work_dir:
        chosen = with_recorded_data(chosen, work_dir)
        if chosen.request.cache:
            chosen.request.cache.mkdir(parents=True, exist_ok=True)  # a worker may write only into what is there
        writable = [work_dir, *([chosen.request.cache] if chosen.request.cache else [])]
        waiting = list(chosen.profiles)

        def finished(fields: Any) -> None:
            if not waiting:
                raise ToolFailedError("The worker told of more targets than it was given.")
            profile = waiting.pop(0)
            try:
                results.append(_placed(_result(fields), profile.name, output, work_dir))
            except EdgeDeployError as error:
                results.append(TargetResult(profile.name, error.exit_code, error=error))

        while waiting:
            scratch = work_dir / f"worker-{len(waiting)}"
            scratch.mkdir()
            left = replace(chosen, profiles=tuple(waiting))
            job = Job(f"{__name__}:make_bundles", (left, work_dir), scratch, runs_own_code(left))
            try:
                confined(job, limits_of(left, *writable), progress, finished)
                silent = ToolFailedError("The worker ended without a word on this target.")
                results += [TargetResult(profile.name, silent.exit_code, error=silent) for profile in waiting]
                break
            except ToolFailedError as error:
                # A vendor's tool took the worker with it: its target is lost, the others get a worker of their own.
                lost = waiting.pop(0) if waiting else chosen.profiles[-1]
                results.append(TargetResult(lost.name, error.exit_code, error=error))
            except EdgeDeployError as error:
                if not results:
                    raise
                results += [TargetResult(profile.name, error.exit_code, error=error) for profile in waiting]
                break


def make_bundles(arguments: tuple[Plan, Path], channel: Channel) -> None:
    """In the worker: load, capture and calibrate once, then make each target's bundle below the work folder.

    Each target's result is handed over as soon as it is known, so that a later crash does not take it along.
    """
    chosen, work_dir = arguments
    stages = Stages()
    prepared = prepare(chosen, channel.scratch, stages, channel)
    calibration = _calibration(chosen, prepared, channel)
    for profile in chosen.profiles:
        folder = work_dir / profile.name
        folder.mkdir()
        try:
            result = _deploy_one(chosen, prepared, calibration, profile, folder, stages, channel)
        except EdgeDeployError as error:
            result = TargetResult(profile.name, error.exit_code, error=error)
        except Exception as error:
            said = (fault(error, work_dir) if isinstance(error, OSError) else None) or unexpected(error)
            result = TargetResult(profile.name, said.exit_code, error=said)
        channel.event(result.to_json())


def _result(fields: Any) -> TargetResult:
    try:
        return TargetResult.from_json(fields)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ToolFailedError("The worker told a result that is none.", found=str(fields)[:200]) from None


def _placed(result: TargetResult, name: str, output: Path, work_dir: Path) -> TargetResult:
    """Move a finished bundle from the work folder to where its exit code belongs.

    A full pass makes the failed bundles of earlier runs misleading: they go.
    """
    if result.error is not None:
        return result
    if result.target != name or result.exit_code not in _SUFFIX or (work_dir / name).is_symlink():
        raise ToolFailedError("The worker told something untrue of its result.", found=f"{result.target!r} for {name}")
    place = _place(name, result.exit_code, output)
    move_into_place(work_dir / name / BUNDLE, place)
    if result.exit_code is ExitCode.OK:
        remove_outdated([_place(name, code, output) for code in _SUFFIX if code is not ExitCode.OK], work_dir / name)
    return replace(result, bundle=place)


def _calibration(chosen: Plan, prepared: Prepared, progress: Progress) -> Calibration:
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.session import Calibration

    return Calibration(
        prepared.graph,
        prepared.data.calibration,
        CalibrationOptions(method=chosen.request.method),
        cache=chosen.request.cache,
        progress=progress,
    )


def _deploy_one(
    chosen: Plan,
    prepared: Prepared,
    calibration: Calibration,
    profile: DeviceProfile,
    folder: Path,
    stages: Stages,
    channel: Channel,
) -> TargetResult:
    request = chosen.request
    entry = backend(profile.device.backend)
    exporter, runner = entry.load_exporter(), entry.load_runner()
    lock, note = _lock(chosen, prepared, profile, _place(profile.name, ExitCode.OK, request.output))
    if note:
        channel.note(note)
    context = ExportContext(
        model=prepared.model,
        graph=prepared.graph_for(profile),
        profile=profile,
        calibration=calibration,
        work_dir=folder,
        options=chosen.options[profile.name],
        pinned=request.candidate or (lock.candidate if lock else None),
        progress=channel,
        labels=chosen.labels,
        preprocessing={name: str(item) for name, item in chosen.config.preprocessing.items()},
        class_outputs=judged_classes(chosen, prepared),
        states=prepared.states.pairs,
    )
    trials = try_candidates(chosen, prepared, context, exporter, runner, stages)
    trial = choose(trials, exporter.selection)
    tried = lock.candidates if lock and not request.candidate else records(trials, trial)
    notes = (*prepared.model.notes, *prepared.states.notes, *_notes(trials, trial, exporter.selection))
    with stages.stage("bundle"):
        if isinstance(exporter, Finisher):
            exporter.finish(trial.artefact, profile, prepared.data.evaluation, trial.result)
        parts = BundleParts(
            plan=chosen,
            prepared=prepared,
            profile=profile,
            trial=trial,
            candidates=tried,
            lock=Lock(_lock_key(chosen, prepared, profile), trial.artefact.candidate, tried),
            stages_s=stages.seconds,
            peak_memory_mb=peak_memory_mb(),
            notes=notes,
            calibration_method=calibration.chosen_method(trial.artefact.scheme),
            confinement=channel.confinement,
        )
        built = write_bundle(folder / BUNDLE, parts)
    return TargetResult(profile.name, trial.exit_code, trial.verdicts, built, trial.artefact.candidate, notes)


def _lock_key(chosen: Plan, prepared: Prepared, profile: DeviceProfile) -> str:
    data = prepared.data
    return lock_key(
        VERSION,
        prepared.graph_for(profile).sha256,
        profile.model_dump_json(),
        data.calibration.digest if data.calibration else "data-free",
        data.evaluation.digest,
        repr(sorted(chosen.options[profile.name].items())),
        chosen.request.method,
        repr(sorted(prepared.states.pairs.items())),
    )


def _lock(chosen: Plan, prepared: Prepared, profile: DeviceProfile, existing: Path) -> tuple[Lock | None, str]:
    if chosen.request.candidate:
        return None, ""
    key = _lock_key(chosen, prepared, profile)
    return find_lock(chosen.request.lock, chosen.request.model.parent, existing, key)


def _notes(trials: list[Trial], trial: Trial, selection: Selection) -> tuple[str, ...]:
    notes = list(trial.result.notes)
    if selection is Selection.FASTEST and trial.artefact.scheme != "float32":
        float_times = [item.pace_ms for item in trials if item.artefact.scheme == "float32" and item.pace_ms]
        if trial.pace_ms is not None and float_times and trial.pace_ms > float_times[0]:
            notes.append(
                f"{trial.artefact.candidate} is slower than FP32 on this machine: {_times(trial, float_times[0])}"
            )
        elif trial.pace_ms is not None and not float_times:
            notes.append(f"only {trial.artefact.candidate} was made: its speed was not compared with FP32")
    return tuple(notes)


def _times(trial: Trial, float_ms: float) -> str:
    return f"{trial.pace_ms:.3g} ms against {float_ms:.3g} ms"
