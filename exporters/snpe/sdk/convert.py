"""Convert and quantize with the SDK: its flags probed, its input lists written, its results checked.

Flags from Qualcomm's documentation of qairt-converter, qairt-quantizer, snpe-onnx-to-dlc and snpe-dlc-quantize; only
those that a tool's own ``--help`` lists are given, because they changed between releases.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edgedeploy.errors import ToolFailedError
from edgedeploy.exporters.snpe.boundary import Boundary
from edgedeploy.exporters.snpe.dlc.errors import DlcError
from edgedeploy.exporters.snpe.dlc.model import Role
from edgedeploy.exporters.snpe.dlc.reader import read_dlc
from edgedeploy.exporters.snpe.golden import write_inputs
from edgedeploy.exporters.snpe.prepare import Prepared, as_fed
from edgedeploy.exporters.snpe.sdk.find import Sdk
from edgedeploy.exporters.snpe.settings import Settings

if TYPE_CHECKING:
    from edgedeploy.interfaces import ExportContext

TIMEOUT_S = 1800.0
_CALIBRATION_SAMPLES = 64
_FLAG = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*")


def convert(sdk: Sdk, qdq: Path, prepared: Prepared, settings: Settings, context: ExportContext, work: Path) -> Path:
    """Write a quantized DLC; returns its path.

    qairt-converter takes our Q/DQ graph, so its DLC has our scales. The older pair cannot: it gets the float graph
    and the calibration samples, and calibrates again.

    Raises:
        ToolFailedError: a tool failed, took too long, or wrote no DLC that can be read and has the model's boundary.

    """
    work.mkdir(parents=True)
    quantized = work / "quantized.dlc"
    if sdk.kind == "qairt-converter":
        _run(sdk, sdk.converter, ["--input_network", str(qdq), "--output_path", str(quantized)], quantized)
    else:
        source, plain = work / "float.onnx", work / "float.dlc"
        onnx.save(prepared.graph.model, source)
        _run(sdk, sdk.converter, ["--input_network", str(source), "--output_path", str(plain)], plain)
        _quantize(sdk, plain, quantized, prepared, settings, context, work)
    _check(quantized, prepared)
    return quantized


def _quantize(
    sdk: Sdk,
    plain: Path,
    quantized: Path,
    prepared: Prepared,
    settings: Settings,
    context: ExportContext,
    work: Path,
) -> None:
    samples = itertools.islice(context.calibration.data, _CALIBRATION_SAMPLES)
    ports = [
        Boundary(port.name, port.name, port.dtype, tuple(int(size) for size in port.shape))
        for port in prepared.graph.inputs
    ]
    folder = work / "inputs"
    listed = write_inputs(folder, [as_fed(sample, prepared.fed) for sample in samples], ports, str(folder.resolve()))
    known = _flags(sdk, sdk.quantizer)
    arguments = ["--input_dlc", str(plain), "--input_list", str(listed), "--output_dlc", str(quantized)]
    for flag, value in (
        ("--weights_bitwidth", "8"),
        ("--act_bitwidth", "8"),
        ("--bias_bitwidth", "32"),
        ("--use_per_channel_quantization", ""),
        ("--axis_quant", ""),
        ("--enable_htp", ""),
        ("--htp_socs", context.profile.device.soc.lower()),
    ):
        older = flag == "--axis_quant" and "--use_per_channel_quantization" in known
        if flag in known and not older and (value or not flag.endswith("socs")):
            arguments += [flag, *([value] if value else [])]
    _run(sdk, sdk.quantizer, arguments, quantized)


def _flags(sdk: Sdk, tool: Path) -> frozenset[str]:
    done = _start(sdk, [str(tool), "--help"])
    return frozenset(_FLAG.findall(done.stdout + done.stderr))


def _run(sdk: Sdk, tool: Path, arguments: Sequence[str], output: Path) -> None:
    done = _start(sdk, [str(tool), *arguments])
    said = " | ".join(line.strip() for line in (done.stderr or done.stdout).splitlines()[-4:] if line.strip())
    if done.returncode:
        raise ToolFailedError(
            f"{tool.name} failed with code {done.returncode}.",
            found=said or "it said nothing",
            remedy="Run it by hand with the same arguments: " + " ".join([tool.name, *arguments]),
        )
    if not output.is_file() or output.stat().st_size == 0:
        raise ToolFailedError(
            f"{tool.name} reported success and wrote nothing.",
            found=f"no {output.name}; it said: {said or 'nothing'}",
            remedy="Check the SDK's installation (its own check-python-dependency), or unset "
            f"{sdk.variable} to use onnxruntime-qnn.",
        )


def _start(sdk: Sdk, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env={**os.environ, **sdk.environment()},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"{Path(argv[0]).name} took longer than {TIMEOUT_S:.0f} s and was stopped.") from None
    except OSError as problem:
        raise ToolFailedError(
            f"{Path(argv[0]).name} cannot be started.",
            found=str(problem),
            remedy=f"Check that {sdk.variable} points at an SDK for this machine.",
        ) from problem


def _check(path: Path, prepared: Prepared) -> None:
    """The DLC can be read and has the model's inputs and outputs; the SDK names its inner tensors as it likes."""
    try:
        dlc = read_dlc(path)
    except DlcError as problem:
        raise ToolFailedError(
            "The Qualcomm SDK wrote a DLC that cannot be read back.", found=problem.found
        ) from problem
    for role, ports in ((Role.INPUT, prepared.graph.inputs), (Role.OUTPUT, prepared.graph.outputs)):
        stored = {tensor.name for graph in dlc.graphs for tensor in graph.by_role(role)}
        wanted = {port.name for port in ports}
        if stored != wanted:
            raise ToolFailedError(
                f"The Qualcomm SDK wrote a DLC with other {role}s than the model's.",
                found=f"{sorted(stored)}, expected {sorted(wanted)}",
            )
