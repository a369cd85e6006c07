"""How much of what calibration saw a quantized graph can no longer represent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from edgedeploy.calibration.table import CalibrationTable


def clipped_fraction(model: onnx.ModelProto, table: CalibrationTable) -> float | None:
    """Share of calibration values that fall outside their tensor's quantized range, over all quantized activations.

    A value counts as clipped where it lies more than half a step beyond the last code. Counted per histogram bin:
    a bin that straddles the limit counts as inside.

    Args:
        model: a Q/DQ graph whose tensors bear the calibrated graph's names.
        table: the statistics.

    Returns:
        The share, 0 to 1, or ``None`` for a graph without quantized activations.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    clipped = total = 0
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in table or node.input[1] not in constants:
            continue
        scale = float(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
        zero = numpy_helper.to_array(constants[node.input[2]]).reshape(-1) if len(node.input) > 2 else np.zeros(1, "u1")
        codes = np.iinfo(zero.dtype)
        low, high = ((bound - int(zero[0])) * scale for bound in (codes.min, codes.max))
        histogram = table.statistics(node.input[0]).histogram
        outside = (histogram.inner < low - scale / 2) | (histogram.inner > high + scale / 2)
        clipped += int(histogram.counts[outside].sum())
        total += histogram.total
    return clipped / total if total else None
