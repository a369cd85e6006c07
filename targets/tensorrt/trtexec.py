"""What trtexec and tegrastats leave behind, read into figures.

Formats: ``--exportTimes`` and ``--exportOutput`` as NVIDIA/TensorRT samples/common/sampleReporting.cpp writes them;
tegrastats lines as in the Jetson Linux developer guide (``VDD_IN 5123mW/5010mW``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.tensors import Contract

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The rail of a whole module, newest boards first; a value is "now/average" in mW.
_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_GPU_SOC")
_BANNER = re.compile(r"Compute Capability: (\d+\.\d+)")
_THROUGHPUT = re.compile(r"Throughput: ([0-9.]+) qps")
_GPU = re.compile(r"Selected Device: (.+)")


def read_times(path: Path) -> dict[str, float]:
    """p50, p90 and p99 of the latency in ms, copies included."""
    try:
        values = [float(entry["latencyMs"]) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable("--exportTimes", error) from error
    if not values:
        raise _unreadable("--exportTimes", "no inference was timed")
    return {f"p{point}": float(np.percentile(values, point)) for point in (50, 90, 99)}


def read_outputs(path: Path, contract: Contract) -> dict[str, NDArray[np.generic]]:
    """Outputs of one inference by captured name, in the contract's dtypes."""
    try:
        entries = {entry["name"]: entry for entry in json.loads(path.read_text())}
        result = {}
        for port in contract.outputs:
            entry = entries[port.name]
            shape = tuple(int(size) for size in entry["dimensions"].split("x"))
            result[port.source_name] = np.array(entry["values"], dtype=port.dtype).reshape(shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable("--exportOutput", error) from error
    return result


def read_log(text: str) -> dict[str, str]:
    """GPU, compute capability and throughput from trtexec's log, where it says them."""
    found = {"compute_capability": _BANNER, "throughput_per_s": _THROUGHPUT, "gpu": _GPU}
    matches = {name: pattern.search(text) for name, pattern in found.items()}
    return {name: match[1].strip() for name, match in matches.items() if match}


def read_power(text: str) -> tuple[str, float] | None:
    """The module's rail and its mean in mW over the log's lines; ``None`` where no known rail is in it."""
    for rail in _RAILS:
        values = [float(value) for value in re.findall(rf"\b{rail} (\d+)(?:mW)?/\d+", text)]
        if values:
            return rail, float(np.mean(values))
    return None


def version(number: str) -> str:
    """The version behind trtexec's number: "8502" -> "8.5.2", "100300" -> "10.3.0"."""
    value = int(number)
    major, rest = divmod(value, 10000 if value >= 100000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _unreadable(what: str, reason: object) -> ToolFailedError:
    return ToolFailedError(
        f"The file that trtexec wrote for {what} cannot be read.",
        found=str(reason)[:500],
        remedy="Run build.sh on the device by hand and read built/build.log.",
    )
