"""PixelShuffle: ONNX's DepthToSpace counts channels as CRD there, TFLite's kernel as DCR. A permutation apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def dcr_order(channels: int, block: int) -> NDArray[np.intp]:
    """For every channel of the order DCR, the channel of the order CRD that it takes (ONNX, DepthToSpace-13)."""
    squared = block * block
    return np.arange(channels).reshape(channels // squared, squared).T.reshape(-1)


def fold_into_convolutions(model: onnx.ModelProto, constants: dict[str, np.ndarray]) -> bool:
    """Permute the filters of each convolution that feeds nothing but a DepthToSpace in CRD, in place; say if any was.

    Costs nothing at run time; any other source has its channels gathered by the writer.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    folded = False
    for node in model.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        source = writers.get(node.input[0]) if node.op_type == "DepthToSpace" else None
        if source is None or given.get("mode", b"DCR") != b"CRD" or readers[node.input[0]] != 1:
            continue
        groups = next((attribute.i for attribute in source.attribute if attribute.name == "group"), 1)
        if source.op_type != "Conv" or groups != 1 or any(name not in constants for name in source.input[1:] if name):
            continue
        for index, name in enumerate(source.input):
            if index and name:
                order = dcr_order(len(constants[name]), given["blocksize"])
                ordered = f"{name}/dcr/{source.output[0]}"
                model.graph.initializer.append(numpy_helper.from_array(constants[name][order], ordered))
                source.input[index] = ordered
        next(attribute for attribute in node.attribute if attribute.name == "mode").s = b"DCR"
        folded = True
    return folded
