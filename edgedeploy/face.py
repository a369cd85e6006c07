"""What a person sees: progress while it runs, a table at the end. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from edgedeploy.backends import backends
from edgedeploy.device_profiles.machine import NATIVE, this_machine
from edgedeploy.device_profiles.schema import BUDGET_KEYS, DeviceProfile
from edgedeploy.judge import Outcome, Verdict, summary
from edgedeploy.plain_text import printable
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.tables import PlainTable
from edgedeploy.terminal import error_text, indented, say, say_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from edgedeploy.bundle.verify import Verification
    from edgedeploy.calibration.describe import TableDescription, TensorDifference
    from edgedeploy.errors import ExitCode
    from edgedeploy.pipeline import DeployResult

T = TypeVar("T")

_STYLE = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.UNVERIFIED: "yellow", Outcome.NOT_APPLICABLE: "dim"}


@contextlib.contextmanager
def make_progress(*, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, lines in a pipe, nothing when quiet."""
    if quiet:
        yield NoProgress()
    elif sys.stderr.isatty():
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True), transient=True) as bars:
            yield _BarProgress(bars)
    else:
        yield _LineProgress()


class _BarProgress:
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        task = self._bars.add_task(escape(printable(what)), total=total)
        try:
            for item in items:
                yield item
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)

    def note(self, text: str) -> None:
        self._bars.console.print(Text(indented(text)))


class _LineProgress:
    """One line when a stage starts and one when it ends: a log, not a film."""

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        self.note(f"{what} …" if total is None else f"{what}: {total} …")
        yield from items

    def note(self, text: str) -> None:
        say(indented(text), lines=True, err=True)


def show_result(result: DeployResult, exit_code: ExitCode, *, as_json: bool, quiet: bool) -> None:
    """Print one table a target, or all manifests as JSON; errors go to stderr in any case, each once."""
    for target in result.targets:
        if target.error is not None:
            say(f"error: {target.target}: {error_text(target.error)}", lines=True, err=True)
    if as_json:
        say_json({"exit_code": int(exit_code), "targets": _json(result)})
    elif not quiet:
        for target in result.targets:
            if target.error is None:
                title = f"{target.target}: {target.candidate}"
                _print_verdicts(title, target.verdicts)
                for note in target.notes:
                    say(f"note: {indented(note)}", lines=True)
                say(f"{summary(target.verdicts)} → exit code {int(target.exit_code)}; bundle: {target.bundle}")


def show_verification(found: Verification) -> None:
    """Print what `deploy verify` found."""
    say(f"{found.target}: every file is as it was built")
    _print_verdicts("replay", found.verdicts)
    for note in found.notes:
        say(f"note: {indented(note)}", lines=True)
    tail = "; measurements.json has a new run" if found.appended else ""
    say(f"{summary(found.verdicts)} → exit code {int(found.exit_code)}{tail}")


def show_profiles(profiles: Sequence[DeviceProfile]) -> None:
    """Print the list of targets."""
    table = PlainTable("target", "device", "backend", "class", "budgets")
    for profile in profiles:
        budgets = ", ".join(f"{key} {_limit(profile, key)}" for key in profile.budget)
        device = profile.device
        table.add(profile.name, device.soc or device.description, device.backend, device.device_class, budgets)
    table.show()


def show_profile(profile: DeviceProfile) -> None:
    """Explain one profile: what the device is, what each budget means, where the figures come from."""
    device = profile.device
    vendor = f" ({device.vendor})" if device.vendor else ""
    say(f"{profile.name}: {device.description or device.soc}{vendor}, backend {device.backend}")
    if profile.hardware.arch == NATIVE:
        machine = this_machine()
        say(f"  detected: {machine.cpu or machine.arch}, {machine.cores} cores, 8-bit path {machine.integer_path}")
    if device.aliases:
        say(f"also called: {', '.join(device.aliases)}")
    for key, value in profile.hardware.model_dump(exclude_none=True).items():
        if value not in ("", ()):
            say(f"  {key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}")
    if profile.quantization.scheme:
        say(f"  scheme: {profile.quantization.scheme}")
    table = PlainTable("budget", "limit", "must hold", "evidence at least", "meaning")
    for key, budget in profile.budget.items():
        required = "required" if budget.required else "advisory"
        table.add(key, _limit(profile, key), required, str(budget.evidence), BUDGET_KEYS[key])
    for gate, limit in profile.quality.model_dump(exclude_none=True).items():
        table.add(gate, f"{limit:g}", "required", "", "quality gate")
    table.show()
    _show_backend(profile)
    for what, source in profile.sources.items():
        say(f"  source of {what}: {source}")


