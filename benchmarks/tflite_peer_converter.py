"""TFLiteConverter's side of `tflite_writer_peers.py`, in an environment with tensorflow and onnx.

    python benchmarks/tflite_peer_converter.py FOLDER OUT.tflite WARM [SAMPLES|ranges]

The ONNX graph is rebuilt as a tf.function with NHWC ops, weights and all; post-training int8 with the same samples, or
with the first few of them: one sample is the nearest that the converter comes to ranges that are known. With "ranges"
there are no samples: FOLDER/ranges.json holds the real range of each activation, which is fake-quantized to it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def attributes(node) -> dict:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def evaluate(graph, constants: dict, values: dict, ranges: dict) -> dict:
    """Run the graph's nodes on NHWC tensors."""
    import numpy as np
    import tensorflow as tf

    def limited(name: str, value):
        return tf.quantization.fake_quant_with_min_max_args(value, *ranges[name]) if name in ranges else value

    values = {name: limited(name, value) for name, value in values.items()}
    for node in graph.node:
        given = attributes(node)
        x = values.get(node.input[0])
        weights = [constants.get(name) for name in node.input]
        if node.op_type == "Conv":
            pads = given.get("pads", [0, 0, 0, 0])
            strides = list(given.get("strides", [1, 1]))
            if any(pads):
                x = tf.pad(x, [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]])
            if given.get("group", 1) > 1:
                kernel = weights[1].transpose(2, 3, 0, 1)
                y = tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], "VALID")
            else:
                y = tf.nn.conv2d(x, weights[1].transpose(2, 3, 1, 0), strides, "VALID")
            y = y + weights[2] if len(weights) > 2 else y
        elif node.op_type in ("Relu", "Clip"):
            y = tf.nn.relu6(x) if node.op_type == "Clip" else tf.nn.relu(x)
        elif node.op_type == "Add":
            y = x + values[node.input[1]]
        elif node.op_type == "ReduceMean":
            y = tf.reduce_mean(x, [1, 2])
        elif node.op_type == "Gemm":
            y = tf.matmul(x, np.ascontiguousarray(weights[1].T if given.get("transB") else weights[1])) + weights[2]
        else:
            raise SystemExit(f"{node.op_type} is not rebuilt here")
        values[node.output[0]] = limited(node.output[0], y)
    return values


def convert(folder: Path, choice: str) -> bytes:
    import numpy as np
    import onnx
    import tensorflow as tf

    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    shape = [shape[0], *shape[2:], shape[1]] if len(shape) == 4 else shape
    given = choice == "ranges"
    ranges = json.loads((folder / "ranges.json").read_text()) if given else {}
    samples = next(iter(np.load(folder / "calib.npz").values()))[: int(choice) if choice and not given else None]
    samples = samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def run(x):
        return evaluate(graph, constants, {graph.input[0].name: x}, ranges)[graph.output[0].name]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if not given:
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main() -> None:
    folder, out, warm = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    choice = sys.argv[4] if len(sys.argv) > 4 else ""
    out.write_bytes(convert(folder, choice))
    times = []
    for _ in range(warm):
        start = time.process_time()
        convert(folder, choice)
        times.append(time.process_time() - start)
    print(json.dumps({"warm_s": times}))


if __name__ == "__main__":
    main()
