"""What a file holds, told by its bytes and without executing anything in it."""

from __future__ import annotations

from pathlib import Path

from edgedeploy.errors import EdgeDeployError, InputError
from edgedeploy.plain_text import joined
from edgedeploy.untrusted import check_regular, shown


def describe(path: Path, *, layers: bool = False) -> str:
    """Describe a bundle, a .dlc, a .tflite or a model file in a few lines.

    Raises:
        InputError: missing, damaged, or of no known kind.
    """
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        there, folder = False, False
    if not there:
        raise InputError(f"There is nothing at {shown(path)}.")
    if folder:
        return _bundle(path)
    check_regular(path)
    if path.suffix == ".dlc":
        from edgedeploy.exporters.snpe.describe import describe_dlc

        return describe_dlc(path, layers=layers)
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[4:] == b"TFL3":
        from edgedeploy.targets.tflite_micro.listing import describe_tflite

        try:
            return describe_tflite(path, layers=layers)
        except EdgeDeployError:
            raise
        except Exception as error:  # flatbuffers checks no offset: a damaged file fails anywhere
            raise InputError(
                f"The .tflite file {str(path)!r} is damaged.",
                found=f"{type(error).__name__}: {str(error)[:150]}",
                remedy="Copy or download it again.",
            ) from error
    return _model(path, layers)


def _bundle(folder: Path) -> str:
    from edgedeploy.bundle.read import read_bundle

    manifest, measurements = read_bundle(folder)
    artefact = manifest.artefact
    lines = [
        f"bundle of {manifest.model.name} for {manifest.target} ({manifest.backend})",
        f"  artefact: {artefact.main}, candidate {artefact.candidate}, scheme {artefact.scheme}",
        *(f"  input:  {port.name} {port.shape} {port.dtype} {port.layout}".rstrip() for port in artefact.inputs),
        *(f"  output: {port.name} {port.shape} {port.dtype} {port.layout}".rstrip() for port in artefact.outputs),
    ]
    for run in measurements.runs:
        verdicts = ", ".join(f"{item.name} {item.outcome}" for item in run.verdicts)
        lines.append(f"  run on {run.device} at {run.at}: exit code {run.exit_code}; {verdicts}")
    return joined(lines)


def _model(path: Path, layers: bool) -> str:
    from edgedeploy.model.container import Container, sniff

    container = sniff(path)
    lines = [f"{path.name}: {container.value}, {path.stat().st_size / 1e6:.2f} MB"]
    if container is Container.ONNX:
        from edgedeploy.graph.graph import graph_from_onnx
        from edgedeploy.model.onnx_source import read_onnx

        model = read_onnx(path)
        try:
            graph = graph_from_onnx(model)
        except EdgeDeployError:
            raise
        except Exception as error:  # shape inference raises many kinds for a graph that cannot be
            raise InputError(
                f"The graph of {str(path)!r} cannot be read.", found=f"{type(error).__name__}: {str(error)[:200]}"
            ) from error
        lines.append(f"  {graph.parameters:,} parameters, {graph.macs:,} multiply-accumulates, {len(graph.facts)} ops")
        lines += [f"  input:  {spec}" for spec in graph.inputs] + [f"  output: {spec}" for spec in graph.outputs]
        if layers:
            lines += [
                f"  {op.name}: {op.op_type}, {op.macs:,} MACs, {op.parameters:,} parameters" for op in graph.facts
            ]
    return joined(lines)
