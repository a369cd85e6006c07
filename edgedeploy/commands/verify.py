"""``deploy verify BUNDLE``: is this what was built, does it still compute the same, how fast is it there?"""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.commands.model_options import step_seconds_option
from edgedeploy.errors import ExitCode
from edgedeploy.terminal import say_json


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--device",
    default="",
    metavar="WHERE",
    help="Measure on local, adb:SERIAL, ssh:USER@HOST or serial:PORT and append.",
)
@click.option("--require", multiple=True, metavar="KEY=EVIDENCE", help="latency=device: the proof a budget takes.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@step_seconds_option
def command(
    bundle: Path, device: str, require: tuple[str, ...], as_json: bool, quiet: bool, step_seconds: float | None
) -> ExitCode:
    """Re-hash every file of BUNDLE and replay its golden vectors; with --device, measure there and append."""
    from edgedeploy.bundle.verify import Question, verify_bundle
    from edgedeploy.face import make_progress, show_verification

    with make_progress(quiet=quiet) as progress:
        found = verify_bundle(Question(bundle, device, require, step_seconds), progress)
    if as_json:
        verdicts = [verdict.to_json() for verdict in found.verdicts]
        say_json({"target": found.target, "exit_code": int(found.exit_code), "verdicts": verdicts})
    elif not quiet:
        show_verification(found)
    return found.exit_code
