"""Activations that QNN refuses, cannot prepare or makes coarse, by ones it takes; each identity is exact."""

from __future__ import annotations

import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of

# onnx.ai/onnx/operators/onnx__Selu.html
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def celu(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Celu: a * elu(x / a)."""
    alpha = float(attributes_of(node).get("alpha", 1.0))
    near = node.output[0]
    shrunk = editor.node("Mul", [node.input[0], editor.constant(f"{near}_inverse", 1.0 / alpha)], near=near)
    bent = editor.node("Elu", [shrunk.output[0]], near=near, alpha=1.0)
    grown = editor.node("Mul", [bent.output[0], editor.constant(f"{near}_alpha", alpha)], near, near=near)
    return [shrunk, bent, grown]


def selu(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Selu: gamma * elu(x, alpha)."""
    given = attributes_of(node)
    near = node.output[0]
    bent = editor.node("Elu", [node.input[0]], near=near, alpha=float(given.get("alpha", _SELU_ALPHA)))
    gamma = editor.constant(f"{near}_gamma", float(given.get("gamma", _SELU_GAMMA)))
    return [bent, editor.node("Mul", [bent.output[0], gamma], near, near=near)]


def softsign(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Softsign: x / (1 + |x|)."""
    near = node.output[0]
    size = editor.node("Abs", [node.input[0]], near=near)
    below = editor.node("Add", [size.output[0], editor.constant(f"{near}_one", 1.0)], near=near)
    return [size, below, editor.node("Div", [node.input[0], below.output[0]], near, near=near)]


def mish(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Mish: x * tanh(softplus(x))."""
    near = node.output[0]
    soft = editor.node("Softplus", [node.input[0]], near=near)
    gate = editor.node("Tanh", [soft.output[0]], near=near)
    return [soft, gate, editor.node("Mul", [node.input[0], gate.output[0]], near, near=near)]


def reciprocal(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Reciprocal: 1 / x. QNN would store the 1 on the grid of x, up to half a step off, and so every quotient."""
    near = node.output[0]
    return [editor.node("Div", [editor.constant(f"{near}_one", 1.0), node.input[0]], near, near=near)]


def prelu(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """PRelu with constant slopes: relu(x) - a * relu(-x)."""
    if node.input[1] not in editor.constants:
        return None
    near = node.output[0]
    above = editor.node("Relu", [node.input[0]], near=near)
    negated = editor.node("Neg", [node.input[0]], near=near)
    below = editor.node("Relu", [negated.output[0]], near=near)
    slope = editor.constant(f"{near}_slope", -editor.constants[node.input[1]])
    bent = editor.node("Mul", [below.output[0], slope], near=near)
    return [above, negated, below, bent, editor.node("Add", [above.output[0], bent.output[0]], near, near=near)]
