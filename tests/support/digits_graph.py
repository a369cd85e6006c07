"""The canonical graph of the trained digits CNN, as a fixture: import it in a conftest."""

import io

import pytest
import torch
import zoo

from edgedeploy.graph.graph import Graph, graph_from_onnx


@pytest.fixture(scope="session")
def digits_graph() -> Graph:
    import onnx

    buffer = io.BytesIO()
    program = torch.onnx.export(
        zoo.digits_cnn(),
        (torch.zeros(1, 1, 8, 8),),
        dynamo=True,
        opset_version=20,
        verbose=False,
        input_names=["image"],
    )
    program.save(buffer)
    return graph_from_onnx(onnx.load_from_string(buffer.getvalue()))
