"""An ONNX GRU as matrix products, sigmoids and products, one set a time step (onnx.ai/onnx/operators/onnx__GRU)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from edgedeploy.exporters.tflite_micro.unroll import ORDERS, Constants, Shapes, initial, refusal, write_outputs

if TYPE_CHECKING:
    from edgedeploy.exporters.tflite_micro.rewrite import Scope


def unroll_gru(node: onnx.NodeProto, scope: Scope, constants: Constants, shapes: Shapes) -> str:
    """Write the steps into ``scope``; return why that cannot be done, "" where it was.

    Gates are in ONNX order (update, reset, hidden); the first two share one sigmoid. Both places of the reset are
    taken: before the product (Cho et al. 2014, arXiv 1406.1078) and after it, as torch has it.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    names = [*node.input, *([""] * (6 - len(node.input)))]
    why = refusal(names, attributes, constants, shapes, [b"Sigmoid", b"Tanh"])
    if why:
        return why
    steps, batch, _ = shapes[names[0]]
    hidden = int(attributes["hidden_size"])
    orders = ORDERS[attributes.get("direction", b"forward")]
    after = bool(attributes.get("linear_before_reset", 0))
    sequences = []
    for index, order in enumerate(orders):
        bias = constants[names[3]][index] if names[3] else np.zeros(6 * hidden, np.float32)
        cell = _Cell(scope, f"d{index}", constants[names[1]][index], constants[names[2]][index], bias, after)
        start = initial(scope, names[5], index, (batch, hidden), constants)
        sequences.append(cell.run(names[0], (steps, batch, hidden), order, start))
    finals = [states[0 if order < 0 else -1] for states, order in zip(sequences, orders, strict=True)]
    write_outputs(node, scope, sequences, [finals], (steps, batch, hidden))
    return ""


class _Cell:
    """The weights of one direction, (3 * hidden, inputs) and (3 * hidden, hidden), and the nodes of its steps."""

    def __init__(
        self, scope: Scope, tag: str, weights: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, after: bool
    ) -> None:
        hidden = recurrent.shape[1]
        inner, outer = bias[: 3 * hidden].copy(), bias[3 * hidden :]
        inner[: 2 * hidden] += outer[: 2 * hidden]
        if not after:
            inner[2 * hidden :] += outer[2 * hidden :]
        self._scope, self._tag, self._after = scope, tag, after
        self._w, self._b = scope.constant(f"{tag}/w", weights.T), scope.constant(f"{tag}/b", inner)
        self._gates = scope.constant(f"{tag}/r", recurrent[: 2 * hidden].T)
        self._candidate = scope.constant(f"{tag}/rn", recurrent[2 * hidden :].T)
        self._shift = scope.constant(f"{tag}/bn", outer[2 * hidden :])
        self._parts = scope.constant(f"{tag}/parts", np.asarray([2 * hidden, hidden], np.int64))

    def run(self, source: str, sizes: tuple[int, int, int], order: int, state: str) -> list[str]:
        """Hidden states in time order."""
        steps, batch, hidden = sizes
        scope, tag = self._scope, self._tag
        product = scope.node("MatMul", [source, self._w], f"{tag}/wx")
        projected = scope.node("Add", [product, self._b], f"{tag}/wxb")
        axis = scope.constant(f"{tag}/axis", np.asarray([0], np.int64))
        row = scope.constant(f"{tag}/row", np.asarray([batch, 3 * hidden], np.int64))
        states: list[str] = []
        for step in range(steps)[::order]:
            at = f"{tag}/t{step}"
            begin, end = (
                scope.constant(f"{at}/{n}", np.asarray([step + k], np.int64)) for n, k in (("b", 0), ("e", 1))
            )
            fed = scope.node("Slice", [projected, begin, end, axis], f"{at}/slice")
            fed = scope.node("Reshape", [fed, row], f"{at}/x")
            state = self._step(at, fed, state)
            states.append(state)
        return states[::order]

    def _step(self, at: str, fed: str, state: str) -> str:
        scope = self._scope
        gates, candidate = scope.split("Split", [fed, self._parts], [f"{at}/zr", f"{at}/n"], axis=1)
        if state:
            fed_back = scope.node("MatMul", [state, self._gates], f"{at}/rh")
            gates = scope.node("Add", [gates, fed_back], f"{at}/gates")
        opened = scope.node("Sigmoid", [gates], f"{at}/sigmoid")
        update, reset = scope.split("Split", [opened], [f"{at}/z", f"{at}/r"], axis=1, num_outputs=2)
        remembered = self._remembered(at, state, reset)
        if remembered:
            candidate = scope.node("Add", [candidate, remembered], f"{at}/sum")
        fresh = scope.node("Tanh", [candidate], f"{at}/tanh")
        # (1 - z) n + z h = n + z (h - n): one product, and a difference that integers hold well.
        if not state:
            return scope.node("Sub", [fresh, scope.node("Mul", [update, fresh], f"{at}/zn")], f"{at}/h")
        moved = scope.node("Mul", [update, scope.node("Sub", [state, fresh], f"{at}/change")], f"{at}/moved")
        return scope.node("Add", [fresh, moved], f"{at}/h")

    def _remembered(self, at: str, state: str, reset: str) -> str:
        """What the state adds to the candidate; the bias behind the reset acts on the zero state too."""
        scope = self._scope
        if not self._after:
            if not state:
                return ""
            kept = scope.node("Mul", [reset, state], f"{at}/kept")
            return scope.node("MatMul", [kept, self._candidate], f"{at}/rn")
        if not state:
            return scope.node("Mul", [reset, self._shift], f"{at}/remembered")
        product = scope.node("MatMul", [state, self._candidate], f"{at}/rn")
        shifted = scope.node("Add", [product, self._shift], f"{at}/rnb")
        return scope.node("Mul", [reset, shifted], f"{at}/remembered")
