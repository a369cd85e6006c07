"""Every scheme against exact integer arithmetic: on the machine at hand, and on an emulated CPU that saturates."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import saturating_nets as nets
from exact_integers import exact_outputs
from onnx import TensorProto, helper, numpy_helper
from without_vnni import work_without_vnni

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.device_profiles.machine import Machine, this_machine
from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.onnxruntime import probe, runner
from edgedeploy.targets.onnxruntime.exact import largest_signed_weight, unsigned_weights
from edgedeploy.targets.onnxruntime.job import Samples, WorkerJob
from edgedeploy.targets.onnxruntime.runner import OnnxRuntimeRunner

SCHEMES = [
    (net, profile, candidate)
    for net, candidates in (
        ("convolutions", ["static-qdq"]),
        ("elementwise", ["static-qdq"]),
        ("wide", ["static-qdq"]),
        ("linear", ["static-qdq", "dynamic-int8", "weight-only-int8", "weight-only-int4"]),
    )
    for profile in nets.PROFILES
    for candidate in candidates
]
#: A CPU without VNNI, as /proc/cpuinfo describes it.
AVX2 = Machine("x86_64", frozenset({"avx2", "fma", "sse2"}), "i5", 2)


@dataclass(frozen=True)
class Case:
    """An artefact, the samples it is compared on, and its outputs in exact integers, stacked."""

    artefact: Artefact
    profile: str
    samples: ArrayDataset
    right: dict[str, np.ndarray]

    def job(self, folder: Path) -> RunJob:
        return RunJob(load_profile(self.profile), self.samples, folder, measure=False)

    def check(self, outputs) -> None:
        """Bit for bit, but where float32 sums follow the integer ones: those are added up in any order."""
        for name, right in self.right.items():
            if "weight-only" in self.artefact.candidate:
                np.testing.assert_allclose(outputs[name], right, rtol=1e-5, atol=1e-5 * np.abs(right).max())
            else:
                step = np.abs(right).max() * 1e-6  # a scale times a sum is rounded to float32 once
                np.testing.assert_allclose(outputs[name], right, rtol=0, atol=step, err_msg=name)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The cases by net, profile and candidate, made when first asked for."""
    made: dict[tuple[str, str, str], Case] = {}

    def case(net: str, profile: str, candidate: str) -> Case:
        if (net, profile, candidate) not in made:
            graph: Graph = getattr(nets, net)()
            artefact = nets.artefact(graph, profile, candidate, tmp_path_factory.mktemp(f"{net}-{candidate}"))
            samples = ArrayDataset(nets.inputs(graph, nets.COMPARED))
            model = onnx.load(artefact.path)
            right = [exact_outputs(model, sample) for sample in samples]
            stacked = {name: np.stack([item[name] for item in right]) for name in right[0]}
            made[net, profile, candidate] = Case(artefact, profile, samples, stacked)
        return made[net, profile, candidate]

    return case


@pytest.mark.parametrize(("net", "profile", "candidate"), SCHEMES)
def test_a_run_gives_what_the_target_computes_whatever_machine_runs_it(cases, tmp_path, net, profile, candidate):
    case = cases(net, profile, candidate)
    result = OnnxRuntimeRunner().run(case.artefact, case.job(tmp_path))
    case.check(result.outputs)


@pytest.fixture(scope="module")
def emulated(cases, tmp_path_factory):
    """Outputs of every case on a CPU without VNNI, standing in for the target or (``plain``) as the file is."""
    folder = tmp_path_factory.mktemp("haswell")
    prepared = {}
    for number, key in enumerate(SCHEMES):
        for stands_in in (True, False):
            case = cases(*key)
            job = case.job(folder / f"{number}-{stands_in}")
            prepared[key, stands_in] = WorkerJob.write(case.artefact, job, Samples(), stands_in=stands_in)
    work_without_vnni([work.folder for work in prepared.values()])
    return {key: (work.outputs(work.result()["outputs"]), work.result()) for key, work in prepared.items()}


@pytest.mark.parametrize(("net", "profile", "candidate"), SCHEMES)
def test_a_cpu_that_saturates_gives_it_too(cases, emulated, net, profile, candidate):
    outputs, result = emulated[(net, profile, candidate), True]
    assert result.get("wrong_in_probe", []) == []
    cases(net, profile, candidate).check(outputs)


def test_the_same_file_as_it_is_saturates_there(cases, emulated):
    """So the test above would see a fault."""
    for net, candidate in (("convolutions", "static-qdq"), ("linear", "dynamic-int8")):
        outputs, _ = emulated[(net, "x86-avx512vnni", candidate), False]
        with pytest.raises(AssertionError):
            cases(net, "x86-avx512vnni", candidate).check(outputs)


@pytest.mark.parametrize(
    ("net", "candidate"), [(net, candidate) for net, profile, candidate in SCHEMES if profile == "x86-avx2"]
)
def test_what_is_made_for_avx2_cannot_saturate_there(cases, emulated, net, candidate):
    """Its own kernels, on its own CPU, as the file is: exact integers, so any machine may stand in for it."""
    outputs, _ = emulated[(net, "x86-avx2", candidate), False]
    cases(net, "x86-avx2", candidate).check(outputs)


@pytest.mark.parametrize(("net", "candidate"), [("convolutions", "static-qdq"), ("linear", "dynamic-int8")])
def test_no_pair_of_products_of_reduced_weights_leaves_sixteen_bits(cases, net, candidate):
    graph = onnx.load(cases(net, "x86-avx2", candidate).artefact.path).graph
    weights = [numpy_helper.to_array(item) for item in graph.initializer if item.data_type == TensorProto.INT8]
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in weights if weight.size)
    assert largest > 32 and 2 * 255 * largest <= np.iinfo(np.int16).max


