"""The inputs and outputs of a captured graph: one tensor for each, under the name that the model gives it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def separate_outputs(graph: ir.Graph) -> None:
    """Give every output a tensor of its own, made by a node: an Identity for an input, a constant, or one given twice.

    ONNX allows none of the three for a whole graph, and runtimes that take them mix the values up.
    """
    seen: set[int] = set()
    for index, output in enumerate(graph.outputs):
        made = output.producer()
        if id(output) not in seen and made is not None and made.graph is graph:
            seen.add(id(output))
            continue
        copy = ir.node("Identity", [output], name=f"output_{index}_copy")
        value = copy.outputs[0]
        value.name, value.type, value.shape = f"{output.name}_copy_{index}", output.type, output.shape
        graph.append(copy)
        graph.outputs[index] = value
        seen.add(id(value))


def name_ports(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs, in order, their promised names; a tensor that already bears one of them steps aside.

    Every port must be a tensor of its own (`separate_outputs`).
    """
    ports = [*graph.inputs, *graph.outputs]
    wanted = [*inputs, *outputs]
    if [port.name for port in ports] == wanted:
        return
    mine = set(map(id, ports))
    taken = set(wanted)
    others = [*graph.initializers.values(), *(value for node in graph.all_nodes() for value in node.outputs)]
    for value in others:
        if value.name in taken and id(value) not in mine:
            value.name = _aside(str(value.name), taken)
            taken.add(value.name)
    for index, port in enumerate(ports):
        port.name = f"edgedeploy_port_{index}"
    for port, name in zip(ports, wanted, strict=True):
        port.name = name


def _aside(name: str, taken: set[str]) -> str:
    stem = name = f"{name}_inner"
    count = 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name
