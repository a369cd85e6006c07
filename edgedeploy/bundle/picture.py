"""The picture of where an estimated latency goes: one bar a layer, as SVG without dates, ids or fonts of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FILE_NAME = "layers.svg"

#: Blue for layers that wait for arithmetic, orange for those that wait for memory (told apart by the colour-blind too).
_COLOURS = {"compute": "#0072b2", "memory": "#e69f00"}
_LEFT, _LONGEST, _STEP, _TOP = 300, 340, 24, 36


def render_layers(title: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Draw the slowest layers, as `measurements.json` lists them: layer, kind, us, share, bound.

    The same rows give the same bytes.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgedeploy.bundle", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    longest = max((_number(row["us"]) for row in rows), default=0.0) or 1.0
    bars = [
        {
            "y": _TOP + _STEP * index,
            "name": _shortened(str(row["layer"])),
            "length": round(_LONGEST * _number(row["us"]) / longest, 1),
            "bound": row["bound"],
            "text": f"{_time(_number(row['us']))}, {_number(row['share']):.0%}, {row['kind']}",
        }
        for index, row in enumerate(rows)
    ]
    return environment.get_template("layers.svg.j2").render(
        title=_printable(title), bars=bars, colours=_COLOURS, left=_LEFT, width=_LEFT + _LONGEST + 230,
        height=_TOP + _STEP * len(bars) + 36,
    )  # fmt: skip


def _shortened(name: str, most: int = 42) -> str:
    """The end of a long name says more than its start."""
    clean = _printable(name)
    return clean if len(clean) <= most else f"…{clean[1 - most :]}"


def _time(us: float) -> str:
    return f"{us:.3g} µs" if us < 999.5 else f"{us / 1e3:,.1f} ms"


def _printable(text: str) -> str:
    """XML takes no control characters, not even escaped."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
