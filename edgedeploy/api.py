"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.bundle.verify import Question, Verification, verify_bundle
from edgedeploy.pipeline import DeployResult, run
from edgedeploy.request import DataSource, DeployRequest

if TYPE_CHECKING:
    from edgedeploy.estimation import TargetEstimate
    from edgedeploy.graph.graph import Graph
    from edgedeploy.progress import Progress


def deploy(
    model: str | Path,
    target: str | Iterable[str] = (),
    *,
    output: str | Path = "out",
    calibration: DataSource = None,
    evaluation: DataSource = None,
    progress: Progress | None = None,
    **options: Any,
) -> DeployResult:
    """Deploy ``model`` to one or more targets and return verdicts, bundles and the exit code.

    Args:
        model: .pt2, TorchScript, state_dict, safetensors or .onnx file.
        target: one profile name or file, or several; empty takes those of deploy.toml.
        output: folder that gets one subfolder a target.
        calibration, evaluation: a path, ``pkg.mod:callable``, or a callable yielding dicts of arrays.
        progress: gets told what happens; silent by default.
        **options: the other fields of `DeployRequest`: ``factory``, ``inputs``, ``budgets``, ``device`` …

    Raises:
        EdgeDeployError: the command, the model or the data is wrong; what goes wrong with one target does not
            raise but stands in that target's result.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    request = DeployRequest(Path(model), targets, Path(output), calibration, evaluation)
    return run(replace(request, **options), progress)


def estimate(
    model: str | Path | Graph, target: str | Path, *, precision: str = "", rate_per_s: float | None = None
) -> TargetEstimate:
    """Estimate latency, energy and memory of ``model`` on ``target`` from the cost model alone.

    Capture once (`edgedeploy.estimation.graph_of`) and pass the graph to ask often, as an architecture search does:
    a hundred ops then take milliseconds.

    Args:
        model: a model file, a bundle with a float ONNX model, or a captured graph.
        target: one profile name or file.
        precision: an artefact's scheme; by default that of the profile.
        rate_per_s: inferences a second, for power; back to back by default.

    Raises:
        EdgeDeployError: no such model or target, a shape that is not known, or a rate that makes no sense.
    """
    from edgedeploy.device_profiles.loader import load_profile
    from edgedeploy.estimation import estimate_graph, graph_of

    graph = graph_of(Path(model)) if isinstance(model, str | Path) else model
    return estimate_graph(graph, load_profile(target), precision=precision, rate_per_s=rate_per_s)


def verify(bundle: str | Path, *, device: str = "", require: Iterable[str] = ()) -> Verification:
    """Re-hash ``bundle``, replay its golden vectors and, with ``device``, measure there and append.

    Raises:
        EdgeDeployError: not a bundle, changed since it was built, or the replay could not be run.
    """
    return verify_bundle(Question(Path(bundle), device, tuple(require)))
