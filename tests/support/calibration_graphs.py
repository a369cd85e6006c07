"""Small FP32 graphs for calibration tests, written as ONNX text so that a reader sees the whole model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from edgedeploy.graph.graph import Graph


def graph_from_text(text: str, **weights: np.ndarray) -> Graph:
    """Parse ONNX text; ``weights`` become initializers, every shape is inferred."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def one_op() -> Graph:
    """Input x (1, 4), output y = relu(x)."""
    return graph_from_text("one (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")


def two_layers(seed: int = 0) -> Graph:
    """Conv, ReLU, residual Add, pool, reshape, Gemm; input image (1, 3, 12, 12), output scores (1, 5)."""
    rng = np.random.default_rng(seed)
    return graph_from_text(
        """two (float[1, 3, 12, 12] image) => (float[1, 5] scores) {
            convolved = Conv <pads = [1, 1, 1, 1]> (image, w1)
            active = Relu(convolved)
            second = Conv <pads = [1, 1, 1, 1]> (active, w2)
            added = Add(active, second)
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (added)
            flat = Flatten(pooled)
            scores = Gemm(flat, w3, b3)
        }""",
        w1=rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        w2=rng.normal(size=(8, 8, 3, 3)).astype(np.float32) / 8,
        w3=rng.normal(size=(288, 5)).astype(np.float32) / 16,
        b3=rng.normal(size=5).astype(np.float32),
    )
