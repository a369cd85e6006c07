"""``deploy layers MODEL``: which layer hurts when it is quantized?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedeploy.commands.model_options import calibration_option, loading_options
from edgedeploy.terminal import say

if TYPE_CHECKING:
    from edgedeploy.prepare import Plan
    from edgedeploy.sandbox.channel import Channel


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--scheme", required=True, metavar="NAME", help="tflite, qnn-a8w8, onnxruntime-x86 …")
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, help="Samples to measure on.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Also draw it (.png, .svg).")
@calibration_option
@loading_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(model: Path, scheme: str, samples: int, plot: Path | None, quiet: bool, **rest: object) -> None:
    """Quantize each layer of MODEL alone by SCHEME's rules and rank the layers by the error of the outputs."""
    from edgedeploy.calibration.schemes import SCHEMES
    from edgedeploy.commands.options import picture_file
    from edgedeploy.confinement import in_worker, limits_of
    from edgedeploy.errors import InputError
    from edgedeploy.face import make_progress
    from edgedeploy.prepare import plan_model, with_recorded_data
    from edgedeploy.request import DeployRequest

    if scheme not in SCHEMES:
        raise InputError(f"There is no scheme {scheme!r}.", remedy=f"Choose one of: {', '.join(SCHEMES)}.")
    picture_file(plot)
    request = DeployRequest(model=model, **rest)  # type: ignore[arg-type]
    chosen = plan_model(request)
    if chosen.calibration is None:
        raise InputError("Ranking layers takes calibration data.", remedy="Give --calibration.")
    writable = () if plot is None else (plot.parent,)
    with make_progress(quiet=quiet) as progress, tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
        chosen = with_recorded_data(chosen, Path(folder))
        limits = limits_of(chosen, *writable)
        said = in_worker(f"{__name__}:work", (chosen, scheme, samples, plot), limits, progress)
    say(said, lines=True)


def work(arguments: tuple[Plan, str, int, Path | None], channel: Channel) -> str:
    """In the worker: load, capture, calibrate, rank, and draw the picture."""
    from edgedeploy.calibration.schemes import SCHEMES
    from edgedeploy.calibration.sensitivity import rank_layers
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.prepare import load_and_capture
    from edgedeploy.stages import Stages

    chosen, scheme, samples, plot = arguments
    _, data, graph = load_and_capture(chosen, Stages(), channel)
    assert data is not None and data.calibration is not None, "checked before the worker began"
    table = Calibration(graph, data.calibration, progress=channel).table
    ranking = rank_layers(graph, table, SCHEMES[scheme], list(data.evaluation.take(samples)), progress=channel)
    if plot is not None:
        ranking.plot(plot)
    return ranking.table()
