"""Our .tflite writer against TFLiteConverter, litert-torch + ai-edge-quantizer and onnx2tf, on four trained networks.

    python benchmarks/tflite_writer_peers.py WORK [--peers FOLDER] [--repeat 3] [--only digits,dscnn]

WORK keeps the trained networks (`tflite_networks.py`). FOLDER holds a virtual environment a peer, named tf, litert
and onnx2tf; one that is absent is skipped. Times are CPU time; medians of interleaved runs, each converter's first run
(the warm one) left out of "whole": by then its modules are compiled, as an installation leaves them. SQNR is over
300 evaluation inputs against the float model, every file run by LiteRT's reference kernels.

What a time holds ("whole": one process, imports included; "warm": a later conversion in the same process):
    ranges known     whole: read model.onnx and the calibration table's file, quantize, write;
                     warm: read model.onnx, quantize, write, the table being in memory
    from data        both: read model.onnx, run the 100 calibration samples, choose ranges, quantize, write
    TFLiteConverter  both: read model.onnx, rebuild it as a tf.function, run the 100 samples, quantize, write;
      "one sample"   the same with a single sample, the counterpart of "ranges known": its SQNR is of no interest
    litert, onnx2tf  both: read the exported program or model.onnx, run the 100 samples, quantize, write
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NETWORKS = ("digits", "mobilenetv2", "dscnn", "autoencoder", "mobilenetv1")
EVALUATED = 300
KNOWN = "calibration_table.npz"
OURS = "edgedeploy"


@dataclass
class Row:
    """What one converter made of one network."""

    whole_s: list[float] = field(default_factory=list)
    warm_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    size: int = 0
    sqnr_db: float = float("nan")
    accuracy: float = float("nan")


def measure(command: list[str]) -> tuple[float, float, dict]:
    """CPU seconds and peak MB of a process, and the JSON of its last line."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    bytecode = Path(tempfile.gettempdir()) / "tflite_writer_peers"
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(bytecode)}
    errors = bytecode.with_suffix(".stderr")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os.dup2(os.open(str(errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.execvpe(command[0], command, environment)
    os.close(write)
    with os.fdopen(read) as stream:
        output = stream.read()
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise subprocess.CalledProcessError(status, command, output, errors.read_text(errors="replace"))
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3, json.loads(output.strip().splitlines()[-1])


def quality(path: Path, folder: Path) -> tuple[float, float]:
    """SQNR in dB and top-1 accuracy of a file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with np.load(folder / "eval.npz") as stored:
        inputs, labels, wanted = (stored[name][:EVALUATED] for name in ("inputs", "labels", "outputs"))
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for sample in inputs:
        fed = sample[None]
        if fed.ndim == 4 and tuple(source["shape"]) != fed.shape:
            fed = fed.transpose(0, 2, 3, 1)
        if source["dtype"] == np.int8:
            scale, point = source["quantization"]
            fed = np.clip(np.rint(fed / scale) + point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], fed)
        interpreter.invoke()
        out = interpreter.get_tensor(result["index"])
        if result["dtype"] == np.int8:
            scale, point = result["quantization"]
            out = (out.astype(np.float64) - point) * scale
        rows.append(out[0])
    got = np.stack(rows)
    noise = float(np.square(wanted - got).sum())
    accuracy = float((got.argmax(1) == labels).mean()) if folder.name != "autoencoder" else float("nan")
    return 10 * np.log10(float(np.square(wanted).sum()) / noise), accuracy


def fit(path: Path, folder: Path) -> str:
    """What the model takes on a microcontroller, and the float model's accuracy."""
    from edgedeploy.targets.tflite_micro.listing import operator_listing
    from edgedeploy.targets.tflite_micro.simulator import simulate

    with np.load(folder / "eval.npz") as stored:
        sample, labels, wanted = stored["inputs"][:1], stored["labels"][:EVALUATED], stored["outputs"][:EVALUATED]
    shape = sample.transpose(0, 2, 3, 1).shape if sample.ndim == 4 else sample.shape
    found = simulate(path, [np.zeros((1, *shape), np.int8)], 1, folder / "arena")
    operators = {row["operator"] for row in operator_listing(path)}
    float_accuracy = float((wanted.argmax(1) == labels).mean())
    phases = ", ".join(f"{phase} {size:,}" for phase, size in found.peaks.as_dict().items())
    return (
        f"arena {found.arena_bytes:,} bytes ({phases}), file {path.stat().st_size:,} bytes, "
        f"float top-1 {float_accuracy:.3f}, {'a' if 'TRANSPOSE' in operators else 'no'} TRANSPOSE"
    )


def converters(peers: Path) -> dict[str, list[str]]:
    """Command of each converter that is present, up to its arguments after OUT and WARM."""
    found = {
        "edgedeploy, ranges known": [sys.executable, str(HERE / "tflite_own.py"), "minmax", KNOWN],
        "edgedeploy, from data, min/max": [sys.executable, str(HERE / "tflite_own.py"), "minmax"],
        "edgedeploy, from data, auto": [sys.executable, str(HERE / "tflite_own.py"), "auto"],
    }
    scripts = {"tf": "converter", "litert": "litert", "onnx2tf": "onnx2tf"}
    names = {"tf": "TFLiteConverter", "litert": "litert-torch + aeq", "onnx2tf": "onnx2tf"}
    for folder, script in scripts.items():
        python = peers / folder / "bin" / "python"
        if python.exists():
            found[names[folder]] = [str(python), str(HERE / f"tflite_peer_{script}.py")]
            if folder == "tf":
                found[f"{names[folder]}, one sample"] = [*found[names[folder]], "1"]
        else:
            print(f"{names[folder]}: skipped, {python} is absent")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--peers", type=Path, default=Path("peers"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--only", default=",".join(NETWORKS))
    chosen = parser.parse_args()
    commands = converters(chosen.peers)
    for network in chosen.only.split(","):
        folder = chosen.work / network
        if not (folder / "eval.npz").exists():
            print(f"{network}: skipped, python benchmarks/tflite_networks.py {chosen.work} makes it")
            continue
        rows = {name: Row() for name in commands}
        failed: set[str] = set()
        for turn in range(chosen.repeat):
            for name, (python, script, *arguments) in commands.items():
                if name in failed:
                    continue
                out = folder / f"{name.replace(' ', '_').replace('/', '')}.tflite"
                head = [python, script, str(folder), str(out)]
                rest = [str(folder / part) if part == KNOWN else part for part in arguments]
                try:
                    if turn == 0:
                        rows[name].warm_s = measure([*head, str(chosen.warm), *rest])[2]["warm_s"]
                    seconds, peak, _ = measure([*head, "0", *rest])
                except subprocess.CalledProcessError as error:
                    print(f"{network}: {name} failed: {error.stderr.strip().splitlines()[-1:]}")
                    failed.add(name)
                    del rows[name]
                    continue
                rows[name].whole_s.append(seconds)
                rows[name].peak_mb = max(rows[name].peak_mb, peak)
                if turn == 0:
                    rows[name].size = out.stat().st_size
                    rows[name].sqnr_db, rows[name].accuracy = quality(out, folder)
                    if "known" in name:
                        print(f"{network}: {fit(out, folder)}")
        report(network, rows)


def report(network: str, rows: dict[str, Row]) -> None:
    """Print one network's table, and how much faster ours are than the fastest peer that does as much."""
    print(f"\n{network}\n{'converter':32}  SQNR dB   top-1    bytes  whole s   warm s  peak MB")
    times = {name: (statistics.median(row.whole_s), statistics.median(row.warm_s)) for name, row in rows.items()}
    for name, row in rows.items():
        whole, warm = times[name]
        print(
            f"{name:32}{row.sqnr_db:9.1f}{row.accuracy:8.3f}{row.size:9d}{whole:9.2f}{warm:9.3f}{row.peak_mb:9.0f}",
            flush=True,
        )
    for name in (name for name in rows if name.startswith(OURS)):
        known = "known" in name
        peers = [times[peer] for peer in rows if not peer.startswith(OURS) and (known or "one sample" not in peer)]
        if peers:
            ratios = [min(column) / own for column, own in zip(zip(*peers, strict=True), times[name], strict=True)]
            print(f"{name:32} fastest peer / ours: whole {ratios[0]:.1f}, warm {ratios[1]:.1f}", flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
