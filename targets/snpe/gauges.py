"""Latency and power as the phone itself reports them while it runs one inference after another.

snpe-throughput-net-run prints "Total throughput: X infs/sec" (Qualcomm's documentation of the tool); with one thread
its inverse is the mean time of an inference. The battery's gauge is in /sys/class/power_supply/battery: current_now in
microampere, voltage_now in microvolt (kernel.org, Documentation/ABI/testing/sysfs-class-power).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.evidence import Evidence, Figure, unknown

if TYPE_CHECKING:
    from edgedeploy.targets.transports import Transport

_SECONDS = 10
_THROUGHPUT = re.compile(r"throughput\D{0,20}?([0-9]+(?:\.[0-9]+)?)\s*inf", re.IGNORECASE)
_READING = re.compile(r"^gauge (-?\d+) (\d+)$", re.MULTILINE)
_BATTERY = "/sys/class/power_supply/battery"
_READ = f'echo "gauge $(cat {_BATTERY}/current_now) $(cat {_BATTERY}/voltage_now)"'


def measure(
    transport: Transport, programs: Sequence[Path], dlc: str, folder: str, environment: Mapping[str, str]
) -> list[Figure]:
    """Measure for ten seconds; what the phone does not tell is ``none``, with the reason."""
    if not any(program.name == "snpe-throughput-net-run" for program in programs):
        return [unknown("latency_ms", "the SDK has no snpe-throughput-net-run"), unknown("power_mw", "nothing ran")]
    idle = _idle_mw(transport)
    script = (
        f"{folder}/snpe-throughput-net-run --container {folder}/{dlc} --duration {_SECONDS} --use_dsp "
        f"--perf_profile burst & runner=$!; while kill -0 $runner 2>/dev/null; do {_READ}; sleep 1; done; wait $runner"
    )
    done = transport.run(["sh", "-c", script], timeout_s=_SECONDS + 120, env=environment)
    found = _THROUGHPUT.search(done.stdout)
    if done.returncode or found is None or float(found[1]) <= 0:
        why = f"snpe-throughput-net-run ended with code {done.returncode} and no throughput"
        return [unknown("latency_ms", why), unknown("power_mw", why)]
    rate = float(found[1])
    how = f"mean of {_SECONDS} s of snpe-throughput-net-run, one thread, burst profile"
    figures = [
        # One inference after another on an otherwise idle NPU: the mean stands for the median.
        Figure("latency_ms", 1000 / rate, Evidence.DEVICE, how=how, statistics=(("p50", 1000 / rate),)),
        Figure("throughput_per_s", rate, Evidence.DEVICE, how=how),
    ]
    return [*figures, _power(idle, _readings(done.stdout))]


def _idle_mw(transport: Transport) -> float | None:
    """Power of the idle phone, or ``None`` where its gauge cannot be used: it charges, or there is none."""
    status = transport.run(["cat", f"{_BATTERY}/status"], timeout_s=60)
    if status.returncode or status.stdout.strip() != "Discharging":
        return None
    done = transport.run(["sh", "-c", f"for i in 1 2 3; do {_READ}; sleep 1; done"], timeout_s=60)
    readings = _readings(done.stdout)
    return sum(readings) / len(readings) if readings else None


def _readings(text: str) -> list[float]:
    """Milliwatts; phones disagree on the sign of a discharge current."""
    return [abs(int(current)) * int(voltage) / 1e9 for current, voltage in _READING.findall(text)]


def _power(idle_mw: float | None, busy_mw: Sequence[float]) -> Figure:
    if idle_mw is None:
        return unknown(
            "power_mw", "the phone is charging over USB or has no battery gauge; connect it by adb over Wi-Fi"
        )
    if not busy_mw:
        return unknown("power_mw", "the battery gauge gave no reading during the run")
    value = max(0.0, sum(busy_mw) / len(busy_mw) - idle_mw)
    return Figure("power_mw", value, Evidence.DEVICE, how="battery gauge, whole phone while inferring minus idle")
