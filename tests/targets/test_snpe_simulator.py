"""The HTP simulator runner: numerics, placement, sample counts, and what it says it cannot know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from snpe_nets import context, cosine, graph_of, images, small_cnn, weights

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError, UnsupportedOpError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.snpe.exporter import SnpeExporter
from edgedeploy.exporters.snpe.golden import emulate
from edgedeploy.exporters.snpe.qnn import install
from edgedeploy.exporters.snpe.qnn.job import Answer, PlacedNode
from edgedeploy.interfaces import RunJob
from edgedeploy.targets.snpe import runner as module
from edgedeploy.targets.snpe.runner import SnpeRunner
from edgedeploy.targets.snpe.simulator import require_on_npu, sample_count

EVALUATION = images(6, 1, 3, 16, 16, seed=12)
DATA = {"image": images(8, 3, 16, 16)}


def job(tmp_path) -> RunJob:
    work = tmp_path / "job"
    work.mkdir()
    return RunJob(load_profile("snapdragon888"), ArrayDataset({"image": EVALUATION[:, 0]}), work)


@pytest.mark.parametrize("io", ["float32", "quantized"])
def test_outputs_are_real_values_and_nothing_is_said_of_speed(tmp_path, io):
    made = next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path, io=io, layer_errors="true")))
    result = SnpeRunner().run(made, job(tmp_path))
    assert result.evidence is Evidence.SIMULATOR
    assert result.outputs["scores"].shape == (6, 1, 10)
    assert result.outputs["scores"].dtype == np.float32
    assert result.figures == ()
    assert result.details["nodes_per_provider"] == {"QNNExecutionProvider": 1}  # the context binary, nothing beside it
    assert "latency" in result.notes[0]
    if io == "float32":
        for image, scores in zip(EVALUATION, result.outputs["scores"], strict=True):
            expected = emulate(made.folder / made.emulation, [{"image": image}])[0]["scores"]
            assert cosine(scores, expected) > 0.999
        layers = result.details["layer_errors"]
        assert {layer["tensor"] for layer in layers} >= {"sum", "pooled"}
        assert all(layer["share_above_2"] < 0.5 for layer in layers)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-0.9, -0.1), (-0.5, 0.5)])
def test_a_clip_between_padded_convolutions_is_computed_as_the_graph_says(tmp_path, low, high):
    constants = {"w": weights(8, 3, 3, 3), "v": weights(6, 8, 3, 3, seed=1), "low": np.float32(low),
                 "high": np.float32(high)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["first"], pads=[1] * 4),
        helper.make_node("Clip", ["first", "low", "high"], ["held"]),
        helper.make_node("Conv", ["held", "v"], ["scores"], pads=[1] * 4),
    ]
    graph = graph_of(nodes, {"image": [1, 3, 16, 16]}, ["scores"], constants)
    made = next(SnpeExporter().candidates(context(graph, DATA, tmp_path)))
    outputs = SnpeRunner().run(made, job(tmp_path)).outputs["scores"]
    for image, scores in zip(EVALUATION, outputs, strict=True):
        expected = emulate(made.folder / made.emulation, [{"image": image}])[0]["scores"]
        assert np.sum(expected**2) > 10**2.5 * np.sum((scores - expected) ** 2)


def test_a_damaged_context_binary_is_told(tmp_path):
    made = next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path)))
    binary = made.folder / made.details["context_binary"]
    binary.write_bytes(binary.read_bytes()[:1000])
    with pytest.raises(ToolFailedError):
        SnpeRunner().run(made, job(tmp_path))


def test_a_node_off_the_npu_fails_by_name():
    stray = PlacedNode("loss", "Einsum", "CPUExecutionProvider")
    with pytest.raises(ToolFailedError, match=r"loss \(Einsum\) on CPUExecutionProvider"):
        require_on_npu(Answer(nodes=(PlacedNode("net", "EPContext", "QNNExecutionProvider"), stray)))
    seam = PlacedNode("join", "DequantizeLinear", "CPUExecutionProvider")
    inside = PlacedNode("net", "EPContext", "QNNExecutionProvider")
    require_on_npu(Answer(nodes=(inside, seam, stray)), 1)
    with pytest.raises(ToolFailedError, match=r"join \(DequantizeLinear\)"):
        require_on_npu(Answer(nodes=(inside, seam)))
    with pytest.raises(ToolFailedError, match=r"loss \(Einsum\).*loss \(Einsum\)"):
        require_on_npu(Answer(nodes=(inside, stray, stray)), 1)
    with pytest.raises(ToolFailedError, match=r"loss \(Einsum\)"):
        require_on_npu(Answer(nodes=(stray,)), 1)  # nothing on the NPU at all
    with pytest.raises(ToolFailedError, match="no node"):
        require_on_npu(Answer())
    with pytest.raises(ToolFailedError, match="refused"):
        require_on_npu(Answer(error="bad binary"))


def test_sample_counts_follow_the_models_size():
    assert sample_count(1000, 1_000_000, 0) == 100
    assert sample_count(1000, 385_000_000, 0) == 20
    assert sample_count(1000, 10_000_000_000, 0) == 20
    assert sample_count(1000, 10_000_000_000, 7) == 7
    assert sample_count(5, 1, 0) == 5


def test_without_the_simulator_the_verdict_stays_open(tmp_path, monkeypatch):
    made = next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path)))
    bare = replace(made, details={key: value for key, value in made.details.items() if key != "context_model"})
    with pytest.raises(MissingToolError, match="context binary"):
        SnpeRunner().run(bare, job(tmp_path))
    monkeypatch.setattr(install, "find_qnn", lambda: None)
    with pytest.raises(MissingToolError, match="simulator"):
        module.SnpeRunner().run(made, RunJob(load_profile("snapdragon888"), ArrayDataset(DATA), tmp_path))


def split_net():
    """A convolution, an Einsum that QNN refuses, a convolution."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Einsum", ["c", "c"], ["e"], equation="abcd,abcd->abcd", name="strange"),
        helper.make_node("Conv", ["e", "v"], ["scores"], kernel_shape=[1, 1]),
    ]
    constants = {"w": weights(3, 3, 1, 1), "v": weights(3, 3, 1, 1, seed=3)}
    return graph_of(nodes, {"image": [1, 3, 16, 16]}, ["scores"], constants)


