"""The operators of a .tflite file, one by one: what runs, on what shapes, with how many constant bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.flatbuffer import FILE_IDENTIFIER, schema


def operator_listing(path: Path) -> list[dict[str, Any]]:
    """Read a model's first subgraph.

    Raises:
        InputError: where the file is no .tflite model.
    """
    fb = schema()
    content = path.read_bytes()
    if content[4:8] != FILE_IDENTIFIER:
        raise InputError(f"{path} is not a .tflite model.", found=f"file identifier {content[4:8]!r}")
    model = fb.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(fb.BuiltinOperator).items() if isinstance(value, int)}
    subgraph = model.subgraphs[0]
    listing = []
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        operands = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [model.buffers[tensor.buffer].data for tensor in operands]
        listing.append(
            {
                "operator": names[max(code.builtinCode, code.deprecatedBuiltinCode)],
                "version": code.version,
                "inputs": [_text(fb, t) for t, data in zip(operands, constants, strict=True) if data is None],
                "outputs": [_text(fb, subgraph.tensors[index]) for index in operator.outputs],
                "constant_bytes": int(sum(np.size(data) for data in constants if data is not None)),
            }
        )
    return listing


def _text(fb: Any, tensor: Any) -> str:
    kinds = {value: name.lower() for name, value in vars(fb.TensorType).items() if isinstance(value, int)}
    return f"{'x'.join(map(str, tensor.shape))} {kinds[tensor.type]}"
