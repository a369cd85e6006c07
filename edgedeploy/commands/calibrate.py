"""``deploy calibrate MODEL --out TABLE``: one pass over the data, kept for any target."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedeploy.commands.model_options import calibration_option, loading_options
from edgedeploy.terminal import say

if TYPE_CHECKING:
    from edgedeploy.prepare import Plan
    from edgedeploy.sandbox.channel import Channel


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where the table goes (.npz)."
)
@calibration_option
@loading_options
@click.option(
    "--method", default="auto", show_default=True, metavar="NAME", help="auto, minmax, percentile, entropy, mse."
)
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
def command(model: Path, out: Path, method: str, quiet: bool, **rest: object) -> None:
    """Calibrate MODEL and save the table; `deploy table FILE` shows it, --cache makes `deploy` use it."""
    from edgedeploy.confinement import in_worker, limits_of
    from edgedeploy.errors import InputError
    from edgedeploy.face import make_progress
    from edgedeploy.prepare import plan_model, with_recorded_data
    from edgedeploy.request import DeployRequest

    request = DeployRequest(model=model, method=method, **rest)  # type: ignore[arg-type]
    if not out.parent.is_dir() or out.is_symlink() or (out.exists() and not out.is_file()):
        raise InputError(f"The table can't be written to {out}.", remedy="Name a file in an existing folder.")
    plan = plan_model(request)
    with make_progress(quiet=quiet) as progress, tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
        plan = with_recorded_data(plan, Path(folder))
        said = in_worker(f"{__name__}:work", (plan, out), limits_of(plan, out.parent), progress)
    if not quiet:
        say(said)


def work(arguments: tuple[Plan, Path], channel: Channel) -> str:
    """In the worker: load, capture, calibrate, and save the table."""
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.session import calibrate_to_file
    from edgedeploy.prepare import load_and_capture
    from edgedeploy.stages import Stages

    plan, out = arguments
    _, data, graph = load_and_capture(plan, Stages(), channel)
    options = CalibrationOptions(method=plan.request.method)
    table = calibrate_to_file(graph, data.calibration if data else None, out, options, channel)
    return f"{out}: {len(table.tensors)} tensors from {table.provenance.samples} samples"
