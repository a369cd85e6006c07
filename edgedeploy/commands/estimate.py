"""``deploy estimate``: latency, energy and memory from the cost model alone, several targets side by side."""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.commands.model_options import loading_options
from edgedeploy.errors import ExitCode
from edgedeploy.terminal import say_json


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-t", "--target", "targets", multiple=True, metavar="NAME[,NAME…]", help="Device profile, or a .toml.")
@click.option("--rate", default="", metavar="N/s", help="Average power at this many inferences a second.")
@click.option("--precision", default="", metavar="SCHEME", help="float16, qnn-a16w8 …; else the profile's scheme.")
@loading_options
@click.option("--top", default=8, show_default=True, type=click.IntRange(0), help="Slowest layers to list.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Picture of where the time goes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    model: Path,
    targets: tuple[str, ...],
    rate: str,
    precision: str,
    top: int,
    plot: Path | None,
    as_json: bool,
    **loading: object,
) -> ExitCode:
    r"""Estimate MODEL (or a bundle) on each target; nothing is exported or run.

    \b
    deploy estimate --target snapdragon888,iphone12 --rate 10/s model.pt2
    """
    from edgedeploy.commands.options import names_in, picture_file
    from edgedeploy.estimation import captured, estimate_graph, parse_rate, plan_estimate

    rate_per_s = parse_rate(rate)
    picture_file(plot)
    chosen = plan_estimate(model, names_in(targets), precision=precision, **loading)
    profiles, graph = chosen.profiles, captured(chosen)
    found = [estimate_graph(graph, profile, precision=precision, rate_per_s=rate_per_s) for profile in profiles]
    if plot is not None:
        from edgedeploy.estimate_views import draw

        draw(found, plot)
    if as_json:
        say_json([item.to_json() for item in found])
    else:
        from edgedeploy.estimate_views import show

        show(found, top)
    return ExitCode.OK
