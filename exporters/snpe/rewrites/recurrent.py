"""LSTM, GRU and RNN, which QNN cannot prepare, unrolled over their fixed number of steps (batch 1).

Equations: onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html. The product of the inputs with
the input weights is one matrix product for all steps; only the product with the state remains in each step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_STEPS = 512
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


@dataclass
class _Unrolling:
    """One direction of one node while it is unrolled; states are (1, hidden), gates (1, gates * hidden)."""

    editor: Editor
    near: str
    hidden: int
    recurrent: NDArray[np.float32]
    recurrent_bias: NDArray[np.float32]
    linear_before_reset: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)

    def op(self, op_type: str, *inputs: str, outputs: int = 1, output: str = "", **attributes: Any) -> str:
        names = [output] + [""] * (outputs - 1)
        node = self.editor.node(op_type, list(inputs), names, near=self.near, **attributes)
        self.nodes.append(node)
        return str(node.output[0])

    def product(self, state: str, rows: slice, what: str, bias: bool = False) -> str:
        """State @ recurrent[rows].T, the weights shared by all steps."""
        if what not in self.weights:
            self.weights[what] = self.editor.constant(f"{self.near}_{what}", self.recurrent[rows])
            self.weights[f"{what}_bias"] = self.editor.constant(f"{self.near}_{what}_bias", self.recurrent_bias[rows])
        operands = [state, self.weights[what], *([self.weights[f"{what}_bias"]] if bias else [])]
        return self.op("Gemm", *operands, transB=1)

    def split(self, gates: str, count: int) -> list[str]:
        self.op("Split", gates, outputs=count, axis=1, num_outputs=count)
        return list(self.nodes[-1].output)


def unroll(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Unroll one recurrent node, or leave it where it is not a plain one (peepholes, clipping, ragged lengths)."""
    given = attributes_of(node)
    operands = [*node.input, *[""] * (8 - len(node.input))]
    shape = editor.shapes.get(operands[0])
    if shape is None or not _plain(node.op_type, given, operands, shape, editor):
        return None
    steps, directions = shape[0], 2 if given.get("direction") == "bidirectional" else 1
    nodes: list[onnx.NodeProto] = []
    sequences, last = [], []
    for direction in range(directions):
        reverse = given.get("direction") == "reverse" or direction == 1
        run = _direction(node, operands, given, direction, editor)
        order = list(range(steps))[:: -1 if reverse else 1]
        states, final = _steps(run, node.op_type, operands, direction, order)
        sequences.append([states[order.index(step)] for step in range(steps)])
        last.append(final)
        nodes += run.nodes
    return nodes + _outputs(node, editor, sequences, last, int(given["hidden_size"]))


def _plain(op_type: str, given: Any, operands: list[str], shape: tuple[int, ...], editor: Editor) -> bool:
    directions = 2 if given.get("direction") == "bidirectional" else 1
    activations = [name.decode() if isinstance(name, bytes) else name for name in given.get("activations", [])]
    usual = _DEFAULT_ACTIVATIONS[op_type] * directions
    lengths = editor.constants.get(operands[4])
    return (
        len(shape) == 3
        and shape[1] == 1
        and shape[0] <= MOST_STEPS
        and not given.get("layout", 0)
        and "clip" not in given
        and not given.get("input_forget", 0)
        and (not activations or [name.lower() for name in activations] == usual)
        and all(name in editor.constants for name in operands[1:4] if name)
        and (not operands[4] or (lengths is not None and bool((lengths == shape[0]).all())))
        and not (op_type == "LSTM" and operands[7])
    )


def _direction(node: onnx.NodeProto, operands: list[str], given: Any, direction: int, editor: Editor) -> _Unrolling:
    hidden, gates = int(given["hidden_size"]), _GATES[node.op_type]
    biases = editor.constants.get(operands[3])
    bias = np.zeros(2 * gates * hidden, np.float32) if biases is None else biases[direction]
    near = f"{next(name for name in node.output if name)}_{'backward' if direction else 'forward'}"
    run = _Unrolling(
        editor,
        near,
        hidden,
        editor.constants[operands[2]][direction],
        bias[gates * hidden :],
        bool(given.get("linear_before_reset", 0)),
    )
    # What the state's bias adds outside any product with a gate joins the bias of the inputs.
    joint = bias[: gates * hidden] + run.recurrent_bias
    if node.op_type == "GRU" and run.linear_before_reset:
        joint[2 * hidden :] = bias[2 * hidden : gates * hidden]
    flat = run.op("Reshape", operands[0], editor.constant(f"{near}_flat", np.array([-1, _width(operands, editor)])))
    weight = editor.constant(f"{near}_input_weight", editor.constants[operands[1]][direction])
    run.op("Gemm", flat, weight, editor.constant(f"{near}_input_bias", joint.astype(np.float32)), transB=1)
    return run


def _width(operands: list[str], editor: Editor) -> int:
    return editor.shapes[operands[0]][2]


