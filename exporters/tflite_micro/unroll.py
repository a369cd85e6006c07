"""An ONNX LSTM as matrix products, sigmoids and products, one set a time step (onnx.ai/onnx/operators/onnx__LSTM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from edgedeploy.exporters.tflite_micro.rewrite import Scope

LONGEST_SEQUENCE = 128
"""Steps that are unrolled at most: each takes about 13 operators."""

ORDERS = {b"forward": [1], b"reverse": [-1], b"bidirectional": [1, -1]}
"""Which way each direction walks through time."""

Shapes = Mapping[str, tuple[int, ...]]
Constants = Mapping[str, np.ndarray]


def unroll_lstm(node: onnx.NodeProto, scope: Scope, constants: Constants, shapes: Shapes) -> str:
    """Write the steps into ``scope``; return why that cannot be done, "" where it was.

    Gates are in ONNX order (input, output, forget, cell); the first three share one sigmoid. Cell states grow over
    the sequence and are named in ``scope.higher`` for int16.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    names = [*node.input, *([""] * (8 - len(node.input)))]
    why = refusal(names, attributes, constants, shapes, [b"Sigmoid", b"Tanh", b"Tanh"])
    if why:
        return why
    steps, batch, _ = shapes[names[0]]
    hidden = int(attributes["hidden_size"])
    orders = ORDERS[attributes.get("direction", b"forward")]
    sequences, finals, cells = [], [], []
    for index, order in enumerate(orders):
        weights, recurrent = constants[names[1]][index], constants[names[2]][index]
        bias = constants[names[3]][index] if names[3] else np.zeros(8 * hidden, np.float32)
        start = [initial(scope, name, index, (batch, hidden), constants) for name in names[5:7]]
        made = _direction(
            scope, f"d{index}", names[0], (weights, recurrent, bias), (steps, batch, hidden), order, start
        )
        sequences.append(made[0])
        finals.append(made[0][0 if order < 0 else -1])
        cells.append(made[1])
    write_outputs(node, scope, sequences, [finals, cells], (steps, batch, hidden))
    return ""


def refusal(
    names: Sequence[str],
    attributes: Mapping[str, object],
    constants: Constants,
    shapes: Shapes,
    activations: list[bytes],
) -> str:
    """Why a recurrent node cannot be unrolled, "" where it can; ``activations`` are the ones it must have."""
    if any(not name or name not in constants for name in names[1:3]) or (names[3] and names[3] not in constants):
        return "its weights are computed at run time"
    if len(names) > 7 and names[7] and (names[7] not in constants or np.any(constants[names[7]])):
        return "it has peepholes"
    if attributes.get("activations") not in (None, activations, activations * 2):
        return f"its activations are not {', '.join(name.decode().lower() for name in activations)}"
    if attributes.get("clip") or attributes.get("input_forget") or attributes.get("layout"):
        return "clip, input_forget and layout are not taken"
    steps = shapes[names[0]][0]
    if steps > LONGEST_SEQUENCE:
        return f"{steps} time steps; at most {LONGEST_SEQUENCE} are unrolled"
    if names[4] and (names[4] not in constants or np.any(constants[names[4]] != steps)):
        return "its sequence lengths differ from the input's"
    return ""


def initial(scope: Scope, name: str, direction: int, sizes: tuple[int, int], constants: Constants) -> str:
    """The state before the first step, (batch, hidden), of one direction; "" where it is zero."""
    if not name:
        return ""
    tag = f"{name}/d{direction}"
    if name in constants:
        own = constants[name][direction]
        return scope.constant(tag, own) if np.any(own) else ""
    begin, end, axis = (
        scope.constant(f"{tag}/{what}", np.asarray([value], np.int64))
        for what, value in (("b", direction), ("e", direction + 1), ("axis", 0))
    )
    own_part = scope.node("Slice", [name, begin, end, axis], f"{tag}/slice")
    row = scope.constant(f"{tag}/row", np.asarray(sizes, np.int64))
    return scope.node("Reshape", [own_part, row], f"{tag}/state")


