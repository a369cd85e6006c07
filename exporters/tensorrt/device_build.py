"""Builds a TensorRT engine on the device that will run it, proves it against golden vectors and measures it.

This file ships in every TensorRT bundle as ``build.py``, beside ``device_gpu.py``: Python 3.8 or newer, numpy,
NVIDIA's ``tensorrt`` (or ``tensorrt_rtx``) package and the driver are all it needs.

    python3 build.py                          build, compare with the golden vectors, measure
    python3 build.py --samples in.npz --outputs out.npz --report report.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

if __package__:
    from edgedeploy.exporters.tensorrt.device_gpu import FAILED, MISSING, WRONG_INPUT, BuildError, Cuda, Power
else:  # in a bundle, run as a script
    from device_gpu import FAILED, MISSING, WRONG_INPUT, BuildError, Cuda, Power  # type: ignore[no-redef, import-not-found, unused-ignore]

WARM_UP_RUNS, WARM_UP_S = 10, 0.5


def load_tensorrt(module: str) -> Any:
    """Import the vendor module and prove that it works by creating a Builder: an import alone proves nothing."""
    names = [module, module + "_bindings"] if module == "tensorrt_rtx" else [module]
    for name in names:
        try:
            trt = importlib.import_module(name)
            break
        except (ImportError, OSError) as error:
            reason = error
    else:
        raise BuildError(MISSING, f"{module} is not installed: {reason}")
    heard: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                heard.append(text)
                sys.stderr.write(text + "\n")
            elif severity == trt.ILogger.Severity.WARNING:
                heard.append(text)

    logger = Log()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the bindings' word for a null builder
        raise BuildError(MISSING, f"TensorRT {trt.__version__} finds no usable driver: {error}") from error
    failed = [text for text in heard if "CUDA initialization failure" in text]
    if failed:
        raise BuildError(MISSING, f"TensorRT {trt.__version__} finds no usable driver: {failed[0]}")
    return trt, logger, builder


def build_engine(trt: Any, logger: Any, builder: Any, folder: Path, out: Path, config: Any, legacy: bool) -> bytes:
    """Build and save the engine; timings are cached in ``out``."""
    major = int(trt.__version__.split(".")[0])
    wanted = int((config["tensorrt_version"] or trt.__version__).split(".")[0])
    if (major >= 10) != (wanted >= 10) or (legacy and major >= 11):
        what = "calibration caches" if legacy and major >= 11 else "this model's way of typing"
        raise BuildError(WRONG_INPUT, f"TensorRT {trt.__version__} does not take {what}; export again for it")
    flags = 0
    typed = config["strongly_typed"] and not legacy
    if typed:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    elif hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    network.name = "model"  # else it is numbered, and the plan's bytes depend on how many were made before
    parser = trt.OnnxParser(network, logger)
    model = folder / (config["legacy"]["model"] if legacy else config["model"])
    if not parser.parse(model.read_bytes()):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(WRONG_INPUT, f"TensorRT {trt.__version__} refuses the model: {errors}")
    settings = builder.create_builder_config()
    if hasattr(trt, "ProfilingVerbosity"):
        settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for flag in ["FP16", "INT8"] if legacy else config["flags"]:
        settings.set_flag(getattr(trt.BuilderFlag, flag))
    if legacy:
        settings.int8_calibrator = cache_only_calibrator(trt, folder / config["legacy"]["cache"])
    if config["ranges"]:
        profile = builder.create_optimization_profile()
        for name, (low, opt, high) in config["ranges"].items():
            profile.set_shape(name, tuple(low), tuple(opt), tuple(high))
        settings.add_optimization_profile(profile)
    timings = out / "timing.cache"
    cache = settings.create_timing_cache(timings.read_bytes() if timings.exists() else b"")
    settings.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise BuildError(FAILED, f"TensorRT {trt.__version__} could not build the engine; its log is above")
    timings.write_bytes(bytes(settings.get_timing_cache().serialize()))
    engine = bytes(plan)
    (out / config["engine"]).write_bytes(engine)
    return engine


def cache_only_calibrator(trt: Any, cache: Path) -> Any:
    """A calibrator that has a cache and no data: TensorRT 10 and older take ranges through it."""

    class CacheOnly(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any) -> None:
            raise BuildError(WRONG_INPUT, "TensorRT did not take the calibration cache: it is of another version")

        def read_calibration_cache(self) -> bytes:
            return cache.read_bytes()

        def write_calibration_cache(self, content: Any) -> None:
            pass

    return CacheOnly()


class Engine:
    """A deserialized engine with its tensors bound to device memory."""

    def __init__(self, trt: Any, logger: Any, cuda: Cuda, plan: bytes) -> None:
        self._trt, self._cuda = trt, cuda
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BuildError(FAILED, "the engine was built for another GPU or another TensorRT")
        self._context = self._engine.create_execution_context()
        self._names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.outputs: dict[str, np.ndarray] = {}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Copy in, compute, copy out."""
        self.bind(feeds)
        self.enqueue()
        self.fetch()
        return {name: value.copy() for name, value in self.outputs.items()}

    def bind(self, feeds: dict[str, np.ndarray]) -> None:
        """Copy the inputs in and give every tensor its address."""
        for name in self._names:
            if self._is_input(name):
                feed = np.ascontiguousarray(feeds[name], dtype=self._dtype(name))
                self._context.set_input_shape(name, tuple(feed.shape))
                self._context.set_tensor_address(name, self._cuda.upload(name, feed))
        for name in self._names:
            if not self._is_input(name):
                shape = tuple(self._context.get_tensor_shape(name))
                self.outputs[name] = np.empty(shape, dtype=self._dtype(name))
                self._context.set_tensor_address(name, self._cuda.buffer(name, self.outputs[name].nbytes))

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BuildError(FAILED, "TensorRT could not run the engine")

    def fetch(self) -> None:
        """Copy the outputs back."""
        for name, value in self.outputs.items():
            self._cuda.download(self._cuda.buffer(name, value.nbytes), value)

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def _dtype(self, name: str) -> Any:
        return self._trt.nptype(self._engine.get_tensor_dtype(name))