def _steps(
    run: _Unrolling, op_type: str, operands: list[str], direction: int, order: list[int]
) -> tuple[list[str], tuple[str, str]]:
    """The state after each step in running order, and the last (state, cell)."""
    projected = run.nodes[-1].output[0]
    state = _initial(run, operands[5], direction)
    cell = _initial(run, operands[6], direction) if op_type == "LSTM" else ""
    states = []
    for step in order:
        bounds = [run.editor.constant(f"{run.near}_{what}{step}", np.array([value], np.int64))
                  for what, value in (("start", step), ("stop", step + 1), ("axis", 0))]  # fmt: skip
        gates = run.op("Slice", projected, *bounds)
        state, cell = _CELLS[op_type](run, gates, state, cell)
        states.append(state)
    return states, (state, cell)


def _initial(run: _Unrolling, name: str, direction: int) -> str:
    """The initial state as (1, hidden), or empty where it is zero."""
    if not name:
        return ""
    value = run.editor.constants.get(name)
    if value is not None:
        own = np.ascontiguousarray(value[direction].reshape(1, run.hidden))
        return run.editor.constant(f"{run.near}_initial", own) if own.any() else ""
    bounds = [run.editor.constant(f"{run.near}_{what}", np.array([value], np.int64))
              for what, value in (("first", direction), ("end", direction + 1), ("along", 0))]  # fmt: skip
    own_part = run.op("Slice", name, *bounds)
    return run.op("Reshape", own_part, run.editor.constant(f"{run.near}_row", np.array([1, run.hidden], np.int64)))


def _lstm(run: _Unrolling, gates: str, state: str, cell: str) -> tuple[str, str]:
    if state:
        gates = run.op("Add", gates, run.product(state, slice(None), "recurrent"))
    entrance, exit_, forget, candidate = run.split(gates, 4)
    new = run.op("Mul", run.op("Sigmoid", entrance), run.op("Tanh", candidate))
    if cell:
        new = run.op("Add", new, run.op("Mul", run.op("Sigmoid", forget), cell))
    return run.op("Mul", run.op("Sigmoid", exit_), run.op("Tanh", new)), new


def _gru(run: _Unrolling, gates: str, state: str, _: str) -> tuple[str, str]:
    update, reset, candidate = run.split(gates, 3)
    first, second, third = (slice(index * run.hidden, (index + 1) * run.hidden) for index in range(3))
    if state:
        update = run.op("Add", update, run.product(state, first, "update"))
        reset = run.op("Add", reset, run.product(state, second, "reset"))
    opened, kept = run.op("Sigmoid", reset), run.op("Sigmoid", update)
    if run.linear_before_reset:
        if state:
            remembered = run.product(state, third, "candidate", bias=True)
        else:
            remembered = run.editor.constant(f"{run.near}_candidate_start", run.recurrent_bias[third].reshape(1, -1))
        candidate = run.op("Add", candidate, run.op("Mul", opened, remembered))
    elif state:
        remembered = run.product(run.op("Mul", opened, state), third, "candidate")
        candidate = run.op("Add", candidate, remembered)
    new = run.op("Tanh", candidate)
    if not state:
        return run.op("Sub", new, run.op("Mul", kept, new)), ""
    return run.op("Add", new, run.op("Mul", kept, run.op("Sub", state, new))), ""


def _rnn(run: _Unrolling, gates: str, state: str, _: str) -> tuple[str, str]:
    if state:
        gates = run.op("Add", gates, run.product(state, slice(None), "recurrent"))
    return run.op("Tanh", gates), ""


_CELLS: dict[str, Callable[[_Unrolling, str, str, str], tuple[str, str]]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def _outputs(
    node: onnx.NodeProto,
    editor: Editor,
    sequences: list[list[str]],
    last: list[tuple[str, str]],
    hidden: int,
) -> list[onnx.NodeProto]:
    """Y (steps, directions, 1, hidden), Y_h and Y_c (directions, 1, hidden), those that are wanted."""
    wanted = [*node.output, "", "", ""]
    near = next(name for name in node.output if name)
    made: list[onnx.NodeProto] = []

    def join(parts: list[str], axis: int, shape: list[int], output: str) -> None:
        whole = parts[0]
        if len(parts) > 1:
            made.append(editor.node("Concat", parts, near=near, axis=axis))
            whole = made[-1].output[0]
        size = editor.constant(f"{near}_size", np.array(shape, np.int64))
        made.append(editor.node("Reshape", [whole, size], output, near=near))

    if wanted[0]:
        rows = []
        for states in sequences:
            made.append(editor.node("Concat", states, near=near, axis=0))
            rows.append(made[-1].output[0])
        join(rows, 1, [len(sequences[0]), len(sequences), 1, hidden], wanted[0])
    for output, position in ((wanted[1], 0), (wanted[2], 1)):
        if output:
            join([final[position] for final in last], 0, [len(last), 1, hidden], output)
    return made
