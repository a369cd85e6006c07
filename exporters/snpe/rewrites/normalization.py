"""GroupNormalization, which QNN refuses, as instance normalization over reshaped groups."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of


def group_normalization(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Reshape to (1, groups, -1), normalize, reshape back, scale and shift (Wu & He 2018, equations 1 and 2)."""
    data, gamma_name, beta_name = node.input
    shape = editor.shapes.get(data)
    if shape is None or gamma_name not in editor.constants or beta_name not in editor.constants:
        return None
    given = attributes_of(node)
    groups, channels = int(given["num_groups"]), shape[1]
    gamma, beta = (_per_channel(editor.constants[name], channels) for name in (gamma_name, beta_name))
    near = node.output[0]
    tail = (1, channels, *[1] * (len(shape) - 2))
    folded = editor.node(
        "Reshape", [data, editor.constant(f"{near}_folded", np.array([shape[0], groups, -1], np.int64))], near=near
    )
    ones = editor.constant(f"{near}_ones", np.ones(groups, np.float32))
    zeros = editor.constant(f"{near}_zeros", np.zeros(groups, np.float32))
    normal = editor.node(
        "InstanceNormalization",
        [folded.output[0], ones, zeros],
        near=near,
        epsilon=float(given.get("epsilon", 1e-5)),
    )
    back = editor.node(
        "Reshape", [normal.output[0], editor.constant(f"{near}_shape", np.array(shape, np.int64))], near=near
    )
    scaled = editor.node("Mul", [back.output[0], editor.constant(f"{near}_gamma", gamma.reshape(tail))], near=near)
    shifted = editor.node(
        "Add", [scaled.output[0], editor.constant(f"{near}_beta", beta.reshape(tail))], near, near=near
    )
    return [folded, normal, back, scaled, shifted]


def _per_channel(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], channels: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Until opset 21 gamma and beta are given per group."""
    return np.repeat(values, channels // values.size)
