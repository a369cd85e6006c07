"""Folding batch norms into the layer before them, keeping what they knew of their input.

y = gamma * (x - mean) / sqrt(variance + epsilon) + beta is affine per channel, so a convolution or Gemm whose only
reader is the norm takes it into its weights and bias (Jacob et al. 2018, arXiv 1712.05877, section 3.2). A norm that
follows anything else becomes a multiplication and an addition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgedeploy.errors import InputError
from edgedeploy.graph.graph import BatchNormStatistics
from edgedeploy.graph.ir_edit import add_initializer, constant, fresh_name, redirect

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOLDS_INTO = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norms(model: ir.Model) -> dict[str, BatchNormStatistics]:
    """Fold every inference-mode BatchNormalization whose parameters are constant, in place.

    Returns:
        The statistics by the name of the tensor that the norm produced, which the folded graph still has.
    """
    graph = model.graph
    statistics: dict[str, BatchNormStatistics] = {}
    for node in list(graph):
        if node.op_type != "BatchNormalization" or node.domain or int(node.attributes.get_int("training_mode") or 0):
            continue
        parameters = [constant(value) for value in node.inputs[1:5]]
        source, output = node.inputs[0], node.outputs[0]
        if source is None or any(parameter is None for parameter in parameters):
            continue
        if source.shape is None:
            raise InputError(
                "A batch normalization works on a tensor whose number of axes cannot be inferred.",
                found=f"node {node.name!r}, input {source.name!r}",
                remedy="Write the shapes into the file: onnx.shape_inference.infer_shapes, or export the model again.",
            )
        gamma, beta, mean, variance = (np.asarray(parameter, dtype=np.float64) for parameter in parameters)
        scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = beta - mean * scale
        if any(len(value.uses()) or value.is_graph_output() for value in node.outputs[1:]):
            continue
        name = output.name or ""
        if not _fold_into_producer(graph, source, output, scale, shift):
            _replace_by_affine(graph, node, scale, shift)
        graph.remove(node, safe=True)
        arrays = (mean, variance, gamma, beta)
        statistics[name] = BatchNormStatistics(*(np.asarray(array, dtype=np.float32) for array in arrays))
    return statistics


def lacks_rank(model: ir.Model) -> bool:
    """True where a BatchNormalization works on a tensor whose number of axes is not known."""
    norms = (node for node in model.graph if node.op_type == "BatchNormalization")
    return any(node.inputs[0] is not None and node.inputs[0].shape is None for node in norms)


def _fold_into_producer(
    graph: ir.Graph, source: ir.Value, output: ir.Value, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> bool:
    layer = source.producer()
    if layer is None or layer.op_type not in _FOLDS_INTO or len(source.uses()) != 1 or source.is_graph_output():
        return False
    weight = constant(layer.inputs[1])
    has_bias = len(layer.inputs) > 2 and layer.inputs[2] is not None
    bias = constant(layer.inputs[2]) if has_bias else np.zeros(1, np.float32)
    if weight is None or bias is None:
        return False
    if layer.op_type == "Gemm" and any(layer.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    new_weight = (weight * _per_weight(layer, weight.shape, scale)).astype(np.float32)
    new_bias = (np.broadcast_to(bias.reshape(-1), scale.shape) * scale + shift).astype(np.float32)
    stem = output.name
    layer.replace_input_with(1, add_initializer(graph, _name(layer.inputs[1], stem, "weight"), new_weight))
    bias_name = _name(layer.inputs[2], stem, "bias") if has_bias else f"{stem}_bias"
    bias_value = add_initializer(graph, bias_name, new_bias)
    if len(layer.inputs) > 2:
        layer.replace_input_with(2, bias_value)
    else:
        layer.resize_inputs(3)
        layer.replace_input_with(2, bias_value)
    # The layer's output takes the norm's name: it now is what the norm gave.
    redirect(output, source)
    return True


def _per_weight(layer: ir.Node, shape: tuple[int, ...], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread one factor per output channel over the layer's weight."""
    kernel = [1] * (len(shape) - 2)
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and layer.attributes.get_int("transB")):
        return scale.reshape(-1, 1, *kernel)
    if layer.op_type == "Gemm":
        return scale.reshape(1, -1)
    # ConvTranspose weights are (input channels, output channels / group, kernel ...), input channels in groups.
    group = int(layer.attributes.get_int("group") or 1)
    by_group = np.repeat(scale.reshape(group, -1), shape[0] // group, axis=0)
    return by_group.reshape(*shape[:2], *kernel)


def _replace_by_affine(graph: ir.Graph, node: ir.Node, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None and source.shape is not None
    along = (1, -1, *[1] * (len(source.shape) - 2)) if len(source.shape) > 1 else (-1,)
    name = output.name
    factor = add_initializer(graph, f"{name}_factor", scale.astype(np.float32).reshape(along))
    offset = add_initializer(graph, f"{name}_shift", shift.astype(np.float32).reshape(along))
    product = ir.node("Mul", [source, factor], name=f"{node.name}_factor")
    result = ir.node("Add", [product.outputs[0], offset], name=f"{node.name}_shift")
    for made in (product, result):
        made.outputs[0].type, made.outputs[0].shape = output.type, output.shape
        made.metadata_props.update(node.metadata_props)
    product.outputs[0].name = fresh_name(graph, f"{name}_scaled")
    graph.insert_before(node, [product, result])
    redirect(output, result.outputs[0])


def _name(value: ir.Value | None, stem: str | None, role: str) -> str:
    own = value.name if value is not None else None
    return f"{own}_folded" if own else f"{stem}_{role}"
