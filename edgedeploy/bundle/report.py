"""The report a person reads: what was asked, what was found, on what evidence."""

from __future__ import annotations

from edgedeploy.bundle.manifest import Manifest, Measurements, VerdictRecord
from edgedeploy.plain_text import markdown


def render_report(manifest: Manifest, measurements: Measurements) -> str:
    """Render report.md; it holds nothing that manifest.json and measurements.json do not."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgedeploy.bundle", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=markdown,
    )
    environment.filters["value"] = value_text
    template = environment.get_template("report.md.j2")
    return template.render(manifest=manifest, measurements=measurements)


def value_text(verdict: VerdictRecord) -> str:
    """The found value with its band ("4.1 (2.6-6.4)"), or a dash."""
    if verdict.value is None:
        return "–"
    text = f"{verdict.value:.4g}"
    if verdict.low is not None and verdict.high is not None:
        text += f" ({verdict.low:.3g}–{verdict.high:.3g})"
    return text
