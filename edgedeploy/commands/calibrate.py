"""``deploy calibrate MODEL --out TABLE``: one pass over the data, kept for any target."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where the table goes (.npz)."
)
@click.option("--calibration", metavar="DATA", help=".npz, folder of .npy or images, or pkg.mod:callable.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="deploy.toml; else the one beside the model."
)
@click.option("--model", "factory", default="", metavar="PKG.MOD:FN", help="Builds the module for a file of weights.")
@click.option("--input", "inputs", multiple=True, metavar="NAME:SHAPE:DTYPE", help="image:1x3x224x224:float32")
@click.option(
    "--method", default="auto", show_default=True, metavar="NAME", help="auto, minmax, percentile, entropy, mse."
)
@click.option("--trust-code", is_flag=True, help="The TorchScript file may run its code.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
def command(model: Path, out: Path, method: str, quiet: bool, **rest: object) -> None:
    """Calibrate MODEL and save the table; `deploy table FILE` shows it, --cache makes `deploy` use it."""
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.session import calibrate_to_file
    from edgedeploy.config import load_config
    from edgedeploy.errors import InputError
    from edgedeploy.face import make_progress
    from edgedeploy.prepare import Plan, capture_graph, load, open_data
    from edgedeploy.request import DeployRequest

    request = DeployRequest(model=model, **rest)  # type: ignore[arg-type]
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"The table can't be written to {out}.", remedy="Name a file in an existing folder.")
    plan = Plan(request, *load_config(model, request.config), profiles=())
    with make_progress(quiet=quiet) as progress:
        loaded = load(plan)
        data = open_data(plan, loaded.inputs, progress)
        graph = capture_graph(plan, loaded, data, progress)
        table = calibrate_to_file(
            graph, data.calibration if data else None, out, CalibrationOptions(method=method), progress
        )
    if not quiet:
        click.echo(f"{out}: {len(table.tensors)} tensors from {table.provenance.samples} samples")
