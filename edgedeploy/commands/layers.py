"""``deploy layers MODEL``: which layer hurts when it is quantized?"""

from __future__ import annotations

from pathlib import Path

import click

from edgedeploy.commands.model_options import calibration_option, loading_options
from edgedeploy.terminal import say


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
    from edgedeploy.calibration.sensitivity import rank_layers
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.commands.options import picture_file
    from edgedeploy.errors import InputError
    from edgedeploy.face import make_progress
    from edgedeploy.prepare import capture_graph, load, open_data, plan_model
    from edgedeploy.request import DeployRequest

    if scheme not in SCHEMES:
        raise InputError(f"There is no scheme {scheme!r}.", remedy=f"Choose one of: {', '.join(SCHEMES)}.")
    picture_file(plot)
    request = DeployRequest(model=model, **rest)  # type: ignore[arg-type]
    chosen = plan_model(request)
    with make_progress(quiet=quiet) as progress:
        loaded = load(chosen)
        data = open_data(chosen, loaded.inputs, progress)
        if data is None or data.calibration is None:
            raise InputError("Ranking layers takes calibration data.", remedy="Give --calibration.")
        graph = capture_graph(chosen, loaded, data, progress)
        table = Calibration(graph, data.calibration, progress=progress).table
        ranking = rank_layers(graph, table, SCHEMES[scheme], list(data.evaluation.take(samples)), progress=progress)
    say(ranking.table())
    if plot is not None:
        ranking.plot(plot)