def as_avx2(monkeypatch) -> None:
    monkeypatch.setattr(runner, "this_machine", lambda: AVX2)
    monkeypatch.setattr(runner.Machine, "from_facts", lambda facts: replace(AVX2))


def test_a_stand_in_says_what_was_executed_and_why(cases, tmp_path, monkeypatch):
    as_avx2(monkeypatch)
    case = cases("convolutions", "x86-avx512vnni", "static-qdq")
    result = OnnxRuntimeRunner().run(case.artefact, case.job(tmp_path))
    assert result.evidence is Evidence.EXECUTOR
    [note] = [note for note in result.notes if "integers" in note]
    assert "multiplied exactly, as on a x86-avx512vnni" in note and "uint8" in note
    assert result.details["integers"]["int8_weights_run_as_uint8"] > 0
    case.check(result.outputs)


def test_a_float_artefact_has_no_integers_to_speak_of(cases, tmp_path, monkeypatch):
    as_avx2(monkeypatch)
    case = cases("linear", "x86-avx512vnni", "weight-only-int8")
    result = OnnxRuntimeRunner().run(case.artefact, case.job(tmp_path))
    assert result.evidence is Evidence.EXECUTOR
    assert "integers" not in result.details


def test_a_machine_that_fails_the_probe_stands_in_for_nothing(cases, tmp_path, monkeypatch):
    as_avx2(monkeypatch)
    right = probe.expected
    monkeypatch.setattr(probe, "expected", lambda inputs: {name: array + 1 for name, array in right(inputs).items()})
    case = cases("linear", "x86-avx512vnni", "static-qdq")
    with pytest.raises(ToolFailedError, match="cannot stand in for x86-avx512vnni") as caught:
        OnnxRuntimeRunner().run(case.artefact, case.job(tmp_path))
    assert "product is off by up to 1" in caught.value.found


def test_weights_of_avx2_that_could_saturate_are_not_vouched_for(cases, tmp_path, monkeypatch):
    """The exporter makes none; a file from elsewhere may hold them."""
    monkeypatch.setattr(runner, "this_machine", lambda: replace(AVX2, features=AVX2.features | {"avx512_vnni"}))
    case = cases("convolutions", "x86-avx512vnni", "static-qdq")
    with pytest.raises(ToolFailedError, match="sums of products saturate on a x86-avx2"):
        OnnxRuntimeRunner().run(case.artefact, replace(case, profile="x86-avx2").job(tmp_path))


def test_a_table_of_int8_rows_is_no_weight_that_saturates():
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["codes"]),
        helper.make_node("Cast", ["codes"], ["y"], to=TensorProto.FLOAT),
    ]
    table = numpy_helper.from_array(np.full((4, 4), 127, np.int8), "table")
    ids = helper.make_tensor_value_info("x", TensorProto.INT64, [2])
    rows = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    model = helper.make_model(helper.make_graph(nodes, "g", [ids], [rows], [table]))
    assert largest_signed_weight(model) == 0
    assert unsigned_weights(model) == 0


def test_the_device_itself_and_its_like_run_the_file_as_it_is(cases, tmp_path):
    case = cases("linear", "host" if this_machine().arch != "x86_64" else "x86-avx2", "static-qdq")
    job = replace(case.job(tmp_path), profile=load_profile("host"))
    OnnxRuntimeRunner().run(case.artefact, job)
    folder = tmp_path / "run-static-qdq"
    assert (folder / "model.onnx").read_bytes() == case.artefact.path.read_bytes()
    assert json.loads((folder / "job.json").read_text())["probe"] is None


def _products(branches: bool, *, zero_points: bool) -> onnx.ModelProto:
    """Two products by one weight, inside the branches of an If where asked for; input x (4, 4), output y."""
    weight = np.random.default_rng(0).integers(-127, 128, (4, 4)).astype(np.int8)
    constants = {"w": weight, "s": np.full(4, 0.5, np.float32), "z": np.zeros(4, np.int8), "one": np.float32(1),
                 "middle": np.uint8(128), "no": np.float32(0)}  # fmt: skip
    inputs = ["w", "s", "z"] if zero_points else ["w", "s"]

    def layers(prefix: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("DequantizeLinear", inputs, [f"{prefix}wd"], axis=1),
            helper.make_node("MatMul", ["xd", f"{prefix}wd"], [f"{prefix}h"]),
            helper.make_node("MatMul", [f"{prefix}h", f"{prefix}wd"], [f"{prefix}y"]),
        ]

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "middle"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "middle"], ["xd"]),
    ]
    if branches:
        then, other = (
            helper.make_graph(layers(p), p, [], [helper.make_tensor_value_info(f"{p}y", TensorProto.FLOAT, [4, 4])])
            for p in ("t", "e")
        )
        nodes += [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "no"], ["yes"]),
            helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other),
        ]
    else:
        nodes += layers("")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize("branches", [True, False])
def test_weights_in_branches_and_shared_ones_are_moved_too(branches, zero_points):
    """Where ONNX Runtime's own option leaves out the first and fails on the second."""
    import onnxruntime

    model = _products(branches, zero_points=zero_points)
    x = {"x": np.random.default_rng(1).integers(-128, 128, (4, 4)).astype(np.float32)}

    def run() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, x)[0]

    before = run()  # the second product is in float: nothing here saturates
    assert unsigned_weights(model) == (2 if branches else 1)
    onnx.checker.check_model(model)
    readers = [node for graph in _all(model.graph) for node in graph.node if node.op_type == "DequantizeLinear"]
    assert {node.input[0] for node in readers} == {"xq", "w_unsigned"}
    np.testing.assert_allclose(run(), before, rtol=1e-6)


def _all(graph: onnx.GraphProto):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all(attribute.g)
