"""`SnpeExporter`: A8W8, then mixed, then A16W8, each compiled, read back and bundled for the phone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx

from edgedeploy.errors import InputError, MissingToolError, UnsupportedOpError
from edgedeploy.exporters.snpe import precision
from edgedeploy.exporters.snpe.artefact import Built, collect
from edgedeploy.exporters.snpe.boundary import boundaries, strip_boundary
from edgedeploy.exporters.snpe.checks import BACKEND
from edgedeploy.exporters.snpe.compile import compile_graph
from edgedeploy.exporters.snpe.dlc.reader import read_dlc
from edgedeploy.exporters.snpe.prepare import Prepared, as_fed, prepare
from edgedeploy.exporters.snpe.qnn.install import INSTALL, LICENCE, QnnInstall, find_qnn
from edgedeploy.exporters.snpe.readback import check_readback, float_ops
from edgedeploy.exporters.snpe.sdk.convert import convert
from edgedeploy.exporters.snpe.sdk.find import Sdk, find_sdk
from edgedeploy.exporters.snpe.settings import FIRST_FLOAT_ARCH, Settings, settings_of
from edgedeploy.exporters.snpe.target_proof import check_target, read_proof
from edgedeploy.interfaces import Artefact, ExportContext, Selection
from edgedeploy.progress import Progress

Recipe = Callable[[Prepared], precision.Precision]

#: Candidates, the fastest on the device first.
RECIPES: dict[str, Recipe] = {
    "a8w8": lambda prepared: precision.a8w8(prepared.graph, prepared.carried),
    "mixed": lambda prepared: precision.mixed(prepared.graph, prepared.table, prepared.carried),
    "a16w8": lambda prepared: precision.a16w8(prepared.graph),
}
_GOLDEN_SAMPLES = 2


class SnpeExporter:
    """Makes DLC files and Hexagon context binaries for Snapdragon NPUs."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield A8W8, mixed and A16W8; each later one is a cure for the one before.

        Raises:
            MissingToolError: neither toolchain is installed.
            InputError: an option, a shape or a type that Hexagon cannot take.
            UnsupportedOpError: ops that QNN refuses, with Qualcomm's reasons.
            ToolFailedError: the compiler failed, or wrote something else than it was given.

        """
        settings = settings_of(context.profile, context.options)
        if context.pinned is not None and context.pinned not in RECIPES:
            raise InputError(
                f"The Snapdragon backend has no candidate {context.pinned!r}.",
                remedy=f"Choose from {', '.join(RECIPES)}.",
            )
        toolchain = choose_toolchain(settings.toolchain)
        if isinstance(toolchain, QnnInstall):
            tell_licence(context.progress)
        elif settings.allow_cpu_nodes:
            raise InputError(
                "The Qualcomm SDK writes one DLC for the NPU; it cannot leave ops to the CPU.",
                found=f"allow_cpu_nodes={settings.allow_cpu_nodes} with the SDK at {toolchain.variable}",
                remedy="Add the option toolchain=onnxruntime-qnn, or leave allow_cpu_nodes out.",
            )
        allowed = settings.allow_cpu_nodes
        repairs = settings.repairs
        prepared = prepare(
            context.graph,
            context.calibration,
            context.progress,
            allow_cpu_nodes=allowed,
            repairs=repairs,
            states=context.states,
        )
        names = [context.pinned] if context.pinned else list(RECIPES)
        before: frozenset[str] | None = None
        for name in names:
            chosen = RECIPES[name](prepared)
            if name == "mixed" and not context.pinned and chosen.other == before:
                continue  # no tensor is fragile: the same graph again would fail again
            before = chosen.other
            yield self._make(name, chosen, prepared, settings, toolchain, context)

    def _make(
        self,
        name: str,
        chosen: precision.Precision,
        prepared: Prepared,
        settings: Settings,
        toolchain: QnnInstall | Sdk,
        context: ExportContext,
    ) -> Artefact:
        folder, work = context.work_dir / name, context.work_dir / f"{name}.work"
        work.mkdir(parents=True)
        correct = settings.repairs.bias_correction
        quantized = precision.apply(chosen, prepared.graph, prepared.table, bias_correction=correct)
        model = strip_boundary(quantized) if settings.quantized_io else quantized
        ports = boundaries(quantized, model)
        path = work / "model_qdq.onnx"
        onnx.save(model, path)
        notes = (f"{len(chosen.other)} tensors at the other precision",) if chosen.other else ()
        start = Built(name, chosen.scheme.name, path, ports, notes)
        if isinstance(toolchain, QnnInstall):
            complete = _with_onnxruntime(toolchain, start, model, settings, work)
        else:
            dlc = convert(toolchain, path, prepared, settings, context, work / "sdk")
            name_of_sdk = f"Qualcomm SDK at {toolchain.variable}, {toolchain.kind}"
            complete = replace(start, toolchain=name_of_sdk, dlc=dlc)
        taken = itertools.islice(context.calibration.data, _GOLDEN_SAMPLES)
        samples = [as_fed(sample, prepared.fed) for sample in taken]
        return collect(complete, folder, prepared, settings, samples, context.calibration.data_free)


def choose_toolchain(wanted: str) -> QnnInstall | Sdk:
    """Take the SDK where it is installed and asked for or not excluded, else onnxruntime-qnn.

    Raises:
        MissingToolError: with both ways to get one.
        InputError: an SDK variable that points at no SDK.

    """
    sdk = find_sdk() if wanted in ("auto", "sdk") else None
    if sdk is not None:
        return sdk
    install = find_qnn() if wanted in ("auto", "onnxruntime-qnn") else None
    if install is None:
        raise MissingToolError(
            "A toolchain that writes DLC files",
            install=f"Install one: {INSTALL}.",
            found=f"toolchain={wanted}; neither QAIRT_SDK_ROOT, QNN_SDK_ROOT nor SNPE_ROOT is set"
            + ("" if wanted == "sdk" else ", and onnxruntime-qnn is not installed"),
        )
    return install


_told: list[str] = []


def tell_licence(progress: Progress) -> None:
    """Show the licence notice once a process."""
    if not _told:
        _told.append(LICENCE)
        progress.note(LICENCE)


def _with_onnxruntime(
    install: QnnInstall, start: Built, model: onnx.ModelProto, settings: Settings, work: Path
) -> Built:
    compiled = compile_graph(
        install, start.qdq, settings.hexagon, settings.verify, work, allow_cpu_nodes=settings.allow_cpu_nodes
    )
    proof = read_proof(compiled.context_binary)
    check_target(proof, settings.hexagon.arch)
    parts = [read_dlc(path) for path in compiled.dlcs]
    floats = [op for part in parts for op in float_ops(part)]
    if settings.hexagon.arch < FIRST_FLOAT_ARCH and floats:
        raise UnsupportedOpError(f"{BACKEND} V{settings.hexagon.arch}, which computes in integers only,", floats)
    return replace(
        start,
        toolchain=f"onnxruntime-qnn {install.version}, QAIRT {proof.runtime}",
        dlc=None if compiled.cpu_nodes else compiled.dlcs[0],
        compiled=compiled,
        proof=proof,
        read_back=check_readback(parts, model, compiled.trace),
    )
