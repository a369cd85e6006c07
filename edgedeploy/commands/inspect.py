"""``deploy inspect FILE``: what a model, an artefact or a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedeploy.commands.model_options import step_seconds_option
from edgedeploy.sandbox.watch import arm
from edgedeploy.terminal import say

if TYPE_CHECKING:
    from edgedeploy.sandbox.channel import Channel


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="Also list every op.")
@step_seconds_option
def command(path: Path, layers: bool, step_seconds: float | None) -> None:
    """Say what PATH holds: a bundle, a .dlc, a .tflite, or a model file (nothing in it is executed)."""
    from edgedeploy.confinement import in_worker
    from edgedeploy.sandbox.limits import limits_for

    say(in_worker(f"{__name__}:work", (path, layers), limits_for(path, step_cpu_s=step_seconds)), lines=True)


def work(arguments: tuple[Path, bool], channel: Channel) -> str:
    """In the worker: read the file and describe it."""
    from edgedeploy.inspection import describe

    path, layers = arguments
    arm("inspect")
    return describe(path, layers=layers)
