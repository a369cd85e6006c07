"""Energy of an inference and average power, from a device's fitted energies."""

from __future__ import annotations

from math import exp, hypot, log
from typing import TYPE_CHECKING

from edgedeploy.evidence import Evidence, Figure

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import EnergyCoefficients


def energy_figures(
    rates: EnergyCoefficients | None, latency: Figure, macs: int, bytes_moved: float, rate_per_s: float | None
) -> tuple[Figure, ...]:
    """Energy of one inference and average power; empty where nothing was fitted.

    With a rate, power is that of a duty cycle: ``energy * rate + idle * (1 - latency * rate)``; a rate the device
    cannot keep up with gives its full power. Without one, inferences follow each other.
    """
    if rates is None or latency.value is None:
        return ()
    seconds = latency.value / 1e3
    energy_mj = rates.active_mw * seconds + (rates.pj_per_mac * macs + rates.pj_per_byte * bytes_moved) * 1e-9
    busy = 1.0 if rate_per_s is None else min(1.0, rate_per_s * seconds)
    power_mw = busy * energy_mj / seconds + rates.idle_mw * (1 - busy)
    pace = "back to back" if rate_per_s is None else f"at {rate_per_s:g} inferences a second"
    how = f"energy model fitted on {rates.fitted_on}"
    band = rates.band90
    # Energy is power times time: both are uncertain, and independently so.
    spread = log(latency.high / latency.value) if latency.high else 0.0
    both = exp(hypot(log(band), spread))
    return (
        Figure("energy_mj", energy_mj, Evidence.ESTIMATE, how, energy_mj / both, energy_mj * both),
        Figure("power_mw", power_mw, Evidence.ESTIMATE, f"{how}; {pace}", power_mw / band, power_mw * band),
    )
