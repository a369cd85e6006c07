"""Qualcomm's compiler and HTP simulator for real: what runs, what is refused and by which name, what crashes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from snpe_nets import SM8350, V68, compiled_cnn, cosine, graph_of, images, quantized, small_cnn, weights

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.schemes import QNN_A8W8
from edgedeploy.calibration.session import Calibration
from edgedeploy.errors import ExitCode, ToolFailedError, UnsupportedOpError
from edgedeploy.exporters.snpe.compile import compile_graph
from edgedeploy.exporters.snpe.dlc.container import split_records
from edgedeploy.exporters.snpe.dlc.reader import read_dlc
from edgedeploy.exporters.snpe.precision import a8w8, a16w8
from edgedeploy.exporters.snpe.qnn import host
from edgedeploy.exporters.snpe.qnn.install import require_qnn
from edgedeploy.exporters.snpe.qnn.job import Job
from edgedeploy.exporters.snpe.qnn.options import htp_options
from edgedeploy.exporters.snpe.readback import check_readback, float_ops
from edgedeploy.exporters.snpe.rewrites.apply import for_hexagon
from edgedeploy.exporters.snpe.target_proof import check_target, read_proof


def simulate(compiled, samples, folder: Path) -> list[dict[str, np.ndarray]]:
    """Run the context binary in the HTP simulator."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    for index, sample in enumerate(samples):
        np.savez(folder / "in" / f"{index}.npz", **sample)
    job = Job(
        str(compiled.context_model), htp_options(require_qnn(), SM8350), str(folder / "answer.json"),
        samples=str(folder / "in"), outputs=str(folder / "out"), count=len(samples), load_by_path=True,
    )  # fmt: skip
    answer = host.run_job(job, folder, timeout_s=120)
    assert not answer.error
    assert set(answer.providers) == {"QNNExecutionProvider"}
    return [dict(np.load(folder / "out" / f"{index}.npz")) for index in range(len(samples))]


def emulate(model: onnx.ModelProto, sample) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, sample)


def compile_model(model: onnx.ModelProto, folder: Path):
    path = folder / "model_qdq.onnx"
    onnx.save(model, path)
    return compile_graph(require_qnn(), path, V68, SM8350, folder / "work")


def test_the_simulator_agrees_with_the_qdq_simulation(tmp_path):
    compiled, model = compiled_cnn()
    assert set(compiled.providers) == {"QNNExecutionProvider"}
    samples = [{"image": image} for image in images(12, 1, 3, 16, 16, seed=9)]
    simulated = simulate(compiled, samples, tmp_path / "run")
    scale = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == model.graph.node[-1].input[1])
    steps = [
        np.abs(result["scores"] - emulate(model, sample)[0]) / scale
        for sample, result in zip(samples, simulated, strict=True)
    ]
    assert np.quantile(np.stack(steps), 0.99) <= 2


def test_every_dlc_is_read_back_equal_and_a_difference_is_named():
    compiled, model = compiled_cnn()
    dlc = read_dlc(compiled.dlcs[0])
    seen = check_readback([dlc], model, compiled.trace)
    assert seen.nodes == len(dlc.graphs[0].nodes)
    assert seen.weights == 6  # three weights, three biases
    assert seen.encodings >= 6
    assert seen.plain_tables == 0
    assert float_ops(dlc) == []
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w1_quantized":
            values.flat[3] += 1
        if tensor.name == "sum_scale":
            values = values * np.float32(1.5)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ToolFailedError) as caught:
        check_readback([dlc], other, compiled.trace)
    assert "weight 'w1_quantized' differs" in str(caught.value)
    assert "sum" in str(caught.value)
    assert caught.value.exit_code is ExitCode.TOOL_FAILED