def _show_backend(profile: DeviceProfile) -> None:
    """What the command may ask of the device's backend."""
    entry = backends().get(profile.device.backend)
    if entry is None:
        return
    if entry.candidates:
        say(f"candidates: {', '.join(entry.candidates)}")
    if entry.devices:
        say(f"reached by: {', '.join(entry.devices)}")
    for option in entry.load_options():
        say(f"  -O {option.key}: {option.meaning}" + (f" ({', '.join(option.choices)})" if option.choices else ""))


def show_table(table: TableDescription) -> None:
    """Print a calibration table: each tensor's extremes, its range, and the SQNR that each method would give."""
    made = "synthetic" if table.data_free else "calibration"
    chosen = ", ".join(f"{method} for {count}" for method, count in table.chosen.items())
    say(f"{len(table.rows)} tensors from {table.samples} {made} samples; {chosen}")
    methods = list(table.rows[0].sqnr_db) if table.rows else []
    out = PlainTable("tensor", "min", "max", "low", "high", "method", *(f"{method} dB" for method in methods), "note")
    for row in table.rows:
        numbers = (f"{value:.4g}" for value in (row.minimum, row.maximum, row.low, row.high))
        sqnr = (f"{row.sqnr_db[method]:.1f}" for method in methods)
        out.add(row.name, *numbers, row.method, *sqnr, row.note)
    out.show()


def show_differences(differences: Sequence[TensorDifference]) -> None:
    """Print the tensors whose ranges differ between two tables."""
    if not differences:
        say("both tables give the same ranges")
        return
    out = PlainTable("tensor", "before", "after", "change")
    for item in differences:
        ends = (f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else "absent" for ends in (item.before, item.after))
        out.add(item.name, *ends, f"{100 * item.change:.2f} %")
    out.show()


def _limit(profile: DeviceProfile, key: str) -> str:
    budget = profile.budget[key]
    sign = "≤" if budget.max is not None else "≥"
    return f"{sign} {budget.limit:g}" + (f" {budget.statistic}" if budget.statistic else "")


def _print_verdicts(title: str, verdicts: Sequence[Verdict]) -> None:
    table = PlainTable("budget", "limit", "value", "evidence", "verdict", title=title)
    for verdict in verdicts:
        text = Text.assemble((str(verdict.outcome), _STYLE[verdict.outcome]))
        if verdict.why:
            text.append(f": {verdict.why}", style="dim")
        name = verdict.name if verdict.required else f"{verdict.name} (advisory)"
        table.add(name, verdict.limit, _value(verdict), str(verdict.evidence), text)
    table.show()


def _value(verdict: Verdict) -> str:
    if verdict.value is None:
        return "–"
    band = "" if verdict.low is None or verdict.high is None else f" ({verdict.low:.3g}–{verdict.high:.3g})"
    return f"{verdict.value:.4g}{band}"


def _json(result: DeployResult) -> dict[str, object]:
    found: dict[str, object] = {}
    for target in result.targets:
        entry: dict[str, object] = {"exit_code": int(target.exit_code)}
        if target.error is not None:
            error = target.error
            entry["error"] = {"what": error.what, "found": error.found, "remedy": error.remedy}
        elif target.bundle is not None:
            entry["bundle"] = str(target.bundle)
            for name in ("manifest", "measurements"):
                entry[name] = json.loads((target.bundle / f"{name}.json").read_bytes())
        found[target.target] = entry
    return found
