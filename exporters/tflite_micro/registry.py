"""Which ONNX ops the writer takes: handlers register themselves, refusals are found before any work."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgedeploy.errors import UnsupportedOpError
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node, QdqGraph

Handler = Callable[[Lowering, Node], None]
Refusal = Callable[[Node], str]


@dataclass(frozen=True)
class Entry:
    """A handler, and what says why a node of its type cannot be taken ("" where it can)."""

    handler: Handler
    refusal: Refusal


_ENTRIES: dict[str, Entry] = {}

LARGEST_RANK = 5
"""TRANSPOSE, the kernel that takes the most axes, stops here."""


def handles(*op_types: str, refusal: Refusal = lambda _: "") -> Callable[[Handler], Handler]:
    """Register a handler for ONNX op types; a second one for the same type is a bug."""

    def register(handler: Handler) -> Handler:
        for op_type in op_types:
            if op_type in _ENTRIES:
                raise RuntimeError(f"two handlers for {op_type}")
            _ENTRIES[op_type] = Entry(handler, refusal)
        return handler

    return register


def entries() -> Mapping[str, Entry]:
    """Every op type with its handler."""
    from edgedeploy.exporters.tflite_micro import ops

    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{module.name}")
    return _ENTRIES


def supported_ops() -> tuple[str, ...]:
    """The ONNX op types the writer takes, sorted."""
    return tuple(sorted(set(entries()) - {"Requantize"}))


def check_supported(graph: QdqGraph) -> None:
    """Refuse a graph, quantized or not, that holds an op the writer cannot take.

    Raises:
        UnsupportedOpError: naming every such op, where it stands, and why.
    """
    table = entries()
    refused: list[tuple[str, str, str]] = []
    for node in graph.nodes:
        entry = table.get(node.op_type)
        why = "no kernel of the runtime does this" if entry is None else entry.refusal(node) or _rank(node)
        if why:
            refused.append((node.op_type, node.name, why))
    if refused:
        raise UnsupportedOpError("TensorFlow Lite Micro", refused, supported_ops())


def _rank(node: Node) -> str:
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.rank > LARGEST_RANK:
            return f"{value.name!r} has {value.rank} axes and the kernels take {LARGEST_RANK}"
    return ""