def test_a_convolution_over_one_axis_and_a_slope_are_read_back(tmp_path):
    """QNN gives the convolution a second axis and makes the slope a weight: neither is in the quantized graph so."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="over_time", kernel_shape=[3], pads=[1, 1]),
        helper.make_node("LeakyRelu", ["c"], ["l"], name="leaky", alpha=0.1),
        helper.make_node("Conv", ["l", "v"], ["y"], kernel_shape=[1]),
    ]
    constants = {"w": weights(6, 4, 3), "v": weights(5, 6, 1, seed=2)}
    model = quantized(graph_of(nodes, {"x": [1, 4, 12]}, ["y"], constants), {"x": images(8, 4, 12)})
    compiled = compile_model(model, tmp_path)
    dlc = read_dlc(compiled.dlcs[0])
    assert check_readback([dlc], model, compiled.trace).weights >= 3
    slope = next(node for node in model.graph.node if node.name == "leaky")
    slope.attribute[0].f = 0.2
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "w_quantized")
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored)[:, :, ::-1].copy(), stored.name))
    with pytest.raises(ToolFailedError) as caught:
        check_readback([dlc], model, compiled.trace)
    assert "weight 'w_quantized' differs" in str(caught.value)
    assert "slope 'leaky_alpha' is not the 0.2" in str(caught.value)


def test_the_context_binary_proves_its_target(tmp_path):
    proof = read_proof(compiled_cnn()[0].context_binary)
    assert (proof.soc, proof.arch) == ("SM8350", 68)
    assert proof.runtime.startswith("2.")
    check_target(proof, 68)
    with pytest.raises(ToolFailedError, match=r"V68 \(SM8350\), expected V73"):
        check_target(proof, 73)
    nothing = tmp_path / "model.bin"
    nothing.write_bytes(b"\0" * 100)
    with pytest.raises(ToolFailedError, match="does not say"):
        read_proof(nothing)


def test_two_builds_differ_in_timestamps_only(tmp_path):
    first, model = compiled_cnn()
    second = compile_model(model, tmp_path)
    assert first.context_binary.read_bytes() == second.context_binary.read_bytes()
    assert first.context_model.read_bytes() == second.context_model.read_bytes()
    left, right = (split_records(memoryview(item.dlcs[0].read_bytes())) for item in (first, second))
    assert left.keys() == right.keys()
    differing = {name for name in left if bytes(left[name]) != bytes(right[name])}
    assert all(name.startswith("dlc.metadata") for name in differing)


def test_an_op_that_qnn_refuses_is_named_with_its_reason(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Einsum", ["c", "c"], ["e"], equation="abcd,abcd->abcd", name="strange"),
        helper.make_node("Relu", ["e"], ["y"]),
    ]
    graph = graph_of(nodes, {"x": [1, 3, 4, 4]}, ["y"], {"w": weights(3, 3, 1, 1)})
    model = quantized(graph, {"x": images(4, 3, 4, 4)})
    with pytest.raises(UnsupportedOpError) as caught:
        compile_model(model, tmp_path)
    assert caught.value.ops[0][:2] == ("Einsum", "strange")
    assert "abcd" in caught.value.ops[0][2]  # Qualcomm's own words
    assert caught.value.exit_code is ExitCode.BAD_INPUT


def test_float_ops_are_found(tmp_path):
    """The simulator runs floats though V68 cannot: the DLC is what tells."""
    graph = small_cnn()
    floats = frozenset(node.name for node in graph.model.graph.node if node.op_type in ("ReduceMean", "Gemm"))
    table = Calibration(graph, ArrayDataset({"image": images(4, 3, 16, 16)})).table
    model = quantize(graph, table, QNN_A8W8, exclude=floats)
    compiled = compile_model(model, tmp_path)
    found = float_ops(read_dlc(compiled.dlcs[0]))
    assert "floating-point" in found[0][2]
    assert {op for op, _, _ in found} >= {"FullyConnected"}


@pytest.mark.parametrize("recipe", [a8w8, a16w8], ids=["a8w8", "a16w8"])
def test_rewritten_ops_compute_rightly_on_hexagon(tmp_path, recipe):
    """AveragePool with ceil_mode compiled and was wrong; LSTM could not be prepared; Softsign was refused."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("AveragePool", ["c"], ["p"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        helper.make_node("Softsign", ["p"], ["s"]),
        helper.make_node("Reshape", ["s", "sequence"], ["seq"]),
        helper.make_node("LSTM", ["seq", "W", "R", "B"], ["steps", "last"], hidden_size=8),
        helper.make_node("Reshape", ["last", "flat"], ["y"]),
    ]
    constants = {
        "w": weights(6, 3, 3, 3), "sequence": np.array([6, 1, 16]), "flat": np.array([1, 8]),
        "W": 2 * weights(1, 32, 16), "R": weights(1, 32, 8, seed=5), "B": weights(1, 64, seed=6),
    }  # fmt: skip
    graph = graph_of(nodes, {"x": [1, 3, 8, 8]}, ["y"], constants)
    model = quantized(graph, {"x": images(16, 3, 8, 8)}, recipe)
    compiled = compile_model(model, tmp_path)
    check_readback([read_dlc(compiled.dlcs[0])], model, compiled.trace)
    samples = [{"x": image} for image in images(4, 1, 3, 8, 8, seed=7)]
    for sample, simulated in zip(samples, simulate(compiled, samples, tmp_path / "run"), strict=True):
        assert cosine(simulated["y"], emulate(for_hexagon(graph.model).model, sample)[0]) > 0.99
        assert cosine(simulated["y"], emulate(model, sample)[0]) > 0.995