def _direction(
    scope: Scope,
    tag: str,
    source: str,
    parameters: tuple[np.ndarray, np.ndarray, np.ndarray],
    sizes: tuple[int, int, int],
    order: int,
    start: Sequence[str],
) -> tuple[list[str], str]:
    """Hidden states in time order and the last cell state."""
    weights, recurrent, bias = parameters
    steps, batch, hidden = sizes
    kernel = scope.constant(f"{tag}/w", weights.T)
    offset = scope.constant(f"{tag}/b", bias[: 4 * hidden] + bias[4 * hidden :])
    product = scope.node("MatMul", [source, kernel], f"{tag}/wx")
    projected = scope.node("Add", [product, offset], f"{tag}/wxb")
    feedback = scope.constant(f"{tag}/r", recurrent.T)
    axis = scope.constant(f"{tag}/axis", np.asarray([0], np.int64))
    row = scope.constant(f"{tag}/row", np.asarray([batch, 4 * hidden], np.int64))
    parts = scope.constant(f"{tag}/parts", np.asarray([3 * hidden, hidden], np.int64))
    states: list[str] = []
    state, cell = start
    for step in range(steps)[::order]:
        at = f"{tag}/t{step}"
        begin, end = (scope.constant(f"{at}/{n}", np.asarray([step + k], np.int64)) for n, k in (("b", 0), ("e", 1)))
        gates = scope.node("Slice", [projected, begin, end, axis], f"{at}/slice")
        gates = scope.node("Reshape", [gates, row], f"{at}/gates_x")
        if state:
            fed = scope.node("MatMul", [state, feedback], f"{at}/rh")
            gates = scope.node("Add", [gates, fed], f"{at}/gates")
        three, candidate = scope.split("Split", [gates, parts], [f"{at}/iof", f"{at}/c"], axis=1)
        opened = scope.node("Sigmoid", [three], f"{at}/sigmoid")
        i, o, f = scope.split("Split", [opened], [f"{at}/i", f"{at}/o", f"{at}/f"], axis=1, num_outputs=3)
        fresh = scope.node("Tanh", [candidate], f"{at}/tanh")
        added = scope.node("Mul", [i, fresh], f"{at}/added")
        if cell:
            kept = scope.node("Mul", [f, cell], f"{at}/kept")
            scope.higher.update({kept, added})
            added = scope.node("Add", [kept, added], f"{at}/cell")
        scope.higher.add(added)
        cell = added
        shown = scope.node("Tanh", [cell], f"{at}/shown")
        state = scope.node("Mul", [o, shown], f"{at}/h")
        states.append(state)
    return states[::order], cell


def write_outputs(
    node: onnx.NodeProto,
    scope: Scope,
    sequences: Sequence[Sequence[str]],
    finals: Sequence[Sequence[str]],
    sizes: tuple[int, int, int],
) -> None:
    """Join the hidden states of every step, and the last states of each kind, as the node's outputs have them.

    Args:
        node: the recurrent node, whose output names are made.
        scope: gets the nodes.
        sequences: hidden states in time order, by direction.
        finals: for each further output, the last state by direction.
        sizes: steps, batch, hidden size.

    """
    steps, batch, hidden = sizes
    directions = len(sequences)
    single = scope.constant("single", np.asarray([1, 1, batch, hidden], np.int64))
    if node.output[0]:
        rows = []
        for step in range(steps):
            wide = [scope.node("Reshape", [s[step], single], f"y{step}_{d}") for d, s in enumerate(sequences)]
            rows.append(wide[0] if directions == 1 else scope.node("Concat", wide, f"y{step}", axis=1))
        scope.nodes.append(helper.make_node("Concat", rows, [node.output[0]], name=f"{scope.prefix}/y", axis=0))
    one = scope.constant("one", np.asarray([1, batch, hidden], np.int64))
    for position, values in enumerate(finals, start=1):
        if len(node.output) <= position or not node.output[position]:
            continue
        rows = [scope.node("Reshape", [value, one], f"out{position}_{d}") for d, value in enumerate(values)]
        name = f"{scope.prefix}/out{position}"
        scope.nodes.append(helper.make_node("Concat", rows, [node.output[position]], name=name, axis=0))
