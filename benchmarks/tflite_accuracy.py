"""Accuracy of the int8 networks that a microcontroller holds, on all 10,000 test images of Fashion-MNIST.

    python benchmarks/tflite_accuracy.py WORK [--only mobilenetv1,dscnn] [--images 10000]

WORK holds the networks of `tflite_networks.py`. The float model runs in ONNX Runtime, the .tflite files in LiteRT's
optimised int8 kernels; on the first 100 images these are compared with the reference kernels, code by code. The band
is the 95 % interval of the paired difference. A drop that is negative is a gain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tflite_networks
import tflite_own
import torch

REFERENCE_IMAGES = 100


def float_predictions(path: Path, images: np.ndarray) -> np.ndarray:
    """Class of each image, by the FP32 graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: image[None]})[0].argmax() for image in images])


def codes(content: bytes, images: np.ndarray, *, reference: bool) -> np.ndarray:
    """The int8 outputs of each image."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, point = source["quantization"]
    rows = []
    for image in images:
        fed = np.clip(np.rint(image[None].transpose(0, 2, 3, 1) / scale) + point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], fed)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"])[0])
    return np.stack(rows)


def report(network: str, folder: Path, count: int) -> None:
    """Print one network's accuracies, float and for each way of choosing ranges."""
    _, _, test, labels = tflite_networks.fashion()
    shape = tflite_networks.NETWORKS[network][1]
    images, wanted = shape(test[:count]).numpy(), labels[:count].numpy()
    exact = float_predictions(folder / "model.onnx", images) == wanted
    for method in ("minmax", "auto"):
        content = tflite_own.convert(folder, method)
        found = codes(content, images, reference=False)
        reference = codes(content, images[:REFERENCE_IMAGES], reference=True)
        apart = np.abs(found[:REFERENCE_IMAGES].astype(int) - reference)
        right = found.argmax(1) == wanted
        lost = exact.astype(float) - right
        band = 196 * lost.std() / np.sqrt(len(lost))
        print(
            f"{network:12} {method:7} images {len(images)}  float {100 * exact.mean():.2f} %  int8 "
            f"{100 * right.mean():.2f} %  drop {100 * lost.mean():+.2f} ± {band:.2f} points  "
            f"at most {apart.max()} codes from the reference kernels ({100 * (apart > 0).mean():.1f} % differ)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="dscnn,mobilenetv1,mobilenetv2")
    parser.add_argument("--images", type=int, default=10000)
    chosen = parser.parse_args()
    if not tflite_networks.FASHION.exists():
        sys.exit(f"skipped: {tflite_networks.FASHION} is absent (apt-get install dataset-fashion-mnist)")
    torch.set_num_threads(1)
    for network in chosen.only.split(","):
        folder = chosen.work / network
        if not (folder / "model.onnx").exists():
            print(f"{network}: skipped, python benchmarks/tflite_networks.py {chosen.work} makes it")
            continue
        report(network, folder, chosen.images)


if __name__ == "__main__":
    main()
