"""`OnnxRuntimeExporter`: every quantized form of a model that ONNX Runtime runs well on the target's CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import onnx

from edgedeploy.calibration.repair import Repaired, repaired
from edgedeploy.calibration.scheme import Scheme
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.onnxruntime import offers
from edgedeploy.exporters.onnxruntime.dynamic import quantize_dynamically
from edgedeploy.exporters.onnxruntime.embedding import quantize_embeddings
from edgedeploy.exporters.onnxruntime.linear import gemm_to_matmul
from edgedeploy.exporters.onnxruntime.mixed import keep_float
from edgedeploy.exporters.onnxruntime.normalization import vectorize_layer_norms
from edgedeploy.exporters.onnxruntime.onnx_file import write
from edgedeploy.exporters.onnxruntime.options import Options, read_options
from edgedeploy.exporters.onnxruntime.schemes import scheme_for
from edgedeploy.exporters.onnxruntime.stem import pad_stem_channels
from edgedeploy.exporters.onnxruntime.weight_only import ACCURACY_LEVEL, BLOCK_SIZE, quantize_weights
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import Artefact, ExportContext, Json, Selection
from edgedeploy.judge import FIDELITY
from edgedeploy.precision import DYNAMIC_INT8, FLOAT32, INT8, WEIGHT_ONLY_4, WEIGHT_ONLY_8, Precision
from edgedeploy.tensors import Contract, PortSpec, TensorSpec


class OnnxRuntimeExporter:
    """Yields one .onnx file a candidate; names, shapes and dtypes at the boundary are the captured graph's."""

    selection = Selection.FASTEST

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield the candidates that make sense for the graph and the target's instruction set, preferred first.

        Raises:
            InputError: for an unknown option, an unknown or unsuitable pinned candidate, or a scheme that the
                profile's CPU cannot run.
        """
        options = read_options(context.profile, context.options)
        scheme = scheme_for(context.profile)
        offered = offers.offers(context.graph, data_free=context.calibration.data_free)
        if not options.mixed_precision:
            offered = {**offered, offers.MIXED: "the option mixed_precision=false switches it off"}
        making = _Making(context, scheme, options, offered)
        for name in _chosen(context.pinned, offered):
            if name == offers.MIXED and context.pinned is None and not _missed_quality(context):
                continue
            context.progress.note(f"Making {name}")
            if name == offers.MIXED and context.pinned is None and not making.kept_float[0]:
                context.progress.note(
                    f"{name} would repeat {offers.STATIC}: on calibration samples no layer is to blame"
                )
                continue
            yield making.artefact(name)


def _missed_quality(context: ExportContext) -> bool:
    """Mixed precision is the cure where plain INT8 missed a gate that float layers can mend."""
    curable = set(FIDELITY)
    return any(item.candidate == offers.STATIC and curable & set(item.failed_gates) for item in context.rejections)


def _chosen(pinned: str | None, offered: Mapping[str, str]) -> tuple[str, ...]:
    possible = tuple(name for name in offers.ORDER if not offered[name])
    if pinned is None:
        return possible
    if pinned not in offered:
        raise InputError(
            f"The ONNX Runtime backend has no candidate {pinned!r}.",
            remedy=f"Choose one of: {', '.join(possible)}.",
        )
    if offered[pinned]:
        raise InputError(
            f"Candidate {pinned!r} makes no sense for this model.",
            found=offered[pinned],
            remedy=f"Choose one of: {', '.join(possible)}.",
        )
    return (pinned,)


@dataclass(frozen=True)
class _Making:
    """What every candidate is made from."""

    context: ExportContext
    scheme: Scheme
    options: Options
    offered: Mapping[str, str]

    @cached_property
    def subject(self) -> Repaired:
        """The graph that static candidates quantize, and its calibration."""
        context = self.context
        return repaired(self.options.repairs, context.graph, context.calibration, self.scheme, context.progress)

    @cached_property
    def kept_float(self) -> tuple[frozenset[str], Json]:
        """The nodes that mixed precision leaves float, and what the manifest says of them."""
        correct = self.options.repairs.bias_correction
        return keep_float(self.context, self.scheme, self.subject, bias_correction=correct)

    def artefact(self, name: str) -> Artefact:
        context = self.context
        folder = context.work_dir / name
        folder.mkdir(parents=True)
        path = folder / f"{context.model.name}.onnx"
        model, label, precision, details = self._model(name)
        write(model, context.graph, path)
        return Artefact(
            candidate=name,
            folder=folder,
            main=Path(path.name),
            contract=_contract(context.graph),
            scheme=label,
            figures=(Figure("size_mb", path.stat().st_size / 1e6, Evidence.ARTEFACT, how="size of the .onnx file"),),
            details={
                **details,
                "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
                "versions": {"onnx": version("onnx"), "onnxruntime": version("onnxruntime")},
                "not_offered": {other: why for other, why in self.offered.items() if why},
            },
            data_free=context.calibration.data_free,
            precision=precision,
        )

    def _model(self, name: str) -> tuple[onnx.ModelProto, str, Precision, dict[str, Json]]:
        """The model of one candidate, its scheme's name, its arithmetic, and what is special about it."""
        graph, scheme = self.context.graph, self.scheme
        if name in (offers.STATIC, offers.MIXED):
            quantized, integers = self._quantized(mixed=name == offers.MIXED)
            return quantized, scheme.name, INT8, integers
        model = gemm_to_matmul(graph.model)
        details: dict[str, Json] = {
            "vectorized_layer_norms": vectorize_layer_norms(model, _specs(graph)),
            "fusion": "by ONNX Runtime when it loads the file (extended optimizations)",
        }
        if name == offers.FLOAT:
            return model, "float32", FLOAT32, details
        if name == offers.WEIGHT_ONLY_4:
            details |= {"weights": "int4", "block_size": BLOCK_SIZE, "accuracy_level": ACCURACY_LEVEL}
            return quantize_weights(model, 4), "weight-only-int4", WEIGHT_ONLY_4, details
        details["int8_embeddings"] = quantize_embeddings(model)
        if name == offers.WEIGHT_ONLY_8:
            details |= {"weights": "int8", "block_size": BLOCK_SIZE, "accuracy_level": ACCURACY_LEVEL}
            return quantize_weights(model, 8), "weight-only-int8", WEIGHT_ONLY_8, details
        details |= {"activations": "uint8 at run time", "weights": "int8", "weight_range": _span(scheme)}
        return quantize_dynamically(model, scheme), f"{scheme.name}-dynamic", DYNAMIC_INT8, details

    def _quantized(self, *, mixed: bool) -> tuple[onnx.ModelProto, dict[str, Json]]:
        """The static candidate, or the one with some layers float."""
        from edgedeploy.calibration.clipping import clipped_fraction
        from edgedeploy.calibration.quantizer import quantize

        scheme, subject, correct = self.scheme, self.subject, self.options.repairs.bias_correction
        integers: dict[str, Json] = {
            "activations": scheme.activation.dtype,
            "weights": scheme.weight.dtype,
            "weight_range": _span(scheme),
            **subject.details,
        }
        exclude: frozenset[str] = frozenset()
        if mixed:
            exclude, integers["kept_float"] = self.kept_float
        table = subject.calibration.table_for(scheme)
        model = quantize(subject.graph, table, scheme, exclude=exclude, bias_correction=correct)
        # Counted here, for an equalized graph's tensors have other values than the captured one's of the same names.
        integers["clipped_fraction"] = clipped_fraction(model, table)
        if not scheme.activation.signed:  # measured on x86 only
            integers["padded_stems"] = pad_stem_channels(model)
        return model, integers


def _specs(graph: Graph) -> dict[str, TensorSpec]:
    return {tensor.name: tensor for op in graph.facts for tensor in (*op.inputs, *op.outputs)}


def _span(scheme: Scheme) -> list[int]:
    return [scheme.weight.qmin, scheme.weight.qmax]


def _contract(graph: Graph) -> Contract:
    convolved = {tensor.name for op in graph.facts if op.op_type == "Conv" for tensor in op.inputs}

    def port(tensor: TensorSpec) -> PortSpec:
        layout = "NCHW" if tensor.name in convolved and len(tensor.shape) == 4 else ""
        return PortSpec(tensor.name, tensor.name, tensor.shape, tensor.dtype, layout=layout)

    return Contract(tuple(map(port, graph.inputs)), tuple(map(port, graph.outputs)))