def measure(engine: Engine, cuda: Cuda, feeds: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
    """Time with CUDA events: one inference with its copies, one without, and a queue that is never empty."""
    end = time.monotonic() + WARM_UP_S
    runs = 0
    while runs < WARM_UP_RUNS or time.monotonic() < end:
        engine.run(feeds)
        runs += 1
    start, copied, computed, fetched = (cuda.event() for _ in range(4))
    whole: list[float] = []
    compute: list[float] = []
    power = Power()
    end = time.monotonic() + seconds
    while len(whole) < 100 or time.monotonic() < end:
        cuda.record(start)
        engine.bind(feeds)
        cuda.record(copied)
        engine.enqueue()
        cuda.record(computed)
        engine.fetch()
        cuda.record(fetched)
        whole.append(cuda.elapsed_ms(start, fetched))
        compute.append(cuda.elapsed_ms(copied, computed))
    queued, begin = 0, time.monotonic()
    with power.watching():
        while queued < 100 or time.monotonic() - begin < seconds:
            for _ in range(50):
                engine.enqueue()
            cuda.synchronize()
            queued += 50
        busy = time.monotonic() - begin
    return {
        "latency_ms": _percentiles(whole),
        "compute_ms": _percentiles(compute),
        "runs": len(whole),
        "throughput_per_s": queued / busy,
        "power_mw": power.average_mw(),
        "power_source": power.source,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{point}": float(np.percentile(values, point)) for point in (50, 90, 99)}


def compare(outputs: dict[str, np.ndarray], golden: dict[str, np.ndarray]) -> dict[str, float]:
    """Cosine with the golden outputs, by output."""
    result = {}
    for name, expected in golden.items():
        got = outputs[name][: len(expected)].astype(np.float64).ravel()
        want = expected.astype(np.float64).ravel()[: got.size]
        norm = float(np.linalg.norm(got) * np.linalg.norm(want))
        # As `edgedeploy.quality.measures.cosine`, which a device lacks: zeros are like zeros only, never NaN.
        cosine = float(got @ want) / norm if norm else float(not got.any() and not want.any())
        result[name] = cosine if np.isfinite(cosine) else 0.0
    return result


def _load(path: Path, ports: Any, key: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {port["name"]: archive[port[key] if port[key] in archive else port["name"]] for port in ports}


def _rows(feeds: dict[str, np.ndarray], ports: Any) -> list[dict[str, np.ndarray]]:
    """One inference each: as many entries of the first axis as the input's own batch has, 1 where it is dynamic."""
    batch = {port["name"]: port["shape"][0] if isinstance(port["shape"][0], int) else 1 for port in ports}
    count = min(len(value) // batch[name] for name, value in feeds.items())
    return [
        {name: value[index * batch[name] : (index + 1) * batch[name]] for name, value in feeds.items()}
        for index in range(count)
    ]


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do what the command line asks and return the report."""
    folder = Path(__file__).resolve().parent
    config = json.loads((folder / "build.json").read_text())
    out = Path(arguments.out) if arguments.out else folder / "built"
    out.mkdir(parents=True, exist_ok=True)
    trt, logger, builder = load_tensorrt(config["module"])
    cuda = Cuda()
    begin = time.monotonic()
    if config["prebuilt"]:
        plan = (folder / config["engine"]).read_bytes()
    else:
        plan = build_engine(trt, logger, builder, folder, out, config, arguments.legacy)
    built = time.monotonic()
    engine = Engine(trt, logger, cuda, plan)
    report: dict[str, Any] = {
        "tensorrt_version": trt.__version__,
        "gpu": cuda.name(),
        "compute_capability": cuda.compute_capability(),
        "engine_bytes": len(plan),
        "build_s": built - begin,
        "load_ms": (time.monotonic() - built) * 1e3,
    }
    golden = folder.parent / "golden"
    samples = Path(arguments.samples) if arguments.samples else golden / "inputs.npz"
    if samples.exists():
        feeds = _load(samples, config["inputs"], "source")
        rows = _rows(feeds, config["inputs"])
        results = [engine.run(row) for row in rows]
        outputs = {name: np.concatenate([item[name] for item in results]) for name in results[0]}
        if arguments.outputs:
            np.savez(arguments.outputs, **outputs)
        if not arguments.samples and (golden / "outputs.npz").exists():
            report["cosine"] = compare(outputs, _load(golden / "outputs.npz", config["outputs"], "source"))
        if not arguments.no_timing:
            report.update(measure(engine, cuda, rows[0], arguments.seconds))
    return report


def main() -> int:
    """Command line; the exit code says whose fault a failure is (2 input, 4 missing tool, 5 tool or device)."""
    line = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    line.add_argument("--samples", default="", help=".npz of inputs, by captured name (default: the golden vectors)")
    line.add_argument("--outputs", default="", help="where to write the outputs (.npz)")
    line.add_argument("--report", default="", help="where to write the report (.json; default: standard output)")
    line.add_argument("--out", default="", help="folder for engine and timing cache (default: ./built)")
    line.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    line.add_argument("--no-timing", action="store_true", help="only run, do not measure")
    line.add_argument("--legacy", action="store_true", help="float model and calibration cache (TensorRT 10)")
    arguments = line.parse_args()
    try:
        report = work(arguments)
    except BuildError as error:
        sys.stderr.write(f"build.py: {error}\n")
        return error.code
    text = json.dumps(report, indent=2, sort_keys=True)
    if arguments.report:
        Path(arguments.report).write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
