"""``deploy table FILE [OTHER]``: what a calibration table holds, or how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedeploy.commands.model_options import step_seconds_option
from edgedeploy.sandbox.watch import arm

if TYPE_CHECKING:
    from edgedeploy.sandbox.channel import Channel


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@step_seconds_option
def command(path: Path, other: Path | None, step_seconds: float | None) -> None:
    """Show every tensor of a calibration table with what each method would give, or compare it with OTHER."""
    from edgedeploy.confinement import in_worker
    from edgedeploy.sandbox.limits import limits_for

    in_worker(f"{__name__}:work", (path, other), limits_for(path, step_cpu_s=step_seconds), own_output=True)


def work(arguments: tuple[Path, Path | None], channel: Channel) -> None:
    """In the worker: read the tables and show them."""
    from edgedeploy.calibration.describe import compare_tables, describe_table
    from edgedeploy.calibration.table_file import load_table
    from edgedeploy.face import show_differences, show_table

    path, other = arguments
    arm("inspect")
    table = load_table(path)
    if other is None:
        show_table(describe_table(table))
    else:
        show_differences(compare_tables(table, load_table(other)))
