"""The operators of a .tflite file, one by one: what runs, on what shapes, with how many constant bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.flatbuffer import FILE_IDENTIFIER, schema
from edgedeploy.plain_text import joined


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


def describe_tflite(path: Path, *, layers: bool = False) -> str:
    """Describe a .tflite in a few lines: size and operators by kind, with ``layers`` one more line an operator.

    Raises:
        InputError: where the file is no .tflite model.
        MissingToolError: where the schema package is not installed.
    """
    operators = operator_listing(path)
    kinds = Counter(item["operator"] for item in operators)
    lines = [
        f"{path.name}: TFLite, {path.stat().st_size / 1e6:.3f} MB, {len(operators)} operators",
        "  " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
    ]
    if layers:
        lines += [
            f"  {item['operator']}: {', '.join(item['inputs'])} → {', '.join(item['outputs'])}, "
            f"{item['constant_bytes']:,} constant bytes"
            for item in operators
        ]
    return joined(lines)


def _text(fb: Any, tensor: Any) -> str:
    kinds = {value: name.lower() for name, value in vars(fb.TensorType).items() if isinstance(value, int)}
    return f"{'x'.join(map(str, tensor.shape))} {kinds[tensor.type]}"
