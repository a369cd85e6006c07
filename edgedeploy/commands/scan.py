"""``deploy scan FILE``: what loading the file would do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedeploy.commands.model_options import step_seconds_option
from edgedeploy.errors import ExitCode
from edgedeploy.plain_text import joined
from edgedeploy.quality.strict_json import dumps
from edgedeploy.sandbox.watch import arm
from edgedeploy.terminal import say

if TYPE_CHECKING:
    from edgedeploy.model.scan import Scan
    from edgedeploy.sandbox.channel import Channel

_SHOWN = 40


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@step_seconds_option
def command(path: Path, as_json: bool, step_seconds: float | None) -> ExitCode:
    """Say what loading PATH would do, without loading it; ends with 2 where it is dangerous or damaged, else with 0."""
    from edgedeploy.confinement import in_worker
    from edgedeploy.sandbox.limits import limits_for

    told = in_worker(f"{__name__}:work", (path, as_json), limits_for(path, step_cpu_s=step_seconds))
    say(told["report"], lines=True)
    return ExitCode.OK if told["dangerous"] is False else ExitCode.BAD_INPUT


def work(arguments: tuple[Path, bool], channel: Channel) -> dict[str, Any]:
    """In the worker: parse the file and say what was found."""
    from edgedeploy.model.scan import scan_file

    path, as_json = arguments
    arm("scan")
    scan = scan_file(path)
    report = dumps(dataclasses.asdict(scan)) if as_json else _text(path, scan)
    return {"report": report, "dangerous": scan.dangerous}


def _text(path: Path, scan: Scan) -> str:
    lines = [f"{path.name}: {scan.container}, {scan.size_bytes:,} bytes"]
    if scan.members:
        lines.append(f"  members: {len(scan.members)}, {scan.unpacked_bytes:,} bytes unpacked")
    lines += [f"  pickle {place}: {', '.join(names) or 'imports nothing'}" for place, names in scan.pickles.items()]
    if scan.operators:
        more = f" and {len(scan.operators) - _SHOWN} more" if len(scan.operators) > _SHOWN else ""
        lines.append(f"  operators: {', '.join(scan.operators[:_SHOWN])}{more}")
    lines += [f"  external file: {name}" for name in scan.external_files]
    for finding in scan.findings:
        lines.append(f"  {finding.severity.value}: {finding.what}" + (f" ({finding.found})" if finding.found else ""))
    lines.append("dangerous or damaged: it is not loaded" if scan.dangerous else "nothing found")
    return joined(lines)
