"""Torch → mlprogram, by either of the two routes that coremltools offers."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.exporters.coreml.boundary import Boundary, pixel_scale
from edgedeploy.exporters.coreml.options import CoreMlOptions
from edgedeploy.targets.coreml.vendor import coremltools
from edgedeploy.tensors import Contract

ROUTES = ("trace", "program")
"""TorchScript trace first: it converts recurrent layers, which the exported program's decompositions do not."""

_UNSUPPORTED = (
    re.compile(r"PyTorch convert function for op '([^']+)' not implemented"),
    re.compile(r"Unsupported fx node \S+, kind (\S+)"),
    re.compile(r"'([^']+)' of integers"),
)

#: What to write instead of an op that coremltools does not take.
_ALTERNATIVES = {
    "upsample_bicubic2d": "bilinear interpolation",
    "unfold": "torch.nn.functional.unfold's windows as slices or a convolution",
    "unique": "work done outside the model: its output shape depends on data",
    "masked_select": "torch.where: the shape then does not depend on data",
    "cdist": "squared distances through matmul",
    "fft_rfft": "a spectrogram through conv1d, or done outside the model",
}


@dataclass(frozen=True)
class Captured:
    """A model captured by one route."""

    route: str
    graph: Any


def capture(boundary: Boundary, example: tuple[torch.Tensor, ...], route: str, *, fixed: bool) -> Captured:
    """Trace or export the wrapped model; errors of torch pass through.

    A program exported with a dynamic batch computes with sizes, which no trace takes; where the package's shapes are
    ``fixed``, it is exported anew for the example's.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if route == "trace":
            model: torch.nn.Module = boundary
            if fixed and _computes_sizes(boundary):
                model = torch.export.export(boundary, example, strict=False).module()
            return Captured(route, torch.jit.trace(model, example, check_trace=False))  # type: ignore[no-untyped-call]
        program = torch.export.export(boundary, example, strict=False)
        return Captured(route, program.run_decompositions({}))


def _computes_sizes(boundary: Boundary) -> bool:
    graph = getattr(boundary.module, "graph", None)
    return isinstance(graph, torch.fx.Graph) and any(
        isinstance(node.meta.get("val"), torch.SymInt) for node in graph.nodes
    )


def convert(
    captured: Captured,
    ports: Contract,
    options: CoreMlOptions,
    *,
    float32: bool = False,
    keep_float32: frozenset[str] = frozenset(),
) -> Any:
    """Convert to an ``MLModel``, not loaded.

    Args:
        captured: what `capture` gave.
        ports: names, shapes and types at the boundary.
        options: deployment target, image input and labels.
        float32: keep everything float32.
        keep_float32: names of the MIL operations that stay float32 in a float16 program.

    Raises:
        UnsupportedOpError: naming the torch op, the module it stands in and what to write instead.
    """
    ct = coremltools()
    from edgedeploy.exporters.coreml.torch_ops import register

    register()
    precision = ct.precision.FLOAT32 if float32 or options.weights == "float32" else ct.precision.FLOAT16
    if keep_float32:
        precision = ct.transform.FP16ComputePrecision(op_selector=lambda op: _saved_name(op.name) not in keep_float32)
    arguments: dict[str, Any] = {}
    if options.labels:
        arguments["classifier_config"] = ct.ClassifierConfig(list(options.labels))
    else:
        arguments["outputs"] = [ct.TensorType(name=port.name, dtype=_numpy(port.dtype)) for port in ports.outputs]
    try:
        with quiet():
            return ct.convert(
                captured.graph,
                inputs=_inputs(ct, ports, options),
                convert_to="mlprogram",
                compute_precision=precision,
                minimum_deployment_target=ct.target[options.target],
                skip_model_load=True,
                **arguments,
            )
    except InputError:
        raise
    except Exception as error:
        raise _unsupported(captured, error) from error


def _saved_name(name: str) -> str:
    """The name an operation has in the saved program: traced ones are numbers until coremltools' last pass."""
    word = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return word if re.match(r"[a-zA-Z_]", word) else f"op_{word}"


def _inputs(ct: Any, ports: Contract, options: CoreMlOptions) -> list[Any]:
    inputs = []
    for port in ports.inputs:
        sizes: list[Any] = [size if isinstance(size, int) else 1 for size in port.shape]
        if options.batch and port.shape and port.shape[0] == "batch":
            low, high = options.batch
            sizes[0] = ct.RangeDim(lower_bound=low, upper_bound=high, default=low)
        if options.image is not None and port.source_name == options.image.name:
            pixels = pixel_scale(options.image)
            layout = ct.colorlayout[options.image.color]
            bias = list(pixels.bias) if options.image.color != "GRAYSCALE" else pixels.bias[0]
            inputs.append(ct.ImageType(port.name, sizes, scale=pixels.scale, bias=bias, color_layout=layout))
        else:
            inputs.append(ct.TensorType(port.name, sizes, dtype=_numpy(port.dtype)))
    return inputs


def _numpy(dtype: str) -> Any:
    return np.int32 if dtype == "int32" else np.float32


def _unsupported(captured: Captured, error: Exception) -> UnsupportedOpError:
    text = str(error)
    for pattern in _UNSUPPORTED:
        match = pattern.search(text)
        if match:
            op = match[1]
            base = op.split(".")[0].strip("_")
            instead = _ALTERNATIVES.get(base, "")
            why = f"use {instead}" if instead else "coremltools has no conversion for it"
            return UnsupportedOpError("Core ML", [(op, _where(captured, op), why)])
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return UnsupportedOpError("Core ML", [("conversion", captured.route, f"{type(error).__name__}: {first[:300]}")])


def _where(captured: Captured, op: str) -> str:
    """Path of the module in which an op of this name stands."""
    base = op.split(".", maxsplit=1)[0]
    if captured.route == "trace":
        graph = captured.graph.inlined_graph
        for node in graph.nodes():
            if node.kind().split("::")[-1].rstrip("_") == base.rstrip("_"):
                scope = str(node.scopeName()).split("/")[-1]
                return (
                    ".".join(re.findall(r"__module\.([\w.]+)", scope)[-1:]).removeprefix("module.")
                    or scope
                    or "forward"
                )
        return "forward"
    for node in captured.graph.graph.nodes:
        if node.op == "call_function" and base in str(node.target):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            if stack:
                return str(stack[-1][0]).removeprefix("module.") or "forward"
    return "forward"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Coremltools draws bars on stderr and warns about versions; our own progress stands in for both."""
    log = logging.getLogger("coremltools")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
