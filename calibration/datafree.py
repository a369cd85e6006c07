"""Samples for a model that came without data: images distilled to its batch-norm statistics, or random tokens.

A batch norm remembers the mean and variance that its input had in training. Synthetic images are good where they give
the network the same statistics (Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework"). ZeroQ descends
the gradient of that distance; here images are drawn from a family with the power-law spectrum of natural images, whose
contrast, offset, slope and colour are fitted to the statistics by the cross-entropy method, which needs forward passes
only (de Boer et al. 2005). What is calibrated on them says ``data_free`` and its accuracy is unverified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgedeploy.calibration.dataset import ArrayDataset, Dataset
from edgedeploy.calibration.quantizer.topology import Topology, index
from edgedeploy.calibration.simulate import Simulator
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.graph.graph import Graph
    from edgedeploy.tensors import TensorSpec

#: Samples of a synthetic dataset.
SAMPLES = 32
_GENERATIONS, _POPULATION, _ELITE = 4, 24, 6
_DYNAMIC_SIZE = 128


def synthetic_dataset(graph: Graph, samples: int = SAMPLES, seed: int = 0) -> Dataset:
    """Make calibration samples without data; the same graph and seed give the same samples.

    Inputs of rank 4 are images, integer inputs that index an embedding are tokens drawn from its whole vocabulary,
    other integer inputs are masks or types; further float inputs are standard normal.

    Raises:
        InputError: for an input whose meaning cannot be guessed.
    """
    random = np.random.default_rng(seed)
    topology = index(graph.model)
    arrays: dict[str, NDArray[Any]] = {}
    lengths: NDArray[np.int64] | None = None
    for spec in graph.inputs:
        shape = _sizes(spec)
        if spec.dtype.startswith("int"):
            vocabulary = _vocabulary(spec.name, topology)
            if vocabulary:
                arrays[spec.name] = random.integers(0, vocabulary, (samples, *shape)).astype(spec.dtype)
            else:
                if lengths is None:
                    lengths = random.integers(max(1, shape[-1] // 4) if shape else 1, (shape or (1,))[-1] + 1, samples)
                arrays[spec.name] = _mask(spec, shape, lengths)
        elif spec.dtype == "bool":
            arrays[spec.name] = np.ones((samples, *shape), bool)
        elif spec.dtype == "float32":
            images = len(shape) == 3
            arrays[spec.name] = (
                _images(graph, spec, shape, samples, random)
                if images and len(graph.inputs) == 1
                else random.standard_normal((samples, *shape), np.float32)
            )
        else:
            raise InputError(
                f"Input {spec.name!r} of type {spec.dtype} cannot be calibrated without data.",
                remedy="Give calibration data with --calibration.",
            )
    return ArrayDataset(arrays, source="synthetic samples (data-free)")


def statistics_distance(graph: Graph, samples: list[dict[str, NDArray[Any]]]) -> float:
    """How far samples are from the training data as the batch norms remember them; 0 is the same.

    The mean over all batch norms and channels of the squared differences of mean and standard deviation, in units of
    the remembered standard deviation, over all samples taken together. NaN for a graph without batch norms.
    """
    return float(_distances(_probe(graph), graph, [samples])[0])


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else _DYNAMIC_SIZE for size in spec.shape[1:])


def _vocabulary(name: str, topology: Topology) -> int:
    """Rows of the embedding table that a tensor indexes, 0 where it indexes none."""
    for node, position in topology.consumers.get(name, ()):
        if node.op_type == "Gather" and position == 1 and node.input[0] in topology.constants:
            return int(topology.constants[node.input[0]].dims[0])
        if node.op_type in {"Cast", "Clip", "Identity", "Reshape", "Unsqueeze"}:
            found = _vocabulary(node.output[0], topology)
            if found:
                return found
    return 0


def _mask(spec: TensorSpec, shape: tuple[int, ...], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Ones up to each sample's length: what an attention mask is, and valid as token types of two."""
    positions = np.arange(shape[-1] if shape else 1)
    mask = (positions < lengths.reshape(-1, *[1] * len(shape))).astype(spec.dtype)
    return np.ascontiguousarray(np.broadcast_to(mask, (len(lengths), *shape)))


def _images(
    graph: Graph, spec: TensorSpec, shape: tuple[int, ...], count: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Images of the family whose batch-norm statistics come nearest to the remembered ones."""
    # log contrast, offset, spectral slope, share of luminance that the channels have in common
    centre, spread = np.array([0.0, 0.0, 1.2, 0.7]), np.array([0.7, 0.5, 0.5, 0.3])
    if graph.batch_norms:
        probe = _probe(graph)
        for _ in range(_GENERATIONS):
            drawn = centre + spread * random.standard_normal((_POPULATION, 4))
            batches = [
                [{spec.name: _image(shape, values, np.random.default_rng(place))[None]} for place in range(2)]
                for values in drawn
            ]
            best = drawn[np.argsort(_distances(probe, graph, batches), kind="stable")[:_ELITE]]
            centre, spread = best.mean(axis=0), best.std(axis=0) + 0.02
    drawn = centre + spread * random.standard_normal((count, 4))
    return np.stack([_image(shape, values, random) for values in drawn])


def _image(shape: tuple[int, ...], values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Noise with amplitude spectrum 1/f^slope (Field 1987), unit variance times contrast, plus an offset."""
    channels, height, width = shape
    contrast, offset, slope, common = np.exp(values[0]), values[1], values[2], np.clip(values[3], 0.0, 1.0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1 / max(height, width)
    noise = random.standard_normal((channels + 1, height, width))
    shaped = np.fft.irfft2(np.fft.rfft2(noise) / frequency**slope, s=(height, width))
    shaped = (shaped - shaped.mean(axis=(1, 2), keepdims=True)) / (shaped.std(axis=(1, 2), keepdims=True) + 1e-12)
    mixed = np.sqrt(common) * shaped[:1] + np.sqrt(1 - common) * shaped[1:]
    return np.asarray(contrast * mixed + offset, np.float32)


def _probe(graph: Graph) -> Simulator:
    """A session whose outputs are the tensors that batch norms made."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    known = {value.name: value for value in (*graph.model.graph.value_info, *graph.model.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(known[name] for name in graph.batch_norms if name in known)
    return Simulator(model, optimized=True)


def _distances(probe: Simulator, graph: Graph, batches: list[list[dict[str, NDArray[Any]]]]) -> NDArray[np.float64]:
    """The distance of each batch of samples; outputs of one batch at a time are in memory."""
    result = []
    for batch in batches:
        terms = []
        for name, values in probe.run(batch).items():
            norm = graph.batch_norms[name]
            channels = np.moveaxis(values, 2, 0).reshape(values.shape[2], -1)
            unit = np.abs(norm.gamma) + 1e-3
            terms.append(np.mean(np.square((channels.mean(axis=1) - norm.beta) / unit)))
            terms.append(np.mean(np.square((channels.std(axis=1) - np.abs(norm.gamma)) / unit)))
        result.append(np.mean(terms) if terms else np.nan)
    return np.asarray(result)
