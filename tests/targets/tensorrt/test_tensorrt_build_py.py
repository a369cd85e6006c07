"""build.py as a bundle carries it: what it says where TensorRT, driver or cache do not fit."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_graphs as graphs

from edgedeploy.errors import InputError, MissingToolError
from edgedeploy.exporters.tensorrt.cache import CalibrationCache
from edgedeploy.exporters.tensorrt.calibrator import entropy_calibrator
from edgedeploy.exporters.tensorrt.device_build import Engine, _rows, build_engine, compare, load_tensorrt
from edgedeploy.exporters.tensorrt.device_gpu import MISSING, WRONG_INPUT, BuildError, Cuda

API = json.loads((Path(__file__).parent / "api_10.16.json").read_text())


class Calibrator:
    """Stands where pybind11's base class stands; its methods are called by TensorRT alone."""


def bindings(version="10.3.0", **more):
    return types.SimpleNamespace(__version__=version, IInt8EntropyCalibrator2=Calibrator, **more)


def test_a_tensorrt_that_imports_but_has_no_driver_is_told_apart(monkeypatch):
    class Builder:
        def __init__(self, logger):
            raise TypeError(API["null_builder"])  # what the real bindings say without a driver

    class Logger:
        Severity = types.SimpleNamespace(ERROR=1, WARNING=2, INTERNAL_ERROR=0)

    fake = types.ModuleType("tensorrt")
    fake.__version__, fake.Builder, fake.ILogger = API["version"], Builder, Logger
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    with pytest.raises(BuildError, match="no usable driver") as caught:
        load_tensorrt("tensorrt")
    assert caught.value.code == MISSING


def test_a_builder_that_logs_a_cuda_failure_counts_as_no_driver(monkeypatch):
    class Logger:
        Severity = types.SimpleNamespace(ERROR=1, WARNING=2, INTERNAL_ERROR=0)

    def builder(logger):
        logger.log(2, "CUDA initialization failure with error: 35")

    fake = types.ModuleType("tensorrt")
    fake.__version__, fake.Builder, fake.ILogger = "10.3.0", builder, Logger
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    with pytest.raises(BuildError, match="error: 35"):
        load_tensorrt("tensorrt")


