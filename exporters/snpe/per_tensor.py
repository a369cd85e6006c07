"""Which matrix weights lose nothing with one scale: a DLC pays about 43 bytes for each channel's scales.

Per-channel weights put two encodings (weight and bias) of some 21 bytes each into the graph record for every output
channel. Where one scale already leaves the weights far less noisy than 8-bit activations are, that is waste.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    import onnx

    from edgedeploy.calibration.scheme import Scheme

#: Signal to noise of a weight with one scale, in dB, above which it keeps one; 8-bit activations have about 30 dB.
ENOUGH_DB = 35.0


def tolerant_weights(model: onnx.ModelProto, scheme: Scheme) -> frozenset[str]:
    """Names of the Gemm and Conv nodes whose weights, with one scale, keep `ENOUGH_DB`.

    A Gemm or pointwise Conv mixes channels and is judged as a whole. Another Conv has few weights a channel, and a
    depthwise one keeps its channels apart: there the worst channel decides.

    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = set()
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        weights = numpy_helper.to_array(tensor).astype(np.float64)
        largest = np.abs(weights).max(initial=0.0)
        if not np.isfinite(largest) or largest == 0.0:
            continue
        scale = largest / scheme.weight.qmax
        apart = node.op_type == "Conv" and any(size != 1 for size in tensor.dims[2:])
        parts = weights.reshape(tensor.dims[0] if apart else 1, -1)
        noise = np.square(np.rint(parts / scale) * scale - parts).sum(axis=1)
        if (np.square(parts).sum(axis=1) >= noise * 10 ** (ENOUGH_DB / 10)).all():
            names.add(node.name)
    return frozenset(names)
