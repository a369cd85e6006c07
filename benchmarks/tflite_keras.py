"""A pruned and clustered Keras-2 model through the front end: same outputs as Keras, then int8 in TFLite Micro.

    python benchmarks/tflite_keras.py WORK          # where edgedeploy[tflm,tensorflow] is installed

Trains on scikit-learn's digits for some seconds. In two environments: run with ``--make`` where tensorflow is, then
with ``--check`` where the tflm extra is.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
COUNT = 200


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[..., None] / 16).astype(np.float32), data.target


def make(work: Path) -> None:
    """Train, prune, cluster, save, translate, and keep what Keras computes."""
    import tensorflow_model_optimization as optimization
    import tf_keras
    from tf_keras import layers

    from edgedeploy.exporters.tflite_micro.keras import load_keras, to_onnx

    images, labels = digits()
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    x = layers.Add()([x, layers.Conv2D(16, 1)(y)])
    x = layers.Conv2D(24, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dense(10)(layers.Flatten()(layers.MaxPooling2D()(x)))
    model = tf_keras.Model(inputs, x)
    sparsity = optimization.sparsity.keras
    # Every step: the default frequency of 100 would prune nothing in a short run.
    schedule = sparsity.ConstantSparsity(0.5, 0, frequency=1)
    pruned = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile("adam", loss)
    pruned.fit(images, labels, 64, 12, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    pruned.save(work / "pruned.keras")
    clustered = optimization.clustering.keras.cluster_weights(
        sparsity.strip_pruning(pruned), number_of_clusters=16,
        cluster_centroids_init=optimization.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    )  # fmt: skip
    clustered.compile("adam", loss)
    clustered.fit(images, labels, 64, 1, verbose=0)
    clustered.save(work / "clustered.keras")
    for name in ("pruned", "clustered"):
        plain = load_keras(work / f"{name}.keras")
        (work / f"{name}.onnx").write_bytes(to_onnx(plain).SerializeToString(deterministic=True))
        np.savez(
            work / f"{name}.npz", inputs=images[:COUNT], outputs=plain(images[:COUNT]).numpy(), labels=labels[:COUNT]
        )
        weights = np.concatenate([layer.get_weights()[0].ravel() for layer in plain.layers if layer.get_weights()])
        print(f"{name}: {np.mean(weights == 0):.0%} of the weights are zero")


def check(work: Path) -> None:
    """Write int8 and compare with Keras in the interpreter."""
    import onnx
    import onnxruntime

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.exporters.tflite_micro.codes import real, stored
    from edgedeploy.exporters.tflite_micro.contract import contract_of
    from edgedeploy.exporters.tflite_micro.rewrite import for_micro
    from edgedeploy.exporters.tflite_micro.schemes import scheme_of
    from edgedeploy.exporters.tflite_micro.writer import write_tflite
    from edgedeploy.graph.graph import graph_from_onnx
    from edgedeploy.targets.tflite_micro.simulator import simulate

    for name in ("pruned", "clustered"):
        model = onnx.load(work / f"{name}.onnx")
        with np.load(work / f"{name}.npz") as kept:
            images, wanted, labels = kept["inputs"], kept["outputs"], kept["labels"]
        feed = model.graph.input[0].name
        session = onnxruntime.InferenceSession(model.SerializeToString())
        float_difference = max(
            float(np.abs(session.run(None, {feed: image[None]})[0] - want).max())
            for image, want in zip(images, wanted, strict=True)
        )
        rewritten = for_micro(graph_from_onnx(model))
        table = Calibration(rewritten.graph, ArrayDataset({feed: images[:100]})).table
        written = write_tflite(quantize(rewritten.graph, table, scheme_of("int8")))
        (work / f"{name}.tflite").write_bytes(written.content)
        ports = contract_of(written)
        codes = stored(ports.inputs[0], [image[None] for image in images])
        found = simulate(work / f"{name}.tflite", [codes], 1, work / "run")
        got = real(ports.outputs[0], found.outputs[0])[:, 0]
        sqnr = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())
        accuracy = [float((scores.argmax(1) == labels).mean()) for scores in (wanted, got)]
        print(
            f"{name}: ONNX differs from Keras by {float_difference:.1e}; int8 {sqnr:.1f} dB, top-1 {accuracy[0]:.3f} → "
            f"{accuracy[1]:.3f}, {len(written.content)} bytes, arena {found.arena_bytes}, "
            f"{', '.join(written.model.builtins)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    if chosen.make or not chosen.check:
        make(chosen.work)
    if chosen.check or not chosen.make:
        check(chosen.work)


if __name__ == "__main__":
    main()
