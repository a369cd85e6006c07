"""Our .tflite files against TFLiteConverter's on the same graph, weights and ranges: how many codes apart.

    python benchmarks/tflite_oracle.py WORK --peers FOLDER [--only digits,dscnn]

WORK holds the networks of `tflite_networks.py`, FOLDER the environment `tf`; both runs need ai-edge-litert here. Both
converters get one graph whose weights lie on an int8 grid (the largest weight of each channel on its end), so that both
must store the same integers. The ranges that ours chose are handed to TFLiteConverter as fake-quantization of every
activation that ours stores, so that it has nothing to calibrate. Both files run in LiteRT's reference kernels on 300
evaluation inputs; 1 code (LSB) apart is what different rounding of multipliers explains, more than 3 is a bug.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import tflite_own
from onnx import numpy_helper

HERE = Path(__file__).parent
NETWORKS = ("digits", "dscnn", "autoencoder", "mobilenetv1", "mobilenetv2")
EVALUATED, TYPICAL, LARGEST = 300, 1, 3
END = 127


def on_grid(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each weight at a multiple of its channel's scale, and the channel's largest at 127 of them."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        tensor = tensors[node.input[1]]
        weight = numpy_helper.to_array(tensor).astype(np.float64)
        rows_last = node.op_type == "Gemm" and not any(item.name == "transB" and item.i for item in node.attribute)
        rows = weight.T if rows_last else weight.reshape(len(weight), -1)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6).astype(np.float32).astype(np.float64) / END
        snapped = np.rint(rows / scale) * scale
        snapped = snapped.T if rows_last else snapped.reshape(weight.shape)
        tensor.CopyFrom(numpy_helper.from_array(snapped.astype(np.float32), tensor.name))
    return result


def stored_ranges(quantized: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Real range of the int8 codes of every activation that the Q/DQ graph stores, by the float graph's name."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    outputs = {value.name for value in quantized.graph.output}
    restored = {node.input[0]: node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    ranges = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, point = (float(constants[name]) for name in node.input[1:3])
            after = restored[node.output[0]]
            name = after if after in outputs else node.input[0]
            ranges[name] = ((-128 - point) * scale, (127 - point) * scale)
    return ranges


def codes(path: Path, inputs: np.ndarray) -> tuple[np.ndarray, tuple[float, int]]:
    """int8 outputs in the reference kernels, and the output's scale and zero point."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, point = source["quantization"]
    rows = []
    for sample in inputs:
        fed = sample[None].transpose(0, 2, 3, 1) if sample.ndim == 3 else sample[None]
        interpreter.set_tensor(source["index"], np.clip(np.rint(fed / scale) + point, -128, 127).astype(np.int8))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"])[0])
    return np.stack(rows), result["quantization"]


def compare(network: str, folder: Path, python: Path) -> bool:
    """Print how far apart the two files' outputs are; False where that is more than rounding."""
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.exporters.tflite_micro.schemes import scheme_of
    from edgedeploy.exporters.tflite_micro.writer import write_tflite
    from edgedeploy.graph.graph import Graph

    scratch = folder / "oracle"
    scratch.mkdir(exist_ok=True)
    graph = Graph(on_grid(onnx.load(folder / "model.onnx")))
    (scratch / "model.onnx").write_bytes(graph.model.SerializeToString())
    (scratch / "calib.npz").write_bytes((folder / "calib.npz").read_bytes())
    table = tflite_own.calibrated(folder, graph, "minmax")
    quantized = quantize(graph, table, scheme_of("int8"), bias_correction=False)
    ours, theirs = scratch / "ours.tflite", scratch / "theirs.tflite"
    ours.write_bytes(write_tflite(quantized).content)
    (scratch / "ranges.json").write_text(json.dumps(stored_ranges(quantized)))
    subprocess.run(
        [python, HERE / "tflite_peer_converter.py", scratch, theirs, "0", "ranges"], check=True, capture_output=True
    )
    with np.load(folder / "eval.npz") as stored:
        inputs = stored["inputs"][:EVALUATED]
    (got, own), (wanted, other) = codes(ours, inputs), codes(theirs, inputs)
    apart = np.abs(got.astype(int) - wanted)
    share = (apart <= TYPICAL).mean()
    same = bool(np.isclose(own[0], other[0], rtol=1e-5)) and own[1] == other[1]
    passed = same and apart.max() <= LARGEST and share >= 0.99
    print(
        f"{network:12} outputs {apart.size:7}  equal {100 * (apart == 0).mean():6.2f} %  within {TYPICAL} LSB "
        f"{100 * share:6.2f} %  largest {apart.max()} LSB  same output scale: {'yes' if same else 'no'}  "
        f"{'PASS' if passed else 'FAIL'}",
        flush=True,
    )
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--peers", type=Path, default=Path("peers"))
    parser.add_argument("--only", default=",".join(NETWORKS))
    chosen = parser.parse_args()
    python = chosen.peers / "tf" / "bin" / "python"
    if not python.exists():
        sys.exit(f"skipped: {python} is absent (an environment with tensorflow and onnx)")
    passed = True
    for network in chosen.only.split(","):
        folder = chosen.work / network
        if not (folder / "eval.npz").exists():
            print(f"{network}: skipped, python benchmarks/tflite_networks.py {chosen.work} makes it")
            continue
        passed = compare(network, folder, python) and passed
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
