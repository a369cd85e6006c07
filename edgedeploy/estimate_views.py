"""How estimates are shown: figures side by side, where the time goes, and the same as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError, MissingToolError
from edgedeploy.plain_text import printable
from edgedeploy.tables import PlainTable
from edgedeploy.terminal import say

if TYPE_CHECKING:
    from edgedeploy.estimation import TargetEstimate
    from edgedeploy.evidence import Figure


def show(found: Sequence[TargetEstimate], top: int) -> None:
    """Print one table of figures for all targets, then where each target's time goes."""
    names = list(dict.fromkeys(figure.name for item in found for figure in item.estimate.figures))
    table = PlainTable("figure", *(f"{item.estimate.target} ({item.estimate.precision})" for item in found))
    for name in names:
        table.add(name, *(_banded(item.estimate.figure(name)) for item in found))
    table.add("status", *(item.estimate.status for item in found))
    table.show()
    say("in brackets: the band that 90 of 100 measurements should lie in")
    for item in found:
        _show_layers(item, top)


def draw(found: Sequence[TargetEstimate], path: Path) -> None:
    """Draw the time by kind of layer, one bar a target, as .png, .svg or .pdf.

    Raises:
        InputError: no target with a latency estimate.
        MissingToolError: matplotlib is not installed.
    """
    timed = [item.estimate for item in found if item.estimate.layers]
    if not timed:
        raise InputError("There is nothing to draw: no target has a latency estimate.")
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingToolError("matplotlib", install="pip install 'edgedeploy[plot]'") from error
    kinds = list(dict.fromkeys(layer.kind for item in timed for layer in item.layers))
    canvas = Canvas(figsize=(9, 1.6 + 0.6 * len(timed)), layout="constrained")
    axes = canvas.subplots()
    left = [item.overhead_us / 1e3 for item in timed]
    labels = [f"{item.target}\n{item.precision}" for item in timed]
    axes.barh(labels, left, label="start, input, output", color="0.75")
    for kind in kinds:
        widths = [sum(layer.latency_us for layer in item.layers if layer.kind == kind) / 1e3 for item in timed]
        axes.barh(labels, widths, left=left, label=kind)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel("estimated latency, ms")
    axes.legend(fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _show_layers(item: TargetEstimate, top: int) -> None:
    found = item.estimate
    if found.layers and top:
        table = PlainTable("layer", "kind", "µs", "share", "bound by", "M MACs", "kB", title=found.target)
        for layer in found.top(top):
            table.add(
                layer.name,
                layer.kind,
                _short(layer.latency_us),
                f"{layer.share:.0%}",
                layer.bound,
                f"{layer.macs / 1e6:.3g}",
                _short(layer.bytes_moved / 1e3),
            )
        table.add("(start, input, output)", "", _short(found.overhead_us), "", "", "", "")
        table.show()
    for op in found.unknown_ops:
        say(f"note: {found.target}: {printable(op)} has no class in the cost model and is counted as memory-bound")
    for line in item.advice:
        say(f"{found.target}: {printable(line)}")
    for verdict in item.verdicts:
        why = f": {verdict.why}" if verdict.why else ""
        say(f"{found.target}: {verdict.name} {verdict.limit}: {verdict.outcome}{why}")


def _banded(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    return f"{_short(figure.value)} ({_short(figure.low)}–{_short(figure.high)})"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
