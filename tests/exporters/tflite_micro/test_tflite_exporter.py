"""Trained models through the whole backend: quality, candidates, options, and models a device cannot hold."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import onnxruntime
import pytest
import tflite_models
import torch
import zoo
from onnx import helper
from tflite_cases import node
from tflite_graphs import FloatGraph
from tflite_oracles import sqnr_db

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, ToolFailedError, UnsupportedOpError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tflite_micro.exporter import TfliteMicroExporter
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER
from edgedeploy.exporters.tflite_micro.rewrite import for_micro
from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import ExportContext, Rejection, RunJob, Selection
from edgedeploy.model.load import LoadOptions, load_model
from edgedeploy.targets.tflite_micro.runner import TfliteMicroRunner
from edgedeploy.targets.tflite_micro.simulator import simulate

MODELS = {
    "digits": zoo.digits_cnn,
    "encoder": tflite_models.digits_encoder,
    "squeeze_excite": tflite_models.digits_squeeze_excite,
    "lstm": tflite_models.digits_lstm,
}


@functools.cache
def loaded(name):
    """A trained model as a user brings it, its graph, and its calibration."""
    images, _, _, _ = zoo.digits_data()
    path = zoo._cache_folder() / f"tflite-exporter-{name}.pt2"
    program = torch.export.export(MODELS[name](), (torch.from_numpy(images[:1]),))
    torch.export.save(program, path)
    model = load_model(path, LoadOptions())
    graph = capture(model)
    return model, graph, Calibration(graph, ArrayDataset({graph.inputs[0].name: images[:200]}))


def context_of(name, folder, profile="stm32l4r5", **changes):
    model, graph, calibration = loaded(name)
    fields = {"model": model, "graph": graph, "profile": load_profile(profile), "calibration": calibration}
    return ExportContext(**{**fields, "work_dir": folder, **changes})


def run(artefact, name, folder, count=100, profile="stm32l4r5"):
    _, _, images, labels = zoo.digits_data()
    model, graph, _ = loaded(name)
    source = graph.inputs[0].name
    folder.mkdir(parents=True, exist_ok=True)
    job = RunJob(load_profile(profile), ArrayDataset({source: images[:count]}), folder, may_build=True)
    result = TfliteMicroRunner().run(artefact, job)
    (output,) = result.outputs.values()
    reference = np.stack([next(iter(model.reference({source: images[i : i + 1]}).values())) for i in range(count)])
    assert output.shape == reference.shape
    accuracy = [float((scores.reshape(count, -1).argmax(1) == labels[:count]).mean()) for scores in (reference, output)]
    return result, sqnr_db(reference, output), accuracy


@pytest.mark.parametrize(("name", "floor_db"), [("digits", 30), ("encoder", 27), ("squeeze_excite", 30), ("lstm", 27)])
def test_a_trained_model_keeps_its_accuracy(tmp_path, name, floor_db):
    artefact = next(TfliteMicroExporter().candidates(context_of(name, tmp_path)))
    result, quality_db, (before, after) = run(artefact, name, tmp_path / "run")
    assert quality_db >= floor_db
    assert after >= before - 0.01
    assert smallest_works(artefact, result.details["arena_bytes"], tmp_path)
    # What the interpreter gives back after planning is not in its own total; with many operators that is most.
    phases = {phase: size for phase, size in result.details["allocations"].items() if phase.startswith("peak while")}
    assert len(phases) == 3
    assert abs(max(phases.values()) - result.details["arena_bytes"]) <= 16 + 15
    assert max(phases, key=phases.get) == f"peak while {'planning' if name in {'encoder', 'lstm'} else 'running'}"
    assert phases["peak while running"] == result.details["recorded_arena_bytes"]
    size = next(figure for figure in artefact.figures if figure.name == "size_mb")
    assert size.evidence is Evidence.ARTEFACT
    assert size.value == artefact.path.stat().st_size / 1e6
    operators = {row["operator"] for row in result.details["operators"]}
    assert name == "encoder" or "TRANSPOSE" not in operators
    if shutil.which(COMPILER):
        assert result.details["firmware_compiled"]["text"] >= artefact.path.stat().st_size
    assert "NOT MEASURED" in (artefact.folder / "firmware" / "golden_vectors.h").read_text()
    samples = ArrayDataset({artefact.contract.inputs[0].source_name: zoo.digits_data()[2][:100]})
    TfliteMicroExporter().finish(artefact, load_profile("stm32l4r5"), samples, result)
    # What ships is what was compiled and run.
    for file in (path for path in (artefact.folder / "firmware").rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "run" / file.relative_to(artefact.folder)).read_bytes(), file
    assert "GOLDEN_COUNT 3" in (artefact.folder / "firmware" / "golden_vectors.h").read_text()


def smallest_works(artefact, arena_bytes, folder):
    port = artefact.contract.inputs[0]
    inputs = [np.zeros((1, *port.shape), port.dtype)]
    simulate(artefact.path, inputs, 1, folder / "enough", find_arena=False, arena_bytes=arena_bytes)
    with pytest.raises(ToolFailedError):
        simulate(artefact.path, inputs, 1, folder / "less", find_arena=False, arena_bytes=arena_bytes - 16)
    return True


def test_int16_is_the_cure_of_a_failed_quality_gate_only(tmp_path):
    exporter = TfliteMicroExporter()
    assert exporter.selection is Selection.FIRST_PASSING
    context = context_of("digits", tmp_path / "quality")
    candidates = exporter.candidates(context)
    assert next(candidates).candidate == "int8"
    context.rejections.append(Rejection("int8", "failed", ("min_cosine",)))
    wide = next(candidates)
    assert wide.candidate == "int16x8"
    assert wide.contract.inputs[0].dtype == "int16"
    _, quality_db, _ = run(wide, "digits", tmp_path / "run", 20)
    assert quality_db > 40
    context = context_of("digits", tmp_path / "memory")
    candidates = exporter.candidates(context)
    next(candidates)
    context.rejections.append(Rejection("int8", "failed", ("ram_kb",)))
    assert next(candidates, None) is None


def test_exporting_twice_gives_the_same_files(tmp_path):
    made = [next(TfliteMicroExporter().candidates(context_of("digits", tmp_path / name))).folder for name in ("a", "b")]
    files = sorted(path.relative_to(made[0]) for path in made[0].rglob("*") if path.is_file())
    assert len(files) > 8
    for path in files:
        assert (made[0] / path).read_bytes() == (made[1] / path).read_bytes()


def test_labels_and_preprocessing_reach_the_firmware(tmp_path):
    context = context_of("digits", tmp_path, labels=("zero", "one"), preprocessing={"image": "pixel / 16"})
    text = (next(TfliteMicroExporter().candidates(context)).folder / "firmware/model.h").read_text()
    assert '"zero", "one"' in text
    assert '"pixel / 16"' in text


def test_options_and_pins_are_checked(tmp_path):
    exporter = TfliteMicroExporter()
    for changes, words in [
        ({"options": {"speed": "high"}}, "no option 'speed'"),
        ({"options": {"per_tensor_fc": "maybe"}}, "true or false"),
        ({"pinned": "int4"}, "no candidate 'int4'"),
    ]:
        with pytest.raises(InputError, match=words):
            next(exporter.candidates(context_of("digits", tmp_path, **changes)))
    pinned = list(exporter.candidates(context_of("digits", tmp_path, pinned="int16x8")))
    assert [artefact.candidate for artefact in pinned] == ["int16x8"]


def small_device(**hardware):
    profile = load_profile("stm32l4r5")
    return profile.model_copy(update={"hardware": profile.hardware.model_copy(update=hardware)})


def test_a_model_larger_than_the_flash_is_split_by_layer(tmp_path):
    with pytest.raises(InputError, match="does not fit the flash") as raised:
        next(TfliteMicroExporter().candidates(context_with(tmp_path, small_device(flash_kb=4))))
    assert raised.value.found.count(" B") >= 3


def test_activations_larger_than_the_ram_are_named(tmp_path):
    with pytest.raises(InputError, match="do not fit the RAM") as raised:
        next(TfliteMicroExporter().candidates(context_with(tmp_path, small_device(ram_kb=1))))
    assert "alive at the peak" in raised.value.found
    assert raised.value.found.count(" B") >= 2


def context_with(folder, profile):
    context = context_of("digits", folder)
    context.profile = profile
    return context


class Untouched:
    """Fails the test where anything asks for calibration."""

    data_free = False

    @property
    def table(self):
        raise AssertionError("calibrated before the graph was checked")


def test_an_unsupported_op_fails_before_calibration(tmp_path):
    graph = FloatGraph([helper.make_node("Det", ["x"], ["y"], name="head/det")], (1, 3, 3), ["y"], {})
    context = context_of("digits", tmp_path, graph=Graph(graph.model()), calibration=Untouched())
    with pytest.raises(UnsupportedOpError, match="head/det"):
        next(TfliteMicroExporter().candidates(context))


def test_an_npu_gets_its_own_file(tmp_path):
    context = context_of("digits", tmp_path, profile="cortex-m55-ethos-u55-128")
    artefact = next(TfliteMicroExporter().candidates(context))
    vela = artefact.details["vela"]
    assert vela["npu_operators"] > 0 and vela["cycles"] > 0
    assert "AddEthosU" in (artefact.folder / "firmware/op_resolver.h").read_text()
    latency = next(figure for figure in artefact.figures if figure.name == "latency_ms")
    assert latency.evidence is Evidence.ESTIMATE and latency.low < latency.value < latency.high
    compiled = (artefact.folder / "model_vela.tflite").stat().st_size
    assert next(figure.value for figure in artefact.figures if figure.name == "size_mb") == compiled / 1e6
    result, _, _ = run(artefact, "digits", tmp_path / "run", 5, "cortex-m55-ethos-u55-128")
    assert not any(figure.name == "ram_kb" for figure in result.figures)


def test_a_model_the_npu_takes_nothing_of_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.uniform(-1, 1, (20, 4)).astype(np.float32)
    graph = FloatGraph([node("Gather", ["w", "x"], ["y"])], (1, 8), ["y"], {"w": table}, "int32")
    data = ArrayDataset({"x": rng.integers(0, 20, (8, 8)).astype(np.int32)})
    wrapped = Graph(graph.model())
    context = context_of(
        "digits", tmp_path, profile="cortex-m55-ethos-u55-128", graph=wrapped, calibration=Calibration(wrapped, data)
    )
    with pytest.raises(InputError, match="no operator of this model"):
        next(TfliteMicroExporter().candidates(context))


def lstm_graph(**attributes):
    rng = np.random.default_rng(0)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = {
        "w": rng.standard_normal((directions, 16, 3)).astype(np.float32) * 0.5,
        "r": rng.standard_normal((directions, 16, 4)).astype(np.float32) * 0.5,
        "b": rng.standard_normal((directions, 32)).astype(np.float32) * 0.3,
    }
    made = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], name="rnn", hidden_size=4, **attributes)
    return FloatGraph([made], (5, 1, 3), ["y", "h", "c"], weights)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_unrolled_lstm_computes_the_same(direction):
    graph = lstm_graph(direction=direction)
    samples = np.random.default_rng(1).standard_normal((2, 5, 1, 3)).astype(np.float32)
    rewritten = for_micro(Graph(graph.model()))
    assert rewritten.changed and rewritten.higher
    assert "LSTM" not in {item.op_type for item in rewritten.graph.model.graph.node}
    session = onnxruntime.InferenceSession(rewritten.graph.model.SerializeToString())
    for sample, *expected in zip(samples, *graph.run(samples), strict=True):
        for got, want in zip(session.run(["y", "h", "c"], {"x": sample}), expected, strict=True):
            assert np.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("after", [0, 1], ids=["reset_before", "reset_after"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_unrolled_gru_computes_the_same(direction, after):
    rng = np.random.default_rng(0)
    directions = 2 if direction == "bidirectional" else 1
    shapes = {"w": (directions, 12, 3), "r": (directions, 12, 4), "b": (directions, 24)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}
    made = helper.make_node(
        "GRU",
        ["x", "w", "r", "b"],
        ["y", "h"],
        name="rnn",
        hidden_size=4,
        direction=direction,
        linear_before_reset=after,
    )
    graph = FloatGraph([made], (5, 1, 3), ["y", "h"], weights)
    samples = rng.standard_normal((2, 5, 1, 3)).astype(np.float32)
    rewritten = for_micro(Graph(graph.model()))
    assert "GRU" not in {item.op_type for item in rewritten.graph.model.graph.node}
    session = onnxruntime.InferenceSession(rewritten.graph.model.SerializeToString())
    for sample, *expected in zip(samples, *graph.run(samples), strict=True):
        for got, want in zip(session.run(["y", "h"], {"x": sample}), expected, strict=True):
            assert np.allclose(got, want, atol=1e-5)


def test_an_lstm_that_cannot_be_unrolled_is_refused():
    with pytest.raises(UnsupportedOpError, match="activations"):
        for_micro(Graph(lstm_graph(activations=["Relu", "Tanh", "Tanh"]).model()))


def test_a_left_over_batch_norm_becomes_scale_and_shift():
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("g", "b", "m", "v")}
    graph = FloatGraph([node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])], (1, 3, 4, 4), ["y"], weights)
    rewritten = for_micro(Graph(graph.model()))
    assert [item.op_type for item in rewritten.graph.model.graph.node] == ["Mul", "Add"]


def test_a_pixel_shuffle_costs_nothing_behind_a_convolution_of_its_own():
    rng = np.random.default_rng(2)
    weights = {"w": rng.standard_normal((12, 3, 1, 1)).astype(np.float32), "b": rng.standard_normal(12, np.float32)}
    shuffle = node("DepthToSpace", ["c"], ["y"], blocksize=2, mode="CRD")
    nodes = [node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[1, 1]), shuffle]
    samples = rng.standard_normal((2, 1, 3, 4, 5)).astype(np.float32)
    graph = FloatGraph(nodes, (1, 3, 4, 5), ["y"], weights)
    rewritten = for_micro(Graph(graph.model()))
    assert rewritten.changed
    session = onnxruntime.InferenceSession(rewritten.graph.model.SerializeToString())
    for sample, want in zip(samples, graph.run(samples)[0], strict=True):
        assert np.array_equal(session.run(["y"], {"x": sample})[0], want)
    assert rewritten.graph.model.graph.node[1].attribute[1].s == b"DCR"
    shared = FloatGraph([*nodes, node("Relu", ["c"], ["z"])], (1, 3, 4, 5), ["y", "z"], weights)
    assert not for_micro(Graph(shared.model())).changed  # another reader wants the channels as they were
