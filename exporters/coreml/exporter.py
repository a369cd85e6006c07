"""`CoreMlExporter`: one float16 (or compressed) mlprogram a route, and a FLOAT32 twin that proves the conversion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import EdgeDeployError, InputError, UnsupportedOpError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, ExportContext, Selection
from edgedeploy.precision import FLOAT16, FLOAT32, INT8, Precision
from edgedeploy.targets.coreml.feeds import feed
from edgedeploy.tensors import Contract

if TYPE_CHECKING:
    from edgedeploy.exporters.coreml.convert import Captured
    from edgedeploy.exporters.coreml.options import CoreMlOptions

PACKAGE = "model.mlpackage"
KEEP = "keep-float32"
_TWIN_SAMPLES = 4
_WATCHED_SAMPLES = 8


@dataclass(frozen=True)
class _Twin:
    """A route that converts, with its FLOAT32 package."""

    captured: Captured
    folder: Path
    modules: dict[str, str]


class CoreMlExporter:
    """Candidates, preferred first: the trace, the exported program, and each again with some operations in float32."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield packages; a cure (``…-keep-float32``) is made only after its plain form was rejected.

        Raises:
            UnsupportedOpError: where neither route converts, naming the torch op and its module.
            MissingToolError: where coremltools is not installed.
            InputError: for an option, or a model that is not a torch model.
        """
        from edgedeploy.exporters.coreml.options import read_options
        from edgedeploy.targets.coreml.vendor import coremltools

        coremltools()
        options = read_options(context.profile, context.options)
        _check(context, options)
        from edgedeploy.exporters.coreml.boundary import contract
        from edgedeploy.exporters.coreml.convert import ROUTES

        ports = contract(context.graph.inputs, context.graph.outputs, options)
        precision = "float32" if options.weights == "float32" else "float16"
        failures: list[UnsupportedOpError] = []
        made = 0
        for route in ROUTES:
            plain, cured = f"{route}-{precision}", f"{route}-{precision}-{KEEP}"
            if context.pinned not in (None, plain, cured):
                continue
            try:
                twin = _twin(context, options, ports, route)
            except UnsupportedOpError as error:
                context.progress.note(f"Core ML, {route} route: {error.what} {error.found}")
                failures.append(error)
                continue
            if context.pinned in (None, plain):
                made += 1
                yield _artefact(context, options, ports, twin, plain, frozenset())
            if precision == "float16" and context.pinned in (None, cured):
                keep = _in_danger(context, options, ports, twin)
                if keep:
                    made += 1
                    yield _artefact(context, options, ports, twin, cured, keep)
        if not made and failures:
            raise min(failures, key=lambda error: error.ops[0][0] == "conversion")
        if not made:
            raise InputError(f"The Core ML backend makes no candidate {context.pinned!r} of this model.")


def _check(context: ExportContext, options: CoreMlOptions) -> None:
    inputs = {spec.name: spec for spec in context.graph.inputs}
    if context.model.module() is None:
        raise InputError(
            "Core ML conversion starts from a torch model.",
            found=f"{context.model.name} is of kind {context.model.kind}",
            remedy="Give the .pt2, TorchScript or state_dict that the .onnx was exported from.",
        )
    for spec in inputs.values():
        if len(spec.shape) > 5:
            raise InputError(f"Input {spec.name!r} has {len(spec.shape)} axes; Core ML takes at most 5.")
    if options.image is not None:
        spec_or_none = inputs.get(options.image.name)
        if spec_or_none is None:
            raise InputError(f"image={options.image.name}: there is no such input.", found=", ".join(inputs))
        channels = len(options.image.mean)
        if len(spec_or_none.shape) != 4 or spec_or_none.shape[1] != channels or spec_or_none.dtype != "float32":
            raise InputError(
                f"Input {options.image.name!r} cannot be an image.",
                found=str(spec_or_none),
                remedy=f"A {options.image.color} image input is float32 of shape (1, {channels}, height, width).",
            )
    if options.labels:
        outputs = context.graph.outputs
        if len(outputs) != 1 or outputs[0].shape[-1] != len(options.labels):
            raise InputError(
                f"{len(options.labels)} class labels do not fit the model.",
                found=", ".join(map(str, outputs)),
                remedy="A classifier has one output, with one value a label.",
            )


def _twin(context: ExportContext, options: CoreMlOptions, ports: Contract, route: str) -> _Twin:
    """Capture, convert to FLOAT32, and write what torch computes beside it."""
    from edgedeploy.exporters.coreml.boundary import Boundary, example_inputs
    from edgedeploy.exporters.coreml.convert import capture, convert
    from edgedeploy.exporters.coreml.save import save_package

    module = context.model.module()
    assert module is not None  # _check has seen to it
    boundary = Boundary(module, context.model.inputs, _bind(context), options.image)
    try:
        fixed = all(isinstance(size, int) for port in ports.inputs for size in port.shape)
        captured = capture(boundary, example_inputs(context.model.inputs), route, fixed=fixed)
    except EdgeDeployError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedOpError("Core ML", [("conversion", route, first[:300])]) from error
    model = convert(captured, ports, options, float32=True)
    folder = context.work_dir / f"{route}-float32-twin"
    folder.mkdir(parents=True, exist_ok=True)
    save_package(model, folder / PACKAGE, {}, {})
    modules = _modules(model)
    (folder / "modules.json").write_text(json.dumps(modules, indent=1, sort_keys=True))
    samples = list(context.calibration.data.take(_TWIN_SAMPLES))
    samples = [_exact_pixels(ports, options, sample) for sample in samples]
    arrays: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        arrays |= {f"input/{number}/{name}": value for name, value in sample.items()}
        outputs = context.model.reference(sample)
        arrays |= {f"output/{number}/{name}": value for name, value in outputs.items()}
    np.savez(folder / "reference.npz", **arrays)
    return _Twin(captured, folder, modules)


def _exact_pixels(ports: Contract, options: CoreMlOptions, sample: dict[str, Any]) -> dict[str, Any]:
    """A sample whose image is one that 8-bit pixels can express, so that only the conversion is compared."""
    if options.image is None:
        return sample
    details = _image_details(options)
    pixels = feed(ports, details, sample)
    name = next(port.name for port in ports.inputs if port.source_name == options.image.name)
    shape = (1, -1, 1, 1)
    mean, std = (np.asarray(values).reshape(shape) for values in (options.image.mean, options.image.std))
    return sample | {options.image.name: ((pixels[name] - mean) / std).astype(np.float32)}


def _bind(context: ExportContext) -> Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    return context.model.arguments


def _artefact(
    context: ExportContext,
    options: CoreMlOptions,
    ports: Contract,
    twin: _Twin,
    candidate: str,
    keep: frozenset[str],
) -> Artefact:
    from edgedeploy.exporters.coreml.compress import compress_weights, quantize_activations
    from edgedeploy.exporters.coreml.convert import convert
    from edgedeploy.exporters.coreml.integration import integration_files
    from edgedeploy.exporters.coreml.save import save_package
    from edgedeploy.targets.coreml.advice import advise
    from edgedeploy.targets.coreml.package import open_package
    from edgedeploy.targets.coreml.program import read_function

    model = convert(twin.captured, ports, options, keep_float32=keep)
    details: dict[str, Any] = _image_details(options)
    if options.activations == "int8":
        samples = context.progress.track(
            context.calibration.data, what="Calibrating activations", total=len(context.calibration.data)
        )
        model = quantize_activations(model, (feed(ports, details, sample) for sample in samples))
    model = compress_weights(model, options.weights)
    folder = context.work_dir / candidate
    folder.mkdir(parents=True, exist_ok=True)
    user = {"edgedeploy.model_sha256": context.model.sha256, "edgedeploy.graph_sha256": context.graph.sha256}
    path = save_package(model, folder / PACKAGE, dict(options.metadata), user)
    package = open_package(path)
    function = read_function(package)
    advice = advise(function, twin.modules)
    compressed = sum(operation.type.startswith("constexpr_") for operation in function.block.operations)
    if not options.weights.startswith("float") and not compressed:
        context.progress.note(
            f"Core ML: weights={options.weights} changed nothing: every weight is under 2,048 elements, or its "
            "input channels do not divide into blocks of 32."
        )
    details |= {
        "route": twin.captured.route,
        "deployment_target": options.target,
        "specification_version": package.spec.specificationVersion,
        "weights": options.weights,
        "activations": options.activations,
        "compressed_weights": compressed,
        "kept_float32": sorted(keep),
        "float32_twin": f"../{twin.folder.name}",
        "ane_advice": [str(remark) for remark in advice],
        "versions": {name: version(name) for name in ("coremltools", "torch")},
    }
    if options.labels:
        details["labels"] = list(options.labels)
    artefact = Artefact(
        candidate=candidate,
        folder=folder,
        main=Path(PACKAGE),
        contract=ports,
        scheme=_scheme(options),
        figures=(Figure("size_mb", package.size_bytes / 1e6, Evidence.ARTEFACT, how="all files of the package"),),
        details=details,
        data_free=options.activations == "int8" and context.calibration.data_free,
        precision=_precision(options),
    )
    for name, code in integration_files(artefact, context.model.name).items():
        (folder / name).write_text(code, encoding="utf-8")
    return artefact


def _scheme(options: CoreMlOptions) -> str:
    if options.activations == "int8":
        return f"w{options.weights}-a{options.activations}"
    return options.weights if options.weights.startswith("float") else f"float16-{options.weights}-weights"


def _precision(options: CoreMlOptions) -> Precision:
    """The arithmetic; weights stored in fewer bits than they are computed in are read as they are computed."""
    if options.activations == "int8":
        return INT8
    return FLOAT32 if options.weights == "float32" else FLOAT16


def _image_details(options: CoreMlOptions) -> dict[str, Any]:
    if options.image is None:
        return {}
    image = options.image
    return {"image": {"input": image.name, "mean": list(image.mean), "std": list(image.std), "color": image.color}}


def _in_danger(context: ExportContext, options: CoreMlOptions, ports: Contract, twin: _Twin) -> frozenset[str]:
    """Operations that float16 cannot hold on calibration data, with their readers."""
    from edgedeploy.targets.coreml.overflow import keep_float32, watch

    details = _image_details(options)
    feeds = [feed(ports, details, sample) for sample in context.calibration.data.take(_WATCHED_SAMPLES)]
    findings = watch(twin.folder / PACKAGE, feeds, as_if_float16=True)
    for finding in findings:
        context.progress.note(f"Core ML: {finding}")
    return keep_float32(twin.folder / PACKAGE, findings)


def _modules(model: Any) -> dict[str, str]:
    """Source module by operation name, as coremltools recorded it while converting."""
    program = getattr(model, "_mil_program", None)
    if program is None:
        return {}
    from coremltools.converters.mil.mil.scope import ScopeSource

    found: dict[str, str] = {}
    for function in program.functions.values():
        for operation in function.operations:
            scopes = operation.scopes
            names = [str(name) for name in scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME) or ()]
            # "module" is our own wrapper; coremltools marks what it adds itself with a scope of its own.
            path = ".".join(name for name in names if name and name != "module" and "::" not in name)
            if path and not path.isdigit():
                found[operation.name] = path
    return found
