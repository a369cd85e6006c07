"""What is refused before and after writing: graphs no kernel takes, models the device cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.memory import flash_by_layer, peak_memory
from edgedeploy.exporters.tflite_micro.qdq import read_qdq
from edgedeploy.exporters.tflite_micro.registry import check_supported
from edgedeploy.exporters.tflite_micro.writer import WrittenModel, refuse_wide_inputs

if TYPE_CHECKING:
    import onnx

LAYERS_SHOWN = 8


def check_graph(model: onnx.ModelProto) -> None:
    """Refuse a float graph that cannot be written, before anything is calibrated.

    Raises:
        InputError: for a dynamic shape or an int64 input.
        UnsupportedOpError: for ops without a kernel, all of them named.
    """
    graph = read_qdq(model)
    for value in graph.inputs:
        refuse_wide_inputs(value)
    check_supported(graph)


def check_memory(written: WrittenModel, profile: DeviceProfile) -> None:
    """Refuse a model that the device cannot hold.

    Raises:
        InputError: where the file alone is larger than the flash (bytes by layer), or the activations alive at one
            operator alone are larger than the RAM (those tensors).
    """
    flash_kb, ram_kb = profile.hardware.flash_kb, profile.hardware.ram_kb
    size = len(written.content)
    if flash_kb is not None and size > flash_kb * 1024:
        layers = flash_by_layer(written.model)
        shown = ", ".join(f"{name} {count:,} B" for name, count in layers[:LAYERS_SHOWN])
        rest = sum(count for _, count in layers[LAYERS_SHOWN:])
        raise InputError(
            f"The model does not fit the flash of {profile.name}.",
            found=f"{size:,} bytes of {flash_kb * 1024:,.0f}: {shown}" + (f", others {rest:,} B" if rest else ""),
            remedy="Make the largest layers smaller, or choose a device with more flash.",
        )
    peak = peak_memory(written.model)
    if ram_kb is not None and peak.size_bytes > ram_kb * 1024:
        raise InputError(
            f"The activations do not fit the RAM of {profile.name}.",
            found=f"of {ram_kb * 1024:,.0f} bytes, alive at the peak are {peak}",
            remedy="Lower the input resolution or the channels around that operator, or choose a device with more RAM.",
        )