def test_the_script_alone_says_what_is_missing(tmp_path):
    from edgedeploy.exporters import tensorrt

    source = Path(tensorrt.__file__).parent
    for name, file in (("build.py", "device_build.py"), ("device_gpu.py", "device_gpu.py")):
        (tmp_path / name).write_bytes((source / file).read_bytes())
    (tmp_path / "build.json").write_text(json.dumps({"module": "tensorrt"}))
    done = subprocess.run(
        [sys.executable, "-E", "-s", tmp_path / "build.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == MISSING
    assert "tensorrt is not installed" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("found", "made_for"), [("8.5.2", "10.3.0"), ("10.3.0", "8.5.2")])
def test_a_model_typed_for_another_generation_is_refused(tmp_path, found, made_for):
    config = {"tensorrt_version": made_for, "strongly_typed": made_for[0] == "1"}
    with pytest.raises(BuildError, match="export again") as caught:
        build_engine(bindings(found), None, None, tmp_path, tmp_path, config, legacy=False)
    assert caught.value.code == WRONG_INPUT


def test_tensorrt_11_takes_no_cache(tmp_path):
    config = {"tensorrt_version": "11.4.0", "strongly_typed": True}
    with pytest.raises(BuildError, match="calibration caches"):
        build_engine(bindings("11.4.0"), None, None, tmp_path, tmp_path, config, legacy=True)


def test_samples_are_split_by_the_models_own_batch():
    feeds = {"x": np.arange(12).reshape(6, 2)}
    assert [len(row["x"]) for row in _rows(feeds, [{"name": "x", "shape": [2, 2]}])] == [2, 2, 2]
    assert len(_rows(feeds, [{"name": "x", "shape": ["batch", 2]}])) == 6


def test_golden_outputs_are_compared_by_cosine():
    one = {"y": np.array([[1.0, 2.0], [3.0, 4.0]])}
    assert compare(one, {"y": one["y"][:1]})["y"] == pytest.approx(1.0)
    assert compare({"y": -one["y"]}, one)["y"] == pytest.approx(-1.0)


class Memory:
    def __init__(self):
        self.held = {}

    def upload(self, name, array):
        self.held[name] = array.copy()
        return 4096 + len(self.held)


def test_the_calibrator_serves_whole_batches_and_keeps_the_cache(tmp_path):
    memory, cache = Memory(), tmp_path / "calibration.cache"
    samples = [{"x": np.full((1, 2), index, np.float32)} for index in range(5)]
    serving = entropy_calibrator(bindings(), memory, samples, batch_size=2, cache=cache, tensors=["x"])
    assert serving.get_batch_size() == 2 and serving.read_calibration_cache() is None
    assert serving.get_batch(["x"]) == [4097] and memory.held["x"][:, 0].tolist() == [0, 1]
    assert serving.get_batch(["x"]) is not None and memory.held["x"][:, 0].tolist() == [2, 3]
    assert serving.get_batch(["x"]) is None
    content = CalibrationCache("10.3.0", {"x": 0.5}).to_bytes()
    serving.write_calibration_cache(memoryview(content))
    assert serving.read_calibration_cache() == content


def test_the_calibrator_refuses_a_foreign_cache_and_a_missing_input(tmp_path):
    cache = tmp_path / "calibration.cache"
    cache.write_bytes(CalibrationCache("8.5.2", {"x": 0.5}).to_bytes())
    serving = entropy_calibrator(bindings(), Memory(), [{"x": np.ones((1, 2))}], batch_size=1, cache=cache)
    with pytest.raises(InputError, match="another TensorRT"):
        serving.read_calibration_cache()
    with pytest.raises(InputError, match="lacks an input") as caught:
        serving.get_batch(["y"])
    assert "'y'" in str(caught.value)


def test_there_is_no_calibrator_for_tensorrt_11(tmp_path):
    with pytest.raises(MissingToolError, match="calibrators"):
        entropy_calibrator(types.SimpleNamespace(__version__="11.4.0"), None, [], batch_size=1, cache=tmp_path / "c")


@pytest.fixture
def real(tmp_path):
    """TensorRT-RTX itself, which builds without a GPU, under the same code that a device runs."""
    config = {"model": "model.onnx", "engine": "model.engine", "tensorrt_version": "", "strongly_typed": True}
    config |= {"flags": [], "ranges": {}, "legacy": None}
    trt, logger, builder = load_tensorrt("tensorrt_rtx")

    def build(model):
        onnx.save(model, tmp_path / "model.onnx")
        return build_engine(trt, logger, builder, tmp_path, tmp_path, config, legacy=False)

    return types.SimpleNamespace(build=build, trt=trt, logger=logger, folder=tmp_path)


def test_a_real_builder_builds_saves_and_caches_timings(real):
    engine = real.build(graphs.quantized_conv())
    assert (real.folder / "model.engine").read_bytes() == engine and len(engine) > 100_000
    assert (real.folder / "timing.cache").exists()
    assert real.build(graphs.quantized_conv()) == engine


def test_a_real_parsers_refusal_is_passed_on(real):
    with pytest.raises(BuildError, match="Polish") as caught:
        real.build(graphs.foreign_op())
    assert caught.value.code == WRONG_INPUT


def test_a_plan_that_is_none_is_refused(real):
    with pytest.raises(BuildError, match="another GPU or another TensorRT"):
        Engine(real.trt, real.logger, None, b"not a plan")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA driver")
def test_without_the_driver_library_nothing_is_measured():
    with pytest.raises(BuildError, match="driver is not installed") as caught:
        Cuda()
    assert caught.value.code == MISSING
