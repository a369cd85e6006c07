"""The two interpreters every written model is run by, fed and read in the source graph's layout and real values."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_micro import runtime

from edgedeploy.exporters.tflite_micro.writer import Port, WrittenModel


def stored_input(written: WrittenModel, port: Port, sample: np.ndarray) -> np.ndarray:
    """A sample as the model takes it."""
    tensor = written.model.tensors[port.tensor]
    moved = sample.transpose(port.layout)
    if tensor.quantization is None:
        return np.ascontiguousarray(moved.astype(tensor.dtype))
    info = np.iinfo(tensor.dtype)
    codes = np.rint(moved / tensor.quantization.scale[0]) + tensor.quantization.zero_point[0]
    return np.clip(codes, info.min, info.max).astype(tensor.dtype)


def real_output(written: WrittenModel, port: Port, codes: np.ndarray) -> np.ndarray:
    """Output codes as real values in the source's layout."""
    tensor = written.model.tensors[port.tensor]
    moved = codes.transpose(np.argsort(port.layout))
    if tensor.quantization is None:
        return moved
    return (moved.astype(np.float64) - tensor.quantization.zero_point[0]) * tensor.quantization.scale[0]


def run_litert(written: WrittenModel, samples: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Output codes of LiteRT's reference kernels, by sample and output."""
    interpreter = Interpreter(model_content=written.content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    where = [detail["index"] for detail in interpreter.get_input_details()]
    results = [detail["index"] for detail in interpreter.get_output_details()]
    runs = []
    for sample in samples:
        interpreter.set_tensor(where[0], stored_input(written, written.inputs[0], sample))
        interpreter.invoke()
        runs.append([interpreter.get_tensor(index).copy() for index in results])
    return runs


def run_micro(written: WrittenModel, samples: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Output codes of TFLite Micro, by sample and output."""
    interpreter = runtime.Interpreter.from_bytes(written.content, arena_size=8 << 20)
    runs = []
    for sample in samples:
        interpreter.set_input(stored_input(written, written.inputs[0], sample), 0)
        interpreter.invoke()
        runs.append([interpreter.get_output(index).copy() for index in range(len(written.outputs))])
    return runs


def sqnr_db(reference: np.ndarray, got: np.ndarray) -> float:
    """Signal to quantization noise, 10·log10(Σ ref² / Σ (ref - got)²)."""
    noise = float(np.square(reference - got).sum())
    return float("inf") if noise == 0 else 10 * np.log10(float(np.square(reference).sum()) / noise)
