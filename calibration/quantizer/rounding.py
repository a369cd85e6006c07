"""Round weights so that layers' outputs, not the weights themselves, come out nearest.

With d the error of one output channel's weights and H the second moments of what they multiply, the mean squared
error of the output is dᵀ H d. Rounding each weight to its nearest code makes every element of d small; here each
weight's error is first pushed onto those not yet rounded (GPTQ: with U the Cholesky factor of H⁻¹ = Uᵀ U, the error
e = (w - q) / U_ii moves weight j by -e U_ij), then single codes move where that lowers dᵀ H d (one sweep of coordinate
descent). A channel keeps its nearest codes where they give the lower error. Scales stay as they are.

The inputs of a quantized layer carry the rounding of those before it, which is close to white, and the moments come
from few samples: a tenth of the mean of H's diagonal is added to it.

Sources: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
section 3; Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", section 3 (the
quadratic form).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.calibration.quantizer.selection import bias_add

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.input_moments import InputMoments, LayerMoments
    from edgedeploy.calibration.quantizer.encoding import Encoding
    from edgedeploy.calibration.quantizer.plan import Plan
    from edgedeploy.calibration.quantizer.topology import Topology

    Matrix = NDArray[np.float64]

_DAMPING = 0.1
# Weights that are rounded before the rest of the row hears of it: matrix products in place of many small updates.
_AT_ONCE = 64


def round_weights(topology: Topology, plan: Plan, moments: InputMoments, *, centred: bool) -> None:
    """Enter in ``plan.codes`` what every weight is rounded to whose inputs are known.

    Args:
        topology: the float model.
        plan: its encodings.
        moments: of the layers' inputs.
        centred: the mean error is taken out of the biases afterwards, so that only its spread counts.
    """
    for node in topology.nodes:
        encoding = plan.constants.get((node.name, 1))
        layer = None if encoding is None else moments.layers.get(node.input[1])
        if encoding is None or layer is None:
            continue
        corrected = centred and (node.op_type != "MatMul" or bias_add(node, topology) is not None)
        key = node.input[1], encoding.identity + bytes([encoding.format.reduced]), corrected
        if key not in moments.codes:
            moments.codes[key] = rounded(topology.value(node.input[1]), encoding, layer, centred=corrected)
        plan.codes[node.input[1], encoding.identity] = moments.codes[key]


def rounded(
    weight: NDArray[np.float32], encoding: Encoding, moments: LayerMoments, *, centred: bool = True
) -> NDArray[np.int64]:
    """Codes of a weight that give the layer's outputs the least error; see the module.

    Args:
        weight: the weight.
        encoding: its grid.
        moments: of what it multiplies.
        centred: count the spread of the error only, not its mean.

    Returns:
        Codes in the weight's shape. No output channel's dᵀ H d is above that of the nearest codes.
    """
    split = moments.unfolding.split
    values = split(weight).astype(np.float64)
    shape = [1] * weight.ndim
    if encoding.axis is not None:
        shape[encoding.axis] = -1
    scale = split(np.broadcast_to(encoding.scale.reshape(shape), weight.shape)).astype(np.float64)
    zero = split(np.broadcast_to(encoding.zero_point.reshape(shape), weight.shape))
    low, high = encoding.format.qmin - zero, encoding.format.qmax - zero
    form = damped(moments.second, moments.mean, centred=centred)
    nearest = np.clip(np.rint(values / scale), low, high)
    codes = _descended(_fed_back(values, form, scale, low, high), values, form, scale, low, high)
    better = quadratic(codes * scale - values, form) < quadratic(nearest * scale - values, form)
    codes = np.where(better[:, :, None], codes, nearest)
    return np.asarray(moments.unfolding.join(codes + zero), np.int64)


def damped(second: Matrix, mean: Matrix, *, centred: bool) -> Matrix:
    """The quadratic form H of each part, positive definite; the identity where a part's inputs are all zero."""
    with np.errstate(invalid="ignore"):
        form = second - mean[:, :, None] * mean[:, None, :] if centred else second.copy()
    size = form.shape[-1]
    power = np.einsum("pii->p", form) / size
    form += (_DAMPING * power)[:, None, None] * np.eye(size)
    known = np.isfinite(form).all(axis=(1, 2)) & (power > 1e-9 * np.einsum("pii->p", second) / size)
    form[~known] = np.eye(size)
    # Weights of a channel compare at any scale, and none may vanish.
    return np.asarray(form / np.einsum("pii->p", form)[:, None, None])


def quadratic(error: Matrix, form: Matrix) -> Matrix:
    """dᵀ H d of every output channel, shape (parts, channels)."""
    return np.asarray(((error @ form) * error).sum(axis=2))


def _fed_back(values: Matrix, form: Matrix, scale: Matrix, low: Matrix, high: Matrix) -> Matrix:
    """GPTQ: round weight by weight, the one whose input is strongest first, and let the rest make up for each error."""
    order = np.argsort(-np.einsum("pii->i", form), kind="stable")
    factor = np.swapaxes(np.linalg.cholesky(np.linalg.inv(form[:, order][:, :, order])), 1, 2)
    rest, scale, low, high = (array[:, :, order] for array in (values, scale, low, high))
    codes = np.empty_like(rest)
    size = len(order)
    for start in range(0, size, _AT_ONCE):
        stop = min(start + _AT_ONCE, size)
        errors = np.empty((*rest.shape[:2], stop - start))
        for place in range(start, stop):
            step = scale[:, :, place]
            code = np.clip(np.rint(rest[:, :, place] / step), low[:, :, place], high[:, :, place])
            error = (rest[:, :, place] - code * step) / factor[:, place, place][:, None]
            rest[:, :, place + 1 : stop] -= error[:, :, None] * factor[:, place, None, place + 1 : stop]
            codes[:, :, place], errors[:, :, place - start] = code, error
        rest[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return codes[:, :, np.argsort(order)]


def _descended(codes: Matrix, values: Matrix, form: Matrix, scale: Matrix, low: Matrix, high: Matrix) -> Matrix:
    """One sweep of coordinate descent: move each code to where dᵀ H d is least with the others as they are."""
    codes = codes.copy()
    size = codes.shape[2]
    for start in range(0, size, _AT_ONCE):
        stop = min(start + _AT_ONCE, size)
        slopes = (codes * scale - values) @ form[:, :, start:stop]
        for place in range(start, stop):
            step = scale[:, :, place]
            move = np.rint(slopes[:, :, place - start] / (form[:, place, place][:, None] * step))
            if not move.any():
                continue
            after = np.clip(codes[:, :, place] - move, low[:, :, place], high[:, :, place])
            change = (after - codes[:, :, place]) * step
            codes[:, :, place] = after
            slopes += change[:, :, None] * form[:, place, None, start:stop]
    return codes
