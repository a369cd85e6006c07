"""Run a DLC on a phone behind adb: push, run, pull, and what the phone itself says of speed and power."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.snpe.golden import real, write_inputs
from edgedeploy.exporters.snpe.prepare import as_fed
from edgedeploy.exporters.snpe.sdk.find import VARIABLES
from edgedeploy.interfaces import RunResult
from edgedeploy.targets.snpe.gauges import measure
from edgedeploy.targets.transports import open_transport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.interfaces import Artefact, RunJob
    from edgedeploy.targets.transports import Transport
    from edgedeploy.tensors import PortSpec

FOLDER = "/data/local/tmp/edgedeploy"
_MOST_SAMPLES = 100
_RUN_TIMEOUT_S = 600.0
_ADSP = ";/system/lib/rfsa/adsp;/vendor/lib/rfsa/adsp;/dsp"


@dataclass(frozen=True)
class PhoneRuntime:
    """The SDK's files for the phone: programs and libraries to push."""

    programs: tuple[Path, ...]
    libraries: tuple[Path, ...]


def find_runtime(arch: int, environment: Mapping[str, str] = os.environ) -> PhoneRuntime:
    """Find snpe-net-run and its libraries in the SDK that the environment names.

    Raises:
        MissingToolError: no SDK is named, or it lacks a file.

    """
    for variable in VARIABLES:
        root = Path(environment.get(variable, ""))
        programs = root / "bin" / "aarch64-android"
        runner = programs / "snpe-net-run"
        if not environment.get(variable) or not runner.is_file():
            continue
        plain = sorted((root / "lib" / "aarch64-android").glob("libS[Nn][Pp][Ee]*.so"))
        skeletons = sorted((root / "lib" / f"hexagon-v{arch}" / "unsigned").glob("*.so"))
        if plain and skeletons:
            optional = [path for path in (programs / "snpe-throughput-net-run",) if path.is_file()]
            return PhoneRuntime((runner, *optional), (*plain, *skeletons))
        raise MissingToolError(
            f"The phone's runtime for Hexagon V{arch}",
            install=f"Install an SDK release that supports V{arch}, or point {variable} at it.",
            found=f"{root}: {len(plain)} SNPE libraries, {len(skeletons)} Hexagon V{arch} ones",
        )
    raise MissingToolError(
        "The Qualcomm AI Runtime SDK, whose snpe-net-run and libraries the phone needs,",
        install="Install it from https://qpm.qualcomm.com and set QAIRT_SDK_ROOT to its folder.",
    )


def run_on_phone(artefact: Artefact, job: RunJob) -> RunResult:
    """Run a prefix of the samples on the phone; evidence ``device``.

    Raises:
        MissingToolError: adb or the phone's runtime is not installed.
        ToolFailedError: the phone cannot be reached, the run failed, timed out or left no or wrong outputs.

    """
    transport = open_transport(job.device)
    runtime = find_runtime(int(artefact.details["hexagon_arch"]))
    count = min(len(job.samples), int(artefact.details.get("simulator_samples", 0)) or _MOST_SAMPLES)
    phone, notes = _identify(transport, artefact, job)
    _push(transport, artefact, job, runtime, count)
    environment = {"LD_LIBRARY_PATH": FOLDER, "ADSP_LIBRARY_PATH": FOLDER + _ADSP}
    command = [f"{FOLDER}/snpe-net-run", "--container", f"{FOLDER}/{artefact.main.name}", "--input_list",
               f"{FOLDER}/inputs/input_list.txt", "--use_dsp", "--perf_profile", "burst",
               "--output_dir", f"{FOLDER}/out"]  # fmt: skip
    if artefact.scheme and any(port.scale is not None for port in artefact.contract.inputs):
        command += ["--use_native_input_files", "--use_native_output_files"]
    done = transport.run(command, timeout_s=_RUN_TIMEOUT_S, env=environment)
    if done.returncode:
        raise ToolFailedError(
            f"snpe-net-run failed on {transport.describe()} with code {done.returncode}.",
            found=_tail(done.stderr or done.stdout),
            remedy="Check that the phone's SoC is the target's and that the SDK is not older than the manifest's "
            "minimum_qairt_runtime.",
        )
    pulled = job.work_dir / "phone"
    transport.pull(f"{FOLDER}/out", pulled)
    outputs = _outputs(artefact, pulled, count)
    figures = measure(transport, runtime.programs, artefact.main.name, FOLDER, environment) if job.measure else ()
    details = {"device": transport.describe(), "phone": phone, "samples": count}
    return RunResult(outputs, Evidence.DEVICE, tuple(figures), tuple(notes), details)


