"""`quantize(graph, table, scheme)`: a float graph, ranges and a backend's rules make a Q/DQ graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedeploy.calibration.quantizer.absorb import absorb_activations
from edgedeploy.calibration.quantizer.bias_correction import correct_biases
from edgedeploy.calibration.quantizer.emit import emit
from edgedeploy.calibration.quantizer.plan import make_plan
from edgedeploy.calibration.quantizer.prepare import prepared
from edgedeploy.calibration.quantizer.rounding import round_weights
from edgedeploy.calibration.quantizer.selection import select
from edgedeploy.calibration.quantizer.table import RangeTable
from edgedeploy.calibration.quantizer.topology import index
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import onnx

    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph

_NOTHING: frozenset[str] = frozenset()


def quantize(
    graph: Graph,
    table: RangeTable,
    scheme: Scheme,
    *,
    exclude: frozenset[str] = _NOTHING,
    higher: frozenset[str] = _NOTHING,
    bias_correction: bool = True,
) -> onnx.ModelProto:
    """Quantize a float graph into a Q/DQ model.

    Weights and integer biases are integer initializers followed by DequantizeLinear; an integer bias has zero point
    0 and scale ``input scale * weight scale``. An activation ``T`` passes QuantizeLinear → ``T_quantized`` →
    DequantizeLinear → ``T_dequantized``; a graph output keeps its name on the dequantized side. Scales and zero
    points are scalar initializers, or 1-D per channel. Graph inputs and outputs stay float32. Integer, boolean and
    shape tensors are left alone.

    Args:
        graph: the float graph; its float tensors are those of ``table``.
        table: the calibrated ranges; weights are rounded by its ``moments``, where it has any (`rounding.py`).
        scheme: the backend's rules.
        exclude: names of nodes to leave float.
        higher: names of tensors to store in ``scheme.higher``; where that is ``None``, name nodes in ``exclude``.
        bias_correction: take the mean error of rounded weights out of the biases (`bias_correction.py`).

    Returns:
        A model in the graph's own opset (20), or in opset 21 where a format is not 8 bits wide.

    Raises:
        InputError: for a name in ``exclude`` or ``higher`` that the graph does not have, for a non-finite weight,
            or a tensor that the table does not know.
    """
    model = prepared(graph.model)
    topology = index(model)
    _known(exclude, {node.name for node in topology.nodes}, "node")
    _known(higher, set(topology.floats), "float tensor")
    selection = select(topology, scheme, exclude)
    plan = make_plan(topology, selection, table, scheme, higher)
    if table.moments is not None:
        round_weights(topology, plan, table.moments, centred=bias_correction)
    if bias_correction and correct_biases(model, topology, plan, table):
        topology = index(model)
        plan = make_plan(topology, selection, table, scheme, higher, earlier=plan)
        if table.moments is not None:
            round_weights(topology, plan, table.moments, centred=True)
    if scheme.absorbed_activations:
        topology = absorb_activations(topology, selection, plan)
    return emit(model, topology, plan)


def _known(names: frozenset[str], existing: set[str], what: str) -> None:
    unknown = sorted(names - existing)
    if unknown:
        raise InputError(
            f"A {what} to treat specially in quantization does not exist in the graph.",
            found=", ".join(map(repr, unknown)),
            remedy=f"Name {what}s of the captured graph.",
        )
