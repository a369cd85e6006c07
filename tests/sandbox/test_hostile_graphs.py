"""Graphs that crash, never end or eat memory end with a sentence and exit code 2, and leave nothing behind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.cli import main


def save(path, nodes, inputs, outputs, initializers=(), functions=(), opset=20):
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    results = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs]
    graph = helper.make_graph(nodes, "g", values, results, list(initializers))
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid("f", 1)] if functions else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10), path)


def integer_division_overflow(path):
    """-2^63 / -1 is SIGFPE on x86."""
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
             helper.make_node("Mul", ["i", "zero"], ["z"]),
             helper.make_node("Add", ["z", "least"], ["a"]), helper.make_node("Div", ["a", "minus"], ["d"]),
             helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT)]  # fmt: skip
    constants = [numpy_helper.from_array(np.array([value], np.int64), name)
                 for name, value in (("zero", 0), ("least", -(2**63)), ("minus", -1))]  # fmt: skip
    save(path, nodes, [("x", 1, [1, 4])], [("y", 1, [1, 4])], constants)


def endless_loop(path):
    """A Loop of 2^62 turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Add", ["v", "v"], ["vo"])],
        "body",
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (("n", 7, []), ("c", 9, []), ("v", 1, [1, 4]))],
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (("co", 9, []), ("vo", 1, [1, 4]))],
    )
    nodes = [helper.make_node("Loop", ["turns", "go", "x"], ["y"], body=body)]
    constants = [
        numpy_helper.from_array(np.array(2**62, np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    save(path, nodes, [("x", 1, [1, 4])], [("y", 1, [1, 4])], constants)


def doubling_functions(path):
    """31 functions, each calling the one before twice: 2^30 nodes after inlining, in 3 KB."""
    functions = []
    for level in range(31):
        op, domain = ("Relu", "") if level == 0 else (f"F{level - 1}", "f")
        nodes = [helper.make_node(op, ["a"], ["b"], domain=domain), helper.make_node(op, ["b"], ["c"], domain=domain)]
        functions.append(
            helper.make_function(
                "f", f"F{level}", ["a"], ["c"], nodes, [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
            )
        )
    save(
        path, [helper.make_node("F30", ["x"], ["y"], domain="f")], [("x", 1, [1, 4])], [("y", 1, [1, 4])], (), functions
    )


def huge_kernel(path):
    """AveragePool with a kernel of 2^31."""
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["y"], kernel_shape=[2**31 - 1, 1], pads=[2**30, 0, 2**30, 0], strides=[1, 1]
        )
    ]
    save(path, nodes, [("x", 1, [1, 1, 8, 8])], [("y", 1, None)])


def huge_expand(path):
    """A value of 2^40 elements."""
    nodes = [helper.make_node("Expand", ["x", "shape"], ["e"]), helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0)]
    constants = [numpy_helper.from_array(np.array([2**20, 2**18, 4], np.int64), "shape")]
    save(path, nodes, [("x", 1, [1, 4])], [("y", 1, [])], constants)


def endless_einsum(path):
    """An equation whose loop has no end in sight."""
    nodes = [helper.make_node("Einsum", ["x", "x", "x", "x"], ["y"], equation="abcd,efgh,ijkl,mnop->")]
    save(path, nodes, [("x", 1, [32, 32, 32, 32])], [("y", 1, [])])


GRAPHS = [integer_division_overflow, endless_loop, doubling_functions, huge_kernel, huge_expand, endless_einsum]


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_a_hostile_graph_ends_with_a_sentence(build, tmp_path, capfd):
    build(tmp_path / "model.onnx")
    with pytest.raises(SystemExit) as ended:
        main(["-t", "host", "-o", str(tmp_path / "out"), "--step-seconds", "5", str(tmp_path / "model.onnx")])
    error = capfd.readouterr().err
    assert ended.value.code == 2, error
    assert "error:" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
