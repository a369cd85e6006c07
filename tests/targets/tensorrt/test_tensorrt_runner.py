"""The runner: emulation here, and a device behind a real ssh server with stand-in programs."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tensorrt_graphs as graphs
import tensorrt_stand_in as stand_in
import zoo

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tensorrt.exporter import TensorRtExporter
from edgedeploy.graph.graph import graph_from_onnx
from edgedeploy.interfaces import ExportContext, RunJob
from edgedeploy.targets.tensorrt import trtexec
from edgedeploy.targets.tensorrt.emulate import open_exact
from edgedeploy.targets.tensorrt.layerwise import layer_errors
from edgedeploy.targets.tensorrt.runner import TensorRtRunner


@pytest.fixture(scope="module")
def artefact(digits_graph, tmp_path_factory):
    images = zoo.digits_data()[0][:64]
    context = ExportContext(
        None,
        digits_graph,
        load_profile("jetson-orin-nano"),
        Calibration(digits_graph, ArrayDataset({"image": images})),
        tmp_path_factory.mktemp("export"),
    )
    return next(TensorRtExporter().candidates(context))


def job(folder, count=5, device="", target="jetson-orin-nano"):
    return RunJob(load_profile(target), ArrayDataset({"image": zoo.digits_data()[2][:count]}), folder, device)


def test_emulation_is_the_exact_graph_and_says_executor(artefact, tmp_path):
    result = TensorRtRunner().run(artefact, job(tmp_path, 200))
    assert result.evidence is Evidence.EXECUTOR and result.figures == ()
    scores = result.outputs[artefact.contract.outputs[0].source_name]
    assert scores.shape == (200, 1, 10)
    labels = zoo.digits_data()[3][:200]
    assert (scores[:, 0].argmax(1) == labels).mean() > 0.93


def test_layer_wise_error_names_tensors_in_graph_order(artefact, digits_graph):
    samples = [{"image": image[None]} for image in zoo.digits_data()[2][:4]]
    errors = layer_errors(onnx.load(artefact.path), digits_graph.model, samples)
    produced = [node.name for node in digits_graph.model.graph.node]
    assert [produced.index(item.node) for item in errors] == sorted(produced.index(item.node) for item in errors)
    assert {item.op_type for item in errors} >= {"Conv", "Gemm"}
    assert all(15 < item.sqnr_db < 90 for item in errors)


def test_a_model_that_cannot_be_executed_is_said(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ToolFailedError, match="cannot execute"):
        open_exact(tmp_path / "broken.onnx")


@pytest.fixture(scope="module")
def jetson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jetson")
    programs = stand_in.install(folder / "bin")
    (folder / "ssh").mkdir()
    with stand_in.ssh_server(folder / "ssh", programs) as (address, config):
        yield address, config, programs


def test_a_device_behind_ssh_builds_runs_and_measures(artefact, jetson, tmp_path, monkeypatch):
    address, config, _ = jetson
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(config))
    result = TensorRtRunner().run(artefact, job(tmp_path, 2, device=address))
    figures = {figure.name: figure for figure in result.figures}
    assert result.evidence is Evidence.DEVICE
    assert figures["latency_ms"].value == pytest.approx(2.5)
    assert dict(figures["latency_ms"].statistics) == pytest.approx({"p50": 2.5, "p90": 2.9, "p99": 2.99})
    assert figures["throughput_per_s"].value == 432.5
    assert figures["power_mw"].value == 5123 and figures["power_mw"].evidence is Evidence.DEVICE
    assert figures["size_mb"].evidence is Evidence.DEVICE
    assert result.details["tensorrt_version"] == "10.3.0"
    assert result.details["compute_capability"] == "8.7"
    here = TensorRtRunner().run(artefact, job(tmp_path / "here", 2))
    name = artefact.contract.outputs[0].source_name
    assert np.allclose(result.outputs[name], here.outputs[name], atol=1e-5)


def test_another_device_than_the_target_is_refused(artefact, jetson, tmp_path, monkeypatch):
    address, config, _ = jetson
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(config))
    with pytest.raises(InputError, match="not a jetson-xavier-nx") as caught:
        TensorRtRunner().run(artefact, job(tmp_path, 1, device=address, target="jetson-xavier-nx"))
    assert "8.7" in str(caught.value) and "7.2" in str(caught.value)


SCRIPT = "open('{canary}', 'w')\n"
BUNDLES = {
    "another build.py": lambda folder, text: (folder / "build.py").write_text(text),
    "another device_gpu.py": lambda folder, text: (folder / "device_gpu.py").write_text(text),
    "another build.sh": lambda folder, _: (folder / "build.sh").write_text("touch CANARY"),
    "no build.py": lambda folder, _: (folder / "build.py").unlink(),
    "another module": lambda folder, _: changed(folder, module="evil"),
    "another model": lambda folder, _: changed(folder, model="../../etc/passwd"),
    "words for the shell": lambda folder, _: changed(folder, flags=["FP16; touch CANARY"]),
    "a version for the shell": lambda folder, _: changed(folder, tensorrt_version="$(touch CANARY)"),
    "a list": lambda folder, _: (folder / "build.json").write_text("[]"),
}


def changed(folder, **fields):
    config = json.loads((folder / "build.json").read_text())
    (folder / "build.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize("what", BUNDLES)
def test_scripts_that_are_not_ours_are_not_run(artefact, here, tmp_path, monkeypatch, what):
    here("100300")
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(artefact.folder, tmp_path / "bundle")
    BUNDLES[what](folder, SCRIPT.format(canary=tmp_path / "CANARY"))
    with pytest.raises(InputError, match=r"The bundle's (build|device_gpu)"):
        TensorRtRunner().run(replace(artefact, folder=folder), job(tmp_path / "run", 1, device="local"))
    assert not (tmp_path / "CANARY").exists()


def test_modules_that_a_bundle_brings_are_not_shipped(artefact, here, tmp_path):
    """Python would find them before its own."""
    here("100300")
    folder = shutil.copytree(artefact.folder, tmp_path / "bundle")
    for name in ("numpy.py", "json.py", "tensorrt.py"):
        (folder / name).write_text(SCRIPT.format(canary=tmp_path / "CANARY"))
    TensorRtRunner().run(replace(artefact, folder=folder), job(tmp_path / "run", 1, device="local"))
    assert not (tmp_path / "CANARY").exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """This machine as the device, with stand-in programs on PATH."""

    def use(version):
        programs = stand_in.install(tmp_path / "bin", version=version)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    return use


@pytest.mark.parametrize(("version", "flags"), [("100300", True), ("110400", False)])
def test_each_generation_gets_its_own_flags(artefact, tmp_path, here, version, flags):
    here(version)
    result = TensorRtRunner().run(artefact, job(tmp_path / "w", 1, device="local"))
    log = (tmp_path / "w" / "built" / "build.log").read_text()
    assert ("--stronglyTyped" in log) is flags
    assert result.details["built_by"] == "trtexec"


def test_a_tensorrt_too_old_for_the_model_is_refused(artefact, tmp_path, here):
    here("8502")
    with pytest.raises(InputError) as caught:
        TensorRtRunner().run(artefact, job(tmp_path / "w", 1, device="local"))
    assert "needs TensorRT 10 or newer" in str(caught.value)


def test_a_device_without_tensorrt_is_said(artefact, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(MissingToolError) as caught:
        TensorRtRunner().run(artefact, job(tmp_path / "w", 1, device="local"))
    assert "trtexec was not found" in str(caught.value)


def test_an_rtx_engine_without_a_driver_is_not_measured(tmp_path):
    graph = graph_from_onnx(graphs.two_layers(width=64))
    data = ArrayDataset({"features": np.ones((2, 64), np.float32)})
    context = ExportContext(None, graph, load_profile("rtx4090"), Calibration(graph, data), tmp_path / "export")
    context.work_dir.mkdir()
    context.pinned = "float16"
    engine = next(TensorRtExporter().candidates(context))
    with pytest.raises(MissingToolError) as caught:
        TensorRtRunner().run(engine, RunJob(load_profile("rtx4090"), data, tmp_path / "run", "local"))
    assert "driver" in str(caught.value)


def test_the_legacy_path_hands_the_cache_to_trtexec(artefact, tmp_path, here):
    here("100300")
    done = subprocess.run(
        ["sh", artefact.folder / "build.sh", tmp_path / "built"], env={**os.environ, "LEGACY": "1"}, check=False
    )
    log = (tmp_path / "built" / "build.log").read_text()
    assert done.returncode == 0
    assert f"--calib={artefact.folder}/calibration.cache" in log and "model_float.onnx" in log
    assert "--fp16 --int8" in log and "--stronglyTyped" not in log


def test_what_trtexec_left_must_be_readable(tmp_path, artefact):
    (tmp_path / "times.json").write_text("[]")
    with pytest.raises(ToolFailedError, match="exportTimes"):
        trtexec.read_times(tmp_path / "times.json")
    (tmp_path / "out.json").write_text(json.dumps([{"name": "other", "dimensions": "1", "values": [1]}]))
    with pytest.raises(ToolFailedError, match="exportOutput"):
        trtexec.read_outputs(tmp_path / "out.json", artefact.contract)


def test_power_is_read_from_the_rail_of_the_whole_module():
    old = "RAM 1/2MB POM_5V_GPU 40/40 POM_5V_IN 2100/2000 POM_5V_CPU 1/1\nPOM_5V_IN 2300/2100"
    assert trtexec.read_power(old) == ("POM_5V_IN", 2200.0)
    assert trtexec.read_power("nothing here") is None
    assert trtexec.version("8502") == "8.5.2" and trtexec.version("101601") == "10.16.1"
