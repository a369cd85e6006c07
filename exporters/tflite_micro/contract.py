"""The contract of a written model: what its user feeds and gets, in stored types and layouts."""

from __future__ import annotations

from edgedeploy.exporters.tflite_micro.layout import Layout
from edgedeploy.exporters.tflite_micro.writer import Port, WrittenModel
from edgedeploy.tensors import Contract, PortSpec

_LETTERS = {(0, 2, 3, 1): "NHWC", (0, 2, 1): "NLC"}


def contract_of(written: WrittenModel) -> Contract:
    """Ports in the source graph's order."""
    return Contract(
        tuple(_port(written, port) for port in written.inputs),
        tuple(_port(written, port) for port in written.outputs),
    )


def _port(written: WrittenModel, port: Port) -> PortSpec:
    tensor = written.model.tensors[port.tensor]
    affine = tensor.quantization
    moved: Layout = port.layout if list(port.layout) != sorted(port.layout) else ()
    return PortSpec(
        source_name=port.source_name,
        name=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        layout=_LETTERS.get(port.layout, ""),
        to_layout=moved,
        scale=None if affine is None else float(affine.scale[0]),
        zero_point=None if affine is None else int(affine.zero_point[0]),
    )