def _identify(transport: Transport, artefact: Artefact, job: RunJob) -> tuple[dict[str, str], list[str]]:
    """What the phone says it is; another SoC than the profile's is told, since its figures are not the target's."""
    phone = {}
    for key in ("ro.product.model", "ro.soc.model", "ro.board.platform", "ro.build.version.release"):
        done = transport.run(["getprop", key], timeout_s=60)
        phone[key] = done.stdout.strip() if done.returncode == 0 else ""
    wanted = job.profile.device.soc.upper()
    found = phone["ro.soc.model"].upper()
    if wanted and found and wanted != found:
        raise InputError(
            f"The phone is not a {job.profile.name}.",
            found=f"{found} ({phone['ro.product.model']}), expected {wanted}",
            remedy="Connect the right phone, or name the target of this one.",
        )
    return phone, [] if found else ["the phone does not say which SoC it has; its figures may not be the target's"]


def _push(transport: Transport, artefact: Artefact, job: RunJob, runtime: PhoneRuntime, count: int) -> None:
    fed = artefact.details.get("fed_as", {})
    inputs = job.work_dir / "inputs"
    ports = artefact.contract.inputs
    samples = []
    for sample in job.samples.take(count):
        feeds = as_fed(sample, fed)
        samples.append({port.name: feeds[port.source_name] for port in ports})
    write_inputs(inputs, samples, ports, f"{FOLDER}/inputs")
    cleared = transport.run(["rm", "-rf", FOLDER], timeout_s=60)
    if cleared.returncode:
        raise ToolFailedError(f"{FOLDER} on {transport.describe()} cannot be cleared.", found=_tail(cleared.stderr))
    sent = [(artefact.path, artefact.main.name), (inputs, "inputs")]
    sent += [(path, path.name) for path in (*runtime.programs, *runtime.libraries)]
    for local, name in job.progress.track(sent, what=f"Copying to {transport.describe()}", total=len(sent)):
        transport.push(local, f"{FOLDER}/{name}")
    for program in runtime.programs:
        transport.run(["chmod", "755", f"{FOLDER}/{program.name}"], timeout_s=60)


def _outputs(artefact: Artefact, folder: Path, count: int) -> dict[str, NDArray[np.generic]]:
    outputs: dict[str, NDArray[Any]] = {}
    for port in artefact.contract.outputs:
        values = [_read(folder / f"Result_{index}", port) for index in range(count)]
        outputs[port.source_name] = np.stack(values)
    return outputs


def _read(folder: Path, port: PortSpec) -> NDArray[np.generic]:
    """One output; snpe-net-run replaces what a file name cannot hold and may append ``_native``."""
    plain = port.name.replace("/", "_").replace(":", "_")
    for stem in (port.name, plain, f"{port.name}_native", f"{plain}_native"):
        path = folder / f"{stem}.raw"
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            break
    else:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))) if folder.is_dir() else "no such folder"
        raise ToolFailedError(f"snpe-net-run left no output {port.name!r} in {folder.name}.", found=found)
    dtype = np.dtype(port.dtype)
    wanted = int(np.prod([int(size) for size in port.shape], dtype=np.int64)) * dtype.itemsize
    size = path.stat().st_size
    if size != wanted:
        raise ToolFailedError(
            f"Output {port.name!r} in {folder.name} has the wrong size.", found=f"{size} bytes, expected {wanted}"
        )
    stored = np.fromfile(path, dtype).reshape([int(size) for size in port.shape])
    return real(stored, port)


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-4:] if line.strip()) or "it said nothing"
