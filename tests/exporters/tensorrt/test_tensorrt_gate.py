"""NVIDIA's real parser and builder, in their own process."""

import hashlib

import pytest
import tensorrt_graphs as graphs

from edgedeploy.errors import ExitCode, UnsupportedOpError
from edgedeploy.exporters.tensorrt import gate


def test_counts_nodes_with_both_operands_int8(tmp_path):
    report = gate.check(graphs.quantized_conv(), engine=tmp_path / "engine")
    assert report.accepted and report.refusals == ()
    assert [(node.node, node.int8) for node in report.nodes] == [("conv", True)]
    assert report.int8_share == 1.0
    assert report.engine_bytes == (tmp_path / "engine").stat().st_size


def test_a_float_graph_has_no_int8_nodes():
    report = gate.check(graphs.two_layers(width=64))
    assert report.accepted and report.int8_share == 0.0
    assert {node.node for node in report.dense} == {"dense1", "dense2"}


@pytest.mark.parametrize("sm", ["SM86", "SM89", "SM120"])
def test_two_builds_are_byte_identical(tmp_path, sm):
    digests = set()
    for name in ("one", "two"):
        gate.check(graphs.quantized_conv(), compute_capability=sm, engine=tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_parser_names_an_op_it_refuses():
    report = gate.check(graphs.foreign_op())
    assert not report.accepted
    assert (report.refusals[0].stage, report.refusals[0].node) == ("parse", "odd")
    with pytest.raises(UnsupportedOpError) as caught:
        report.require_accepted()
    text = str(caught.value)
    assert "Polish" in text and "'odd'" in text and caught.value.exit_code is ExitCode.BAD_INPUT


def test_a_crash_of_the_builder_is_an_answer(monkeypatch):
    monkeypatch.setattr(gate, "lint", lambda model: ())
    report = gate.check(graphs.runtime_scale())
    assert not report.accepted
    refusal = report.refusals[0]
    assert refusal.stage == "build" and "SIG" in refusal.reason
    with pytest.raises(UnsupportedOpError, match="TensorRT"):
        report.require_accepted()


def test_what_parses_and_then_fails_to_build_is_refused(monkeypatch):
    monkeypatch.setattr(gate, "lint", lambda model: ())
    assert gate.check(graphs.gather_then_dequantize(), build=False).accepted
    report = gate.check(graphs.gather_then_dequantize())
    assert not report.accepted
    assert report.refusals[0].stage == "build" and report.refusals[0].reason


def test_dynamic_shapes_build_with_a_range():
    graph = graphs.two_layers(width=64)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    ranges = {"features": ((1, 64), (4, 64), (8, 64))}
    assert gate.check(graph, ranges=ranges).accepted
    without = gate.check(graph)
    assert not without.accepted and without.refusals[0].reason


def test_findings_of_the_lint_come_before_the_parser():
    report = gate.check(graphs.quantized_conv(zero_point=1))
    assert report.refusals[0].stage == "lint" and report.refusals[0].node == "quantize"
