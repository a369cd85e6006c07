"""Tables on a terminal, whose cells are plain text whatever a model or a file calls things."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgedeploy.plain_text import printable


class PlainTable:
    """Collects rows and prints them; a cell is never read as markup.

    Args:
        columns: their headings.
        title: above the table.
    """

    def __init__(self, *columns: str, title: str = "") -> None:
        heading = Text(printable(title), style="table.title") if title else None
        self._table = Table(title=heading, title_justify="left")
        for column in columns:
            self._table.add_column(Text(printable(column)))

    def add(self, *cells: object) -> None:
        """Add a row; a `Text` keeps its style."""
        self._table.add_row(*(_plain(cell) for cell in cells))

    def show(self) -> None:
        """Print it: in a terminal's own width, or in 120 columns, so that lines are not broken for nobody."""
        console = Console() if sys.stdout.isatty() else Console(width=120)
        console.print(self._table)


def _plain(cell: object) -> Text:
    if not isinstance(cell, Text):
        return Text(printable(cell))
    spans = [(printable(cell.plain[span.start : span.end]), span.style) for span in cell.spans]
    return Text.assemble(*spans) if spans else Text(printable(cell.plain), style=cell.style)
