"""``deploy table FILE [OTHER]``: what a calibration table holds, or how two differ."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
def command(path: Path, other: Path | None) -> None:
    """Show every tensor of a calibration table with what each method would give, or compare it with OTHER."""
    from edgedeploy.calibration.describe import compare_tables, describe_table
    from edgedeploy.calibration.table_file import load_table
    from edgedeploy.face import show_differences, show_table

    table = load_table(path)
    if other is None:
        show_table(describe_table(table))
    else:
        show_differences(compare_tables(table, load_table(other)))
