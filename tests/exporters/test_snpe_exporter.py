"""`SnpeExporter` as the pipeline uses it: candidates, files, contract, and every kind of bad input."""

from __future__ import annotations

import itertools
import subprocess

import numpy as np
import onnx
import pytest
from notes import Notes
from onnx import TensorProto, helper
from quantizer_graphs import chain
from snpe_nets import context, graph_of, images, small_cnn, weights

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ExitCode, InputError, MissingToolError, UnsupportedOpError
from edgedeploy.exporters.snpe import exporter as module
from edgedeploy.exporters.snpe.dlc.reader import read_dlc
from edgedeploy.exporters.snpe.exporter import SnpeExporter
from edgedeploy.exporters.snpe.prepare import prepare
from edgedeploy.exporters.snpe.settings import OPTIONS, settings_of
from edgedeploy.interfaces import Rejection, Selection
from edgedeploy.progress import NoProgress

DATA = {"image": images(8, 3, 16, 16)}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    return next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path_factory.mktemp("export"))))


def test_the_first_candidate_holds_everything_that_ships(artefact):
    assert SnpeExporter.selection is Selection.FIRST_PASSING
    assert artefact.candidate == "a8w8"
    files = {str(path.relative_to(artefact.folder)) for path in artefact.folder.rglob("*") if path.is_file()}
    assert files >= {
        "model.dlc", "model_ctx.onnx", "model_ctx_qnn.bin", "model_qdq.onnx", "android/run_on_device.sh",
        "android/NOTES.md", "android/Inference.kt", "android/inference.cpp", "android/golden/input_0_0.raw",
        "android/golden/expected_0_0.raw", "android/golden/input_list.txt",
    }  # fmt: skip
    details = artefact.details
    assert details["compiled_for"]["arch"] == 68
    assert details["minimum_qairt_runtime"].startswith("2.")
    assert details["nodes_per_provider"].keys() == {"QNNExecutionProvider"}
    assert details["read_back"]["weights"] == 6
    assert "model.dlc" in artefact.unstable
    (size,) = (figure for figure in artefact.figures if figure.name == "size_mb")
    assert size.value == (artefact.folder / "model.dlc").stat().st_size / 1e6
    assert not any(figure.name.startswith("latency") for figure in artefact.figures)
    onnx.checker.check_model(onnx.load(artefact.folder / artefact.emulation))


def test_android_files_use_the_models_own_names(artefact):
    android = artefact.folder / "android"
    script = android / "run_on_device.sh"
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    refused = subprocess.run([script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert refused.returncode == 4
    assert "QAIRT_SDK_ROOT" in refused.stderr
    kotlin, cpp, notes = ((android / name).read_text() for name in ("Inference.kt", "inference.cpp", "NOTES.md"))
    assert '"image" to tensor(input0, longArrayOf(1, 3, 16, 16)' in kotlin
    assert 'results.get("scores")' in kotlin
    assert '{"image", 768}' in cpp
    assert '{"scores", 10}' in cpp
    assert "| input | `image` | 1 x 3 x 16 x 16 | float32 |" in notes
    assert "hexagon-v68" in notes
    golden = np.fromfile(android / "golden" / "input_0_0.raw", np.float32)
    np.testing.assert_array_equal(golden, DATA["image"][0].ravel())
    assert np.fromfile(android / "golden" / "expected_0_0.raw", np.float32).shape == (10,)
    assert (android / "golden" / "input_list.txt").read_text().startswith("image:=/data/local/tmp/")


def test_quantized_inputs_and_outputs_come_with_their_scales(tmp_path):
    made = next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path, io="quantized")))
    (port,), (result,) = made.contract.inputs, made.contract.outputs
    assert (port.dtype, result.dtype) == ("uint8", "uint8")
    assert port.scale > 0
    assert 0 <= port.zero_point <= 255
    graph = read_dlc(made.folder / "model.dlc").graphs[0]
    assert not {"Quantize", "Dequantize"} & {node.op_type for node in graph.nodes}
    assert not any(tensor.is_float for tensor in graph.tensors.values())
    assert (made.folder / "android/golden/input_0_0.raw").stat().st_size == 3 * 16 * 16
    kotlin = (made.folder / "android/Inference.kt").read_text()
    assert "OnnxJavaType.UINT8" in kotlin


def test_a_rejected_candidate_is_followed_by_a_cure(tmp_path):
    asked = context(small_cnn(), DATA, tmp_path)
    schemes = {}
    for made in SnpeExporter().candidates(asked):
        schemes[made.candidate] = made.scheme
        asked.rejections.append(Rejection(made.candidate, "not accurate enough"))
    assert next(iter(schemes)) == "a8w8"
    assert schemes["a16w8"] == "qnn-a16w8"


def test_a_pinned_candidate_is_made_alone(tmp_path):
    asked = context(small_cnn(), DATA, tmp_path)
    asked.pinned = "a16w8"
    assert [made.candidate for made in SnpeExporter().candidates(asked)] == ["a16w8"]
    asked.pinned = "a4w4"
    with pytest.raises(InputError, match="a8w8, mixed, a16w8"):
        next(SnpeExporter().candidates(asked))


def test_the_licence_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_told", [])
    notes = Notes()
    for _ in range(2):
        module.tell_licence(notes)
    assert len(notes.texts) == 1
    assert "licence" in notes.texts[0]


def test_without_any_toolchain_both_ways_to_get_one_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_qnn", lambda: None)
    for variable in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingToolError) as caught:
        next(SnpeExporter().candidates(context(small_cnn(), DATA, tmp_path)))
    assert caught.value.exit_code is ExitCode.MISSING_TOOL
    assert "edgedeploy[snapdragon]" in caught.value.remedy
    assert "QAIRT_SDK_ROOT" in caught.value.remedy