def worker(tmp_path: Path, code: str) -> tuple[str, ...]:
    script = tmp_path / "worker.py"
    script.write_text(code)
    return (sys.executable, str(script))


@pytest.mark.parametrize(
    ("code", "patience_s", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 120, "ended by SIGSEGV"),
        ("import sys; sys.stderr.write('prepare exploded'); sys.exit(3)", 120, "prepare exploded"),
        ("pass", 120, "no answer"),
        ("import time; time.sleep(100000)", 1, "no sign of life"),
    ],
    ids=["crash", "exit", "silent", "hang"],
)
def test_a_crashing_simulator_is_told(tmp_path, monkeypatch, code, patience_s, told):
    monkeypatch.setattr(host, "COMMAND", worker(tmp_path, code))
    job = Job(str(tmp_path / "m.onnx"), {}, str(tmp_path / "answer.json"))
    with pytest.raises(ToolFailedError) as caught:
        host.run_job(job, tmp_path / "work", timeout_s=patience_s)
    assert told in str(caught.value)
    assert caught.value.exit_code is ExitCode.TOOL_FAILED


@pytest.mark.parametrize(
    ("nodes", "constants", "recipe"),
    [
        ([helper.make_node("CumSum", ["h", "axis"], ["l"])], {"axis": np.array(1)}, a8w8),
        (
            [
                helper.make_node("Abs", ["h"], ["a"]),
                helper.make_node("Add", ["a", "half"], ["b"]),
                helper.make_node("Log", ["b"], ["l"]),
            ],
            {"half": np.float32(0.5)},
            a16w8,
        ),
    ],
    ids=["CumSum at 8 bits", "Log at 16 bits"],
)
def test_ops_that_compile_and_then_compute_wrongly_get_the_other_precision(tmp_path, nodes, constants, recipe):
    around = [helper.make_node("MatMul", ["x", "w"], ["h"]), *nodes, helper.make_node("MatMul", ["l", "v"], ["y"])]
    weighted = {"w": weights(16, 16), "v": weights(16, 8, seed=4), **constants}
    graph = graph_of(around, {"x": [1, 4, 16]}, ["y"], weighted)
    model = quantized(graph, {"x": images(16, 4, 16)}, recipe)
    compiled = compile_model(model, tmp_path)
    samples = [{"x": sample} for sample in images(2, 1, 4, 16, seed=5)]
    for sample, simulated in zip(samples, simulate(compiled, samples, tmp_path / "run"), strict=True):
        assert cosine(simulated["y"], emulate(graph.model, sample)[0]) > 0.999