def test_a_profile_may_allow_ops_off_the_npu(tmp_path):
    asked = context(split_net(), DATA, tmp_path / "none")
    with pytest.raises(UnsupportedOpError) as caught:
        next(SnpeExporter().candidates(asked))
    assert caught.value.ops[0][:2] == ("Einsum", "strange")
    generous = asked.profile.quantization.model_copy(update={"options": {"allow_cpu_nodes": 1}})
    profile = asked.profile.model_copy(update={"quantization": generous})
    asked = replace(context(split_net(), DATA, tmp_path / "one", layer_errors="true"), profile=profile)
    made = next(SnpeExporter().candidates(asked))
    assert made.main.name == "model_ctx.onnx"  # a DLC holds the NPU's part alone
    assert not list(made.folder.rglob("*.dlc"))
    assert made.details["cpu_nodes"] == ["strange (Einsum)"]
    assert made.details["read_back"]["weights"] == 4  # two weights, two biases that correct the rounding
    assert "strange (Einsum)" in (made.folder / "android/NOTES.md").read_text()
    assert "disable_cpu_ep_fallback" not in (made.folder / "android/Inference.kt").read_text()
    result = SnpeRunner().run(made, job(tmp_path))
    assert result.details["cpu_nodes"] == ["strange (Einsum)"]
    assert result.details["nodes_per_provider"]["QNNExecutionProvider"] == 2  # the parts before and after it
    assert any("strange (Einsum)" in note for note in result.notes)
    for image, scores in zip(EVALUATION, result.outputs["scores"], strict=True):
        expected = emulate(made.folder / made.emulation, [{"image": image}])[0]["scores"]
        assert cosine(scores, expected) > 0.999
    strict = replace(made, details={**made.details, "allow_cpu_nodes": 0})
    (tmp_path / "strict").mkdir()
    with pytest.raises(ToolFailedError):
        SnpeRunner().run(strict, RunJob(asked.profile, ArrayDataset(DATA), tmp_path / "strict"))
    with pytest.raises(InputError, match="strange"):
        SnpeRunner().run(made, RunJob(asked.profile, ArrayDataset(DATA), tmp_path, device="adb:1"))
