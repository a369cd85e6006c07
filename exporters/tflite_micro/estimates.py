"""Flash and RAM before anything was linked or run: estimates with their 90 % bands, and what makes them up."""

from __future__ import annotations

from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.ir import TfliteModel

KIB = 1024

#: Code of the TFLite Micro runtime (interpreter, allocator, flatbuffer reader), KB: (likely, low, high). A prior from
#: the project's statement that the core fits in 16 KB on a Cortex-M3 and from example binaries; not linked here.
RUNTIME_KB = (32.0, 16.0, 60.0)

#: Code of one kernel with its helpers, KB: (likely, low, high); CMSIS-NN convolutions lie at the high end.
KERNEL_KB = (5.0, 1.5, 14.0)

#: Stack that the kernels and the caller need, KB.
STACK_KB = 4.0

#: Extra arena of optimised kernels over the reference kernels' where a profile gives none, as a fraction: CMSIS-NN on
#: Cortex-M55 took 12 % and 30 % more than the host.
KERNEL_MARGIN = 0.3

#: A 32-bit core needs less than this 64-bit host: the interpreter's structures hold pointers.
SMALLEST_SHARE = 0.75

#: Arena bytes that the runtime keeps for each operator and tensor beside the activations: (likely, low, high).
_PERSISTENT_BYTES_PER_OPERATOR = (260, 90, 700)


def flash_figure(content_bytes: int, kernels: int) -> Figure:
    """Model plus code of the runtime and its kernels."""
    likely, low, high = (RUNTIME_KB[i] + kernels * KERNEL_KB[i] + content_bytes / KIB for i in range(3))
    return Figure(
        "flash_kb",
        likely,
        Evidence.ESTIMATE,
        f"model {content_bytes / KIB:.1f} KB + runtime and {kernels} kernels (a prior; link the firmware to know)",
        low,
        high,
    )


def planned_ram_figure(peak_bytes: int, model: TfliteModel) -> Figure:
    """RAM from the activations alive at the worst operator, before the interpreter has run."""
    likely, low, high = (
        (peak_bytes + len(model.operators) * persistent) / KIB for persistent in _PERSISTENT_BYTES_PER_OPERATOR
    )
    return Figure(
        "ram_kb",
        likely * (1 + KERNEL_MARGIN / 2) + STACK_KB,
        Evidence.ESTIMATE,
        f"{peak_bytes / KIB:.1f} KB of live activations + runtime structures + kernel scratch + {STACK_KB:g} KB stack",
        low + 1,
        high * (1 + KERNEL_MARGIN) * 1.1 + STACK_KB,
    )


def measured_ram_figure(arena_bytes: int, margin: float) -> Figure:
    """RAM from the arena that the host's interpreter needed: its kernels take less scratch than optimised ones."""
    arena_kb = arena_bytes / KIB
    return Figure(
        "ram_kb",
        arena_kb * (1 + margin / 2) + STACK_KB,
        Evidence.ESTIMATE,
        f"host arena {arena_kb:.1f} KB, kernel margin up to {margin:.0%}, {STACK_KB:g} KB stack",
        arena_kb * SMALLEST_SHARE,
        arena_kb * (1 + margin) + STACK_KB,
    )


def kernel_margin(profile: DeviceProfile) -> float:
    """Extra arena of the device's optimised kernels, as a fraction of the host's arena."""
    margin = profile.hardware.kernel_margin
    return KERNEL_MARGIN if margin is None else margin
