"""Why an arena must be as large as it is: what TFLite Micro's allocator holds at once in each phase.

Operators are prepared one after another, memory is planned, the model runs. What is persistent grows down from the
arena's end. From its start, preparing takes a list of scratch requests and copies of the tensors that a kernel looks
at; planning takes that list and what the planner notes of each tensor and buffer; running takes the plan's result.
The allocator records only the last: a model of many small tensors, or one whose last layer has many channels, needs
more before that.

Source: tflite-micro, micro_allocator.cc, micro_allocation_info.cc, memory_planner/greedy_memory_planner.h,
arena_allocator/single_arena_buffer_allocator.cc, kernels/*_common.cc; sizes of the structures on a 64-bit host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.exporters.tflite_micro.flatbuffer import schema
from edgedeploy.exporters.tflite_micro.ir import ALIGNMENT

_POINTER = 8
_TENSOR = 64
_AFFINE = 24
_SCRATCH_REQUEST = 16
_ALLOCATION_INFO = 32
_PLANNED_BUFFER = 40
#: Requests that one kernel may make; room for them is kept before they are made.
_MOST_REQUESTS = 12

#: Operands in the order in which a kernel copies their descriptions, where that is not each of them once.
_LOOKED_AT = {
    "CONV_2D": "o0 i0 i1 i0 i1 i2 o0",
    "DEPTHWISE_CONV_2D": "o0 i0 i1 i0 i1 i2 o0",
    "MEAN": "i0 o0 i1 i0 i1 o0",
    "SUM": "i0 o0 i1 i0 i1 o0",
    "REDUCE_MAX": "i0 o0 i1 i0 i1 o0",
    "TANH": "i0 o0 i0",
    "RESHAPE": "i0 o0",
}
#: Scratch buffers of the reference kernels.
_REQUESTS = {"MEAN": 3, "SUM": 3, "REDUCE_MAX": 2, "MIRROR_PAD": 2, "TRANSPOSE_CONV": 1}
#: Kernels that keep a multiplier and a shift a channel, and the axis of the channels in their weights.
_PER_CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


@dataclass(frozen=True)
class ArenaPeaks:
    """Bytes of the arena that each phase takes on a 64-bit host.

    Attributes:
        preparing: of the operator that takes most.
        operator: its kind.
        planning: of the memory plan.
        running: what the allocator records.
    """

    preparing: int
    operator: str
    planning: int
    running: int

    @property
    def largest(self) -> int:
        """The arena that this explains; in steps of 16 bytes."""
        return _up(max(self.preparing, self.planning, self.running), ALIGNMENT)

    def as_dict(self) -> dict[str, int]:
        """By a name that the manifest shows."""
        return {
            f"peak while preparing {self.operator}": self.preparing,
            "peak while planning": self.planning,
            "peak while running": self.running,
        }


def arena_peaks(model: Path, head: int, tail: int) -> ArenaPeaks:
    """Reconstruct the phases from a .tflite and what its allocator recorded after preparation.

    Exact to 16 bytes for the operators that the writer writes, in models of more than an operator or two.

    Args:
        model: the file.
        head, tail: recorded bytes of the plan and of what is persistent.
    """
    fb = schema()
    content = fb.ModelT.InitFromPackedBuf(model.read_bytes(), 0)
    graph = content.subgraphs[0]
    names = {value: name for name, value in vars(fb.BuiltinOperator).items() if isinstance(value, int)}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in content.operatorCodes]
    kinds = [codes[operator.opcodeIndex] for operator in graph.operators]
    requests = sum(_REQUESTS.get(kind, 0) for kind in kinds)
    persistent = tail - _interface_bytes(graph)
    planned = [not (_length(content.buffers[tensor.buffer].data) or tensor.isVariable) for tensor in graph.tensors]
    at = _SCRATCH_REQUEST * (_MOST_REQUESTS + requests) + _POINTER
    at = _up(at + _ALLOCATION_INFO * (len(graph.tensors) + requests), ALIGNMENT)
    planning = _up(persistent, ALIGNMENT) + at + _PLANNED_BUFFER * (sum(planned) + requests)
    preparing, operator = _preparing(graph, kinds, persistent - _POINTER * requests)
    return ArenaPeaks(preparing, operator, planning, head + tail)


def _preparing(graph: Any, kinds: list[str], persistent: int) -> tuple[int, str]:
    """The largest sum of what is persistent by then and what the kernel's preparation takes; backwards in time."""
    worst = (0, "")
    for kind, operator in zip(reversed(kinds), reversed(graph.operators), strict=True):
        at = _SCRATCH_REQUEST * _MOST_REQUESTS
        for tensor in _looked_at(kind, operator, graph):
            at = _with_description(at, tensor)
        worst = max(worst, (persistent + at, kind))
        if kind in _PER_CHANNEL:
            weights = graph.tensors[operator.inputs[1]]
            if kind != "FULLY_CONNECTED" or _scales(weights) > 1:
                persistent -= 2 * _up(4 * int(weights.shape[_PER_CHANNEL[kind]]), ALIGNMENT)
    return worst


def _looked_at(kind: str, operator: Any, graph: Any) -> list[Any]:
    inputs, outputs = list(operator.inputs), list(operator.outputs)
    if kind in _LOOKED_AT:
        sides = {"i": inputs, "o": outputs}
        places = [(sides[item[0]], int(item[1:])) for item in _LOOKED_AT[kind].split()]
        indices = [side[place] for side, place in places if place < len(side)]
    else:
        again = inputs[:1] if kind == "CONCATENATION" else []
        indices = [*again, *inputs, *outputs]
    return [graph.tensors[index] for index in indices if index >= 0]


def _interface_bytes(graph: Any) -> int:
    """What is made of inputs and outputs after planning: a list and a persistent description of each."""
    at = 0
    for group in (graph.inputs, graph.outputs):
        at = _up(at + _POINTER * len(group), ALIGNMENT)
        for index in group:
            at = _with_description(at, graph.tensors[index])
    return at


def _with_description(at: int, tensor: Any) -> int:
    """Where the copy of a tensor's description ends that starts at ``at`` or soon after."""
    at = _up(at, _POINTER) + _TENSOR
    scales = _scales(tensor)
    return at if scales == 0 else _up(at, _POINTER) + _AFFINE + 4 + 4 * scales


def _scales(tensor: Any) -> int:
    given = tensor.quantization
    return 0 if given is None or _length(given.zeroPoint) == 0 else _length(given.scale)


def _length(vector: Any) -> int:
    return 0 if vector is None else len(vector)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
