"""``deploy --target NAME model.pt``: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.cli import COMMANDS
from edgedeploy.commands.model_options import calibration_option, loading_options
from edgedeploy.errors import ExitCode
from edgedeploy.terminal import say

_EPILOG = "\b\nOther commands (deploy COMMAND --help):\n" + "\n".join(
    f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()
)


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-t", "--target", "targets", multiple=True, metavar="NAME[,NAME…]", help="Device profile, or a .toml of your own."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("out"),
    show_default=True,
    metavar="DIR",
    help="Gets one folder a target.",
)
@calibration_option
@click.option(
    "--eval", "evaluation", metavar="DATA", help="Like --calibration; without it a slice of that is held back."
)
@loading_options
@click.option("--candidate", metavar="NAME", help="Make only this candidate.")
@click.option("--device", default="", metavar="WHERE", help="local, adb:SERIAL, ssh:USER@HOST or serial:PORT.")
@click.option(
    "--budget", "budgets", multiple=True, metavar="KEY=VALUE", help="latency_ms=30, latency_ms.p99=10, size_mb=none."
)
@click.option("--require", multiple=True, metavar="KEY=EVIDENCE", help="latency=device: the proof a budget takes.")
@click.option(
    "--allow-unverified", multiple=True, metavar="KEY", help="power: this budget or gate may stay unverified."
)
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Backend option.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Calibration: auto, minmax, percentile, entropy, mse.",
)
@click.option("--lock", type=click.Path(path_type=Path), metavar="FILE", help="A deploy.lock that must apply.")
@click.option(
    "--cache", type=click.Path(path_type=Path), metavar="DIR", help="Keep calibration tables here for later runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print manifest and measurements to stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table: only errors.")
@click.version_option(package_name="edgedeploy")
def command(targets: tuple[str, ...], options: tuple[str, ...], as_json: bool, quiet: bool, **rest: object) -> ExitCode:
    r"""Take a trained MODEL to a device: calibrate, export, run, judge, bundle.

    \b
    deploy --target snapdragon888 model.pt
    deploy --target stm32l4r5,x86-avx512vnni --calibration photos/ model.pt

    Exit codes: 0 all required budgets and gates passed, 1 one failed, 2 wrong input, 3 one unverified,
    4 a vendor tool is missing, 5 a vendor tool or the device failed, 130 interrupted, 70 our bug.
    """
    from edgedeploy.commands.options import names_in, pairs
    from edgedeploy.face import make_progress, show_result
    from edgedeploy.pipeline import InterruptedRun, run
    from edgedeploy.request import DeployRequest

    request = DeployRequest(targets=names_in(targets), options=pairs(options, "--option"), **rest)  # type: ignore[arg-type]
    try:
        with make_progress(quiet=quiet) as progress:
            result = run(request, progress)
    except InterruptedRun as stopped:
        show_result(stopped.result, ExitCode.INTERRUPTED, as_json=as_json, quiet=quiet)
        say(str(stopped), err=True)
        return ExitCode.INTERRUPTED
    show_result(result, result.exit_code, as_json=as_json, quiet=quiet)
    return result.exit_code
