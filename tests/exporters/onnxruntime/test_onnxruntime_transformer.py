"""The candidates of a trained sentence encoder: sizes, closeness to FP32, and the rewrites that make them fast."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnxruntime_cases import cosines, execute, minilm

from edgedeploy.exporters.onnxruntime.exporter import OnnxRuntimeExporter


@pytest.fixture(scope="module")
def encoder():
    return minilm()


@pytest.fixture(scope="module")
def artefacts(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefacts")
    return {item.candidate: item for item in OnnxRuntimeExporter().candidates(encoder.context(folder))}


def test_a_transformer_gets_dynamic_and_weight_only_forms(artefacts):
    assert list(artefacts) == ["dynamic-int8", "weight-only-int8", "weight-only-int4", "float32"]
    assert "transformer layers carry" in artefacts["float32"].details["not_offered"]["static-qdq"]


@pytest.mark.parametrize(
    ("candidate", "largest_mb", "cosine"),
    [
        ("dynamic-int8", 23.5, 0.99),
        ("weight-only-int8", 24.5, 0.999),
        ("weight-only-int4", 14.5, 0.95),
        ("float32", 91, 0.99999),
    ],
)
def test_size_and_closeness(encoder, artefacts, candidate, largest_mb, cosine):
    artefact = artefacts[candidate]
    assert artefact.figures[0].value <= largest_mb
    assert cosines(encoder.reference, execute(artefact, encoder.samples)).mean() >= cosine


def test_every_linear_layer_and_embedding_is_packed(artefacts):
    dynamic = Counter(node.op_type for node in onnx.load(artefacts["dynamic-int8"].path).graph.node)
    assert dynamic["MatMulInteger"] == 36
    assert dynamic["MatMul"] == 12  # attention: both operands are computed
    four = Counter(node.op_type for node in onnx.load(artefacts["weight-only-int4"].path).graph.node)
    assert four["MatMulNBits"] == 36 and four["GatherBlockQuantized"] >= 1
    for candidate in ("dynamic-int8", "weight-only-int8", "weight-only-int4"):
        floats = [
            tensor.name
            for tensor in onnx.load(artefacts[candidate].path).graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 2_000_000
        ]
        assert floats == []


def test_layer_norms_are_rewritten_and_the_manifest_says_so(artefacts):
    for artefact in artefacts.values():
        assert artefact.details["vectorized_layer_norms"] == 13
        assert "LayerNormalization" not in {node.op_type for node in onnx.load(artefact.path).graph.node}