@pytest.mark.parametrize(
    ("shape", "told"), [(["batch", 3, 16, 16], "only known at run time"), ([4, 3, 16, 16], "batch of 4")]
)
def test_dynamic_shapes_and_batches_are_refused(tmp_path, shape, told):
    graph = graph_of([helper.make_node("Relu", ["image"], ["y"])], {"image": shape}, ["y"], {})
    with pytest.raises(InputError, match=told) as caught:
        next(SnpeExporter().candidates(context(graph, DATA, tmp_path)))
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert caught.value.remedy


@pytest.mark.parametrize("op_type", ["Erf", "Hardmax"])
def test_ops_without_a_cure_are_refused_by_name_before_any_work(tmp_path, op_type):
    node = helper.make_node(op_type, ["image"], ["y"], name="culprit")
    graph = graph_of([node], {"image": [1, 3, 4, 4]}, ["y"], {})
    with pytest.raises(UnsupportedOpError) as caught:
        next(SnpeExporter().candidates(context(graph, {"image": images(2, 3, 4, 4)}, tmp_path)))
    assert caught.value.ops[0][:2] == (op_type, "culprit")
    assert not list(tmp_path.iterdir())


def test_int64_indices_are_fed_as_int32(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "w"], ["y"]),
    ]
    constants = {"table": weights(50, 16), "axes": np.array([1]), "w": weights(16, 4)}
    graph = graph_of(nodes, {"ids": [1, 6]}, ["y"], constants, dtype=TensorProto.INT64)
    ids = np.random.default_rng(0).integers(0, 50, (16, 6))
    made = next(SnpeExporter().candidates(context(graph, {"ids": ids}, tmp_path)))
    assert made.contract.inputs[0].dtype == "int32"
    assert made.details["fed_as"] == {"ids": "int32"}
    tensors = read_dlc(made.folder / "model.dlc").graphs[0].tensors.values()
    assert not any(tensor.dtype == "int64" for tensor in tensors)


def test_unknown_options_and_values_list_the_choices(tmp_path):
    profile = load_profile("snapdragon888")
    with pytest.raises(InputError) as caught:
        settings_of(profile, {"speed": "max"})
    assert all(option.key in caught.value.remedy for option in OPTIONS)
    for options in ({"io": "int4"}, {"toolchain": "magic"}, {"vtcm_mb": "lots"}, {"simulator_samples": "-1"}):
        with pytest.raises(InputError):
            settings_of(profile, options)
    with pytest.raises(InputError, match="which Hexagon"):
        settings_of(load_profile("raspberrypi4"), {})


def test_repairs_are_options():
    """Uneven channels are evened where that helps on held-back samples; the manifest gets the figures."""
    graph = chain(uneven=True)
    samples = np.random.default_rng(5).normal(size=(24, 3, 8, 8)).astype(np.float32)
    repairs = settings_of(load_profile("snapdragon888"), {"equalize": "true", "bias_correction": "false"}).repairs
    assert (repairs.equalize, repairs.bias_correction) == (True, False)
    calibration = Calibration(graph, ArrayDataset({"x": samples}))
    plain = prepare(graph, calibration, NoProgress())
    even = prepare(graph, calibration, NoProgress(), repairs=repairs)
    assert not plain.repairs
    facts = even.repairs["equalization"]
    assert facts["applied"] == (facts["sqnr_db_after"] > facts["sqnr_db_before"])


def test_every_snapdragon_profile_is_whole():
    names = (
        "snapdragon888", "snapdragon8gen1", "snapdragon8gen2", "snapdragon8gen3", "snapdragon8elite",
        "snapdragonxelite", "qcs6490", "sa8295p",
    )  # fmt: skip
    for name in names:
        profile = load_profile(name)
        assert profile.device.backend == "snpe"
        assert profile.hardware.hexagon_arch in (68, 69, 73, 75, 79)
        assert profile.hardware.soc_id
        assert profile.sources["hardware.soc_id"]
        assert settings_of(profile, {}).hexagon.soc_model == 0  # shipped without the stamp that some firmware refuses
    assert load_profile("sm8350").name == "snapdragon888"
    assert load_profile("sm8550").name == "snapdragon8gen2"
    phone = load_profile("snapdragon888").budget
    assert (phone["size_mb"].max, phone["latency_ms"].max, phone["power_mw"].max) == (100, 50, 500)
    assert settings_of(load_profile("qcs6490"), {}).hexagon.vtcm_mb == 2


def test_hostile_tensor_names_cannot_leave_their_strings(tmp_path):
    name = 'in"; rm -rf / #$(reboot)'
    nodes = [helper.make_node("Gemm", [name, "w"], ["y"])]
    graph = graph_of(nodes, {name: [1, 4]}, ["y"], {"w": weights(4, 2)})
    made = next(SnpeExporter().candidates(context(graph, {name: images(4, 4)}, tmp_path)))
    for path in (made.folder / "android").iterdir():
        if path.is_file() and path.suffix != ".txt":
            text = path.read_text()
            assert name not in text
            assert "$(reboot)" not in text


def test_the_same_inputs_give_the_same_files(tmp_path):
    """All but the DLC's timestamps."""
    left, right = (
        next(SnpeExporter().candidates(context(small_cnn(), DATA, folder)))
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    for path in itertools.chain(left.folder.rglob("*.*")):
        other = right.folder / path.relative_to(left.folder)
        if path.name not in left.unstable:
            assert path.read_bytes() == other.read_bytes(), path.name
