"""Every tensor's encoding: shared scales, fixed outputs, and where one tensor is read in two encodings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.calibration.histogram import EXTREME
from edgedeploy.calibration.quantizer.encoding import (
    Encoding,
    activation_encoding,
    fixed_encoding,
    weight_encoding,
)
from edgedeploy.calibration.quantizer.operands import Role, roles
from edgedeploy.calibration.quantizer.selection import Selection, ends_outside
from edgedeploy.calibration.quantizer.table import RangeTable, constant_range, tensor_range
from edgedeploy.calibration.quantizer.topology import Topology
from edgedeploy.calibration.quantizer.weights import plan_weights
from edgedeploy.calibration.scheme import IntegerFormat, Placement, Scheme

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


#: Parts of one output whose sizes differ by more than this would leave the smaller one fewer than six bits of eight.
_UNLIKE = 4.0

Edge = tuple[str, int]
"""(node name, input position)."""


@dataclass
class Plan:
    """Where Q/DQ pairs go.

    Attributes:
        stored: encoding of each tensor that an integer op leaves in integers: every reader sees the rounded values.
        read: encoding in which an integer op reads a run-time tensor, by edge.
        constants: encoding of a constant or weight, by edge.
        codes: what a weight is rounded to where that is not the nearest, by name and identity of the encoding.
    """

    stored: dict[str, Encoding] = field(default_factory=dict)
    read: dict[Edge, Encoding] = field(default_factory=dict)
    constants: dict[Edge, Encoding] = field(default_factory=dict)
    codes: dict[tuple[str, bytes], NDArray[np.int64]] = field(default_factory=dict)

    def quantized(self, name: str, encoding: Encoding, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """The codes of a constant: those chosen for it, else the nearest."""
        chosen = self.codes.get((name, encoding.identity)) if self.codes else None
        return encoding.quantize(values) if chosen is None else chosen


def make_plan(
    topology: Topology,
    selection: Selection,
    table: RangeTable,
    scheme: Scheme,
    higher: frozenset[str],
    earlier: Plan | None = None,
) -> Plan:
    """Decide every encoding; see `Plan`. ``earlier`` is the plan of the same model with other biases."""
    weights = {} if earlier is None else earlier.constants
    if scheme.placement is Placement.INPUTS:
        return _plan_inputs(topology, selection, table, scheme, weights)
    return _Everywhere(topology, selection, table, scheme, higher, weights).plan()


class _Groups:
    """Tensors that share one encoding (union-find); constants are members by their edge."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (parent := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(parent, parent)
            name = parent
        return name

    def unite(self, first: str, second: str) -> None:
        self._parent[self.find(first)] = self.find(second)

    def members(self) -> Mapping[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in self._parent:
            groups.setdefault(self.find(name), []).append(name)
        return groups


class _Everywhere:
    """Plans `Placement.EVERYWHERE`: an integer op reads and leaves integers."""

    def __init__(
        self,
        topology: Topology,
        selection: Selection,
        table: RangeTable,
        scheme: Scheme,
        higher: frozenset[str],
        earlier: Mapping[Edge, Encoding],
    ) -> None:
        self._earlier = earlier
        self._topology, self._selection, self._table, self._scheme = topology, selection, table, scheme
        self._higher = higher if scheme.higher is not None else frozenset()
        self._groups = _Groups()
        self._fixed: dict[str, Encoding] = {}
        self._fixed_higher: dict[str, Encoding] = {}
        self._roles = {node.name: roles(node, topology) for node in topology.nodes if node.name in selection.integer}
        self._encodings: dict[str, Encoding] = {}
        self._uneven = {node.output[0] for node in self._integer_nodes() if self._joins_unlike_results(node)}
        if scheme.higher is not None and scheme.higher.bits > scheme.activation.bits:
            self._higher |= self._uneven

    def plan(self) -> Plan:
        self._anchor()
        self._share()
        self._members = self._groups.members()
        self._raised = {self._groups.find(name) for name in self._higher}
        plan = Plan()
        for node in self._integer_nodes():
            for name in node.output:
                if name in self._topology.floats and self._leaves_integers(node, name):
                    plan.stored[name] = self._encoding(name)
        for node in self._integer_nodes():
            self._plan_reads(node, plan)
        return plan

    def _integer_nodes(self) -> list[onnx.NodeProto]:
        return [node for node in self._topology.nodes if node.name in self._selection.integer]

    def _joins_unlike_results(self, node: onnx.NodeProto) -> bool:
        """Whether a Concat gives results of far different size out of the graph in one tensor.

        Boxes in pixels and scores below 1 in one 8-bit scale are scores of 0. Such a tensor is stored in the wider
        format, where the scheme has one, and its parts keep scales of their own until they are joined.
        """
        if node.op_type != "Concat" or not ends_outside(node, self._topology, self._scheme):
            return False
        form = self._scheme.activation
        ranges = [
            tensor_range(name, form, self._topology, self._table) for name in node.input if self._at_run_time(name)
        ]
        sizes = [max(-found.low, found.high) for found in ranges]
        return len(sizes) > 1 and max(sizes) > _UNLIKE * min(sizes)

    def _at_run_time(self, name: str) -> bool:
        return name in self._topology.floats and name not in self._topology.constants

    def _leaves_integers(self, node: onnx.NodeProto, name: str) -> bool:
        if name in self._selection.inner:
            return False
        if node.op_type not in self._scheme.float_outputs:
            return True
        readers = self._topology.consumers.get(name, ())
        return any(reader.name in self._selection.integer for reader, _ in readers)

    def _anchor(self) -> None:
        """Fix what the runtime dictates and what an embedding table brings along."""
        for node in self._integer_nodes():
            fixed = self._scheme.fixed_outputs.get(node.op_type)
            if fixed is not None:
                form = self._scheme.activation
                self._fixed[node.output[0]] = fixed_encoding(fixed.scale, fixed.zero_point, form)
            wider = self._scheme.higher_fixed_outputs.get(node.op_type)
            if wider is not None and self._scheme.higher is not None:
                encoding = fixed_encoding(wider.scale, wider.zero_point, self._scheme.higher)
                self._fixed_higher[node.output[0]] = encoding
            if node.op_type == "Gather" and Role.WEIGHT in self._roles[node.name]:
                form = self._scheme.weight_format("Gather")
                self._fixed[node.output[0]] = weight_encoding(self._topology.value(node.input[0]), form, None)

    def _share(self) -> None:
        for node in self._integer_nodes():
            if node.op_type not in self._scheme.shared_scale or node.op_type == "Clip":
                continue
            output = next(name for name in node.output if name in self._topology.floats)
            for other in node.output[1:]:
                self._unite(other, output)
            moving = [
                name for name, role in zip(node.input, self._roles[node.name], strict=True) if role is Role.ACTIVATION
            ]
            for name in moving:
                # A branch with a dictated scale is requantized before it joins others, and one of another size.
                if len(moving) > 1 and (self._groups.find(name) in self._anchored() or output in self._uneven):
                    continue
                self._unite(name, output)

    def _anchored(self) -> set[str]:
        return {self._groups.find(name) for name in self._fixed}

    def _unite(self, first: str, second: str) -> None:
        self._groups.unite(first, first)
        self._groups.unite(second, second)
        self._groups.unite(first, second)

    def _encoding(self, name: str) -> Encoding:
        """The encoding of a run-time tensor and of everything that shares its scale."""
        root = self._groups.find(name)
        if root not in self._encodings:
            self._encodings[root] = self._choose(self._members.get(root, [name]), root in self._raised)
        return self._encodings[root]

    def _choose(self, members: list[str], raised: bool) -> Encoding:
        dictated = self._fixed_higher if raised and self._fixed_higher else self._fixed
        for name in members:
            if name in dictated:
                return dictated[name]
        form = self._scheme.higher if raised and self._scheme.higher else self._scheme.activation
        return self._over(members, form)

    def _over(self, members: list[str], form: IntegerFormat) -> Encoding:
        ranges = [tensor_range(name, form, self._topology, self._table) for name in members]
        lows, highs = [r.low for r in ranges], [r.high for r in ranges]
        for name in members:
            node = self._topology.producer.get(name)
            if node is None or node.op_type not in self._scheme.shared_scale:
                continue
            for source, role in zip(node.input, self._roles.get(node.name, ()), strict=False):
                if role is Role.CONSTANT:
                    held = constant_range(self._topology.value(source))
                    lows.append(held.low)
                    highs.append(held.high)
        return activation_encoding(min(lows), max(highs), form)

    def _format(self, node: onnx.NodeProto) -> IntegerFormat:
        """The activation format in which a node computes: that of its float output."""
        for name in node.output:
            if name in self._topology.floats:
                final = self._final(name)
                if self._groups.find(final) in self._raised and self._scheme.higher:
                    return self._scheme.higher
        return self._scheme.activation

    def _final(self, name: str) -> str:
        while name in self._selection.inner:
            name = self._topology.consumers[name][0][0].output[0]
        return name

    def _plan_reads(self, node: onnx.NodeProto, plan: Plan) -> None:
        parts = self._roles[node.name]
        form = self._format(node)
        moves = node.op_type in self._scheme.shared_scale
        for position, (name, role) in enumerate(zip(node.input, parts, strict=True)):
            edge = (node.name, position)
            if role is Role.ACTIVATION and name not in self._selection.inner:
                plan.read[edge] = self._read(node, name, form, moves)
            elif role is Role.CONSTANT and edge not in plan.constants:
                values = self._topology.value(name)
                held = constant_range(values)
                # The filler of a mask saturates where the result does.
                if moves or np.abs(values).max(initial=0.0) >= EXTREME:
                    plan.constants[edge] = self._encoding(node.output[0])
                else:
                    plan.constants[edge] = activation_encoding(held.low, held.high, form)
        plan_weights(
            node, parts, self._topology, self._scheme, self._selection, plan.read, plan.constants, self._earlier
        )

    def _read(self, node: onnx.NodeProto, name: str, form: IntegerFormat, moves: bool) -> Encoding:
        if moves and (floats := [out for out in node.output if out in self._topology.floats]):
            return self._encoding(floats[0])
        own = self._encoding(name)
        return own if own.format.dtype == form.dtype else self._over([name], form)


def _plan_inputs(
    topology: Topology, selection: Selection, table: RangeTable, scheme: Scheme, earlier: Mapping[Edge, Encoding]
) -> Plan:
    """Plan `Placement.INPUTS`: what an integer op reads is rounded, what it makes stays float."""
    plan = Plan()

    def read(node: onnx.NodeProto, position: int) -> None:
        name = node.input[position]
        chosen = tensor_range(name, scheme.activation, topology, table)
        plan.read[node.name, position] = activation_encoding(chosen.low, chosen.high, scheme.activation)

    for node in topology.nodes:
        if node.name in selection.integer and scheme.computes(node.op_type):
            parts = roles(node, topology)
            for position, role in enumerate(parts):
                if role is Role.ACTIVATION:
                    read(node, position)
                elif role is Role.CONSTANT:
                    held = constant_range(topology.value(node.input[position]))
                    plan.constants[node.name, position] = activation_encoding(held.low, held.high, scheme.activation)
            plan_weights(node, parts, topology, scheme, selection, plan.read, plan.constants, earlier)
        elif scheme.residual_one_branch and node.op_type == "Add":
            branch = _other_branch(node, topology, selection)
            if branch is not None:
                read(node, branch)
    return plan


def _other_branch(node: onnx.NodeProto, topology: Topology, selection: Selection) -> int | None:
    """The input of a residual Add that is not computed in one kernel with it; ``None`` where no branch is."""
    if any(name in topology.constants for name in node.input):
        return None
    order = {item.name: place for place, item in enumerate(topology.nodes)}
    fusible = [
        (order[producer.name], position)
        for position, name in enumerate(node.input)
        if (producer := topology.producer.get(name)) is not None
        and producer.op_type == "Conv"
        and producer.name in selection.integer
        and len(topology.consumers[name]) == 1
        and name not in topology.outputs
    ]
    return 1 - max(fusible)[1] if fusible else None
