"""``deploy inspect FILE``: what a model, an artefact or a bundle holds."""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.terminal import say


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="Also list every op.")
def command(path: Path, layers: bool) -> None:
    """Say what PATH holds: a bundle, a .dlc, a .tflite, or a model file (nothing in it is executed)."""
    from edgedeploy.inspection import describe

    say(describe(path, layers=layers))
