"""The Erf form of GELU, x * 0.5 * (1 + erf(x / sqrt 2)) in any order of its factors, by one Gelu op."""

from __future__ import annotations

import math

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor


def gelu(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Recognise the last Mul of the pattern; what it no longer reads is removed as dead."""
    factors = _factors(node.output[0], editor)
    scale, sums, others = 1.0, [], []
    for name in factors:
        value = _scalar(name, editor)
        if value is not None:
            scale *= value
        elif (source := _erf_source(name, editor)) is not None:
            sums.append(source)
        else:
            others.append(name)
    if len(sums) == 1 and others == sums and math.isclose(scale, 0.5, rel_tol=1e-4):
        return [editor.node("Gelu", [sums[0]], node.output[0], near=node.output[0], approximate="none")]
    return None


def _factors(name: str, editor: Editor, depth: int = 3) -> list[str]:
    """The factors of a product of up to three nested Muls."""
    node = editor.producers.get(name)
    if node is None or node.op_type != "Mul" or depth == 0:
        return [name]
    return [factor for operand in node.input for factor in _factors(operand, editor, depth - 1)]


def _scalar(name: str, editor: Editor) -> float | None:
    value = editor.constants.get(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _erf_source(name: str, editor: Editor) -> str | None:
    """x, where ``name`` is 1 + erf(x / sqrt 2)."""
    total = editor.producers.get(name)
    if total is None or total.op_type != "Add":
        return None
    for one, term in (tuple(total.input), tuple(reversed(total.input))):
        erf = editor.producers.get(term)
        if _scalar(one, editor) == 1.0 and erf is not None and erf.op_type == "Erf":
            return _divided(erf.input[0], editor)
    return None


def _divided(name: str, editor: Editor) -> str | None:
    node = editor.producers.get(name)
    if node is None or node.op_type not in ("Div", "Mul"):
        return None
    wanted = np.sqrt(2.0) if node.op_type == "Div" else np.sqrt(0.5)
    for source, constant in (tuple(node.input), tuple(reversed(node.input))):
        value = _scalar(constant, editor)
        if value is not None and math.isclose(value, wanted, rel_tol=1e-4):
            return str(source)
        if node.op_type == "Div":
            break
    return None
