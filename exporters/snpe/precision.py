"""The schemes of the candidates, and which tensors each keeps at the other precision.

Seen in the HTP simulator for V68: CumSum is wrong at 8 bits and Log at 16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.scheme import FixedOutput
from edgedeploy.calibration.schemes import QNN_A8W8, QNN_A16W8
from edgedeploy.exporters.snpe.checks import ONLY_8_BIT, ONLY_16_BIT
from edgedeploy.exporters.snpe.matmul_operand import narrow_operands
from edgedeploy.exporters.snpe.per_tensor import tolerant_weights

if TYPE_CHECKING:
    import onnx

    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph

#: QNN gives these outputs its own encoding at 16 bits, whatever the graph says (seen in the DLC).
_FIXED_16 = {"Tanh": FixedOutput(1 / 32768, 32768)}
_OWN_ENCODING = frozenset({"Sigmoid", "Softmax", "Tanh"})
#: Tensors with a lower signal-to-noise ratio than this at 8 bits, in dB, get 16 in the mixed candidate.
FRAGILE_DB = 35.0


@dataclass(frozen=True)
class Precision:
    """How to quantize.

    Attributes:
        scheme: the rules.
        other: tensors stored in the scheme's other format (``Scheme.higher``).

    """

    scheme: Scheme
    other: frozenset[str]


def a8w8(graph: Graph, carried: frozenset[str] = frozenset()) -> Precision:
    """8-bit activations and weights, but for ops that 8 bits make wrong and for what carries a state."""
    return Precision(_slim(QNN_A8W8, graph.model), _around(graph.model, ONLY_16_BIT) | carried)


def mixed(graph: Graph, table: CalibrationTable, carried: frozenset[str] = frozenset()) -> Precision:
    """8 bits where they suffice: tensors that 8 bits would cost too much get 16."""
    base = a8w8(graph, carried)
    fragile = set(base.other)
    fixed = {node.output[0] for node in graph.model.graph.node if node.op_type in _OWN_ENCODING}
    observed = [name for name in _float_tensors(graph.model) if name in table.tensors and name not in fixed]
    for name in observed:
        choice = table.choice(name, base.scheme.activation)
        if choice.sqnr_db.get(choice.method, 0.0) < FRAGILE_DB:
            fragile.add(name)
    return Precision(base.scheme, frozenset(fragile))


def a16w8(graph: Graph) -> Precision:
    """16-bit activations, 8-bit weights; 8 bits for ops that 16 bits make wrong."""
    fixed = {**QNN_A16W8.fixed_outputs, **_FIXED_16}
    scheme = replace(_slim(QNN_A16W8, graph.model), fixed_outputs=fixed, higher=QNN_A8W8.activation)
    return Precision(scheme, _around(graph.model, ONLY_8_BIT))


def apply(
    precision: Precision, graph: Graph, table: CalibrationTable, *, bias_correction: bool = True
) -> onnx.ModelProto:
    """Quantize a graph as Hexagon computes it."""
    model = quantize(graph, table, precision.scheme, higher=precision.other, bias_correction=bias_correction)
    narrow_operands(model, table, QNN_A8W8.activation)
    return model


def _slim(scheme: Scheme, model: onnx.ModelProto) -> Scheme:
    one_scale = scheme.per_tensor_weights | tolerant_weights(model, scheme)
    return replace(scheme, per_tensor_weights=one_scale, octave_weight_scales=True)


def _around(model: onnx.ModelProto, op_types: Iterable[str]) -> frozenset[str]:
    """The run-time tensors that ops of these types read and write."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = (name for node in model.graph.node if node.op_type in op_types for name in (*node.input[:1], *node.output))
    return frozenset(name for name in names if name and name not in constants)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    return [*(value.name for value in model.graph.input), *(name for node in model.graph.node for name in node.output)]
