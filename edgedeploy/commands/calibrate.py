"""``deploy calibrate MODEL --out TABLE``: one pass over the data, kept for any target."""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.commands.model_options import calibration_option, loading_options
from edgedeploy.terminal import say


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
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.session import calibrate_to_file
    from edgedeploy.errors import InputError
    from edgedeploy.face import make_progress
    from edgedeploy.prepare import capture_graph, load, open_data, plan_model
    from edgedeploy.request import DeployRequest

    request = DeployRequest(model=model, method=method, **rest)  # type: ignore[arg-type]
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"The table can't be written to {out}.", remedy="Name a file in an existing folder.")
    plan = plan_model(request)
    with make_progress(quiet=quiet) as progress:
        loaded = load(plan)
        data = open_data(plan, loaded.inputs, progress)
        graph = capture_graph(plan, loaded, data, progress)
        table = calibrate_to_file(
            graph, data.calibration if data else None, out, CalibrationOptions(method=method), progress
        )
    if not quiet:
        say(f"{out}: {len(table.tensors)} tensors from {table.provenance.samples} samples")
