"""Normalization layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


def _per_channel(tensor: Tensor | None, rank: int) -> Tensor | None:
    return None if tensor is None else tensor.reshape([-1] + [1] * (rank - 2))


def _affine(call: Call, x: Tensor) -> Tensor:
    gamma, beta = (_per_channel(call.optional(name), x.dim()) for name in ("gamma", "beta"))
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta


@op("batch_norm")
def batch_norm(call: Call) -> Results:
    """Normalize axis 1 with stored mean and variance."""
    x = call.tensor("x")
    mean = call.tensor("mean").reshape([-1] + [1] * (x.dim() - 2))
    variance = call.tensor("variance").reshape([-1] + [1] * (x.dim() - 2))
    return _affine(call, (x - mean) * torch.rsqrt(variance + call.number("epsilon", 1e-5)))


@op("instance_norm")
def instance_norm(call: Call) -> Results:
    """Normalize each channel of each sample over its spatial axes."""
    x = call.tensor("x")
    axes = tuple(range(2, x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    return _affine(call, centred * torch.rsqrt(variance + call.number("epsilon", 1e-5)))


@op("layer_norm")
def layer_norm(call: Call) -> Results:
    """Normalize over ``axes`` (default all), then scale and shift along them."""
    x = call.tensor("x")
    axes = sorted(axis % x.dim() for axis in call.integers("axes", range(x.dim())))
    centred = x - x.mean(axes, keepdim=True)
    result = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + call.number("epsilon", 1e-5))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = call.optional("gamma"), call.optional("beta")
    result = result if gamma is None else result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


@op("l2_norm")
def l2_norm(call: Call) -> Results:
    """Divide by the root of the sum of squares over the last three axes."""
    x = call.tensor("x")
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + call.number("epsilon", 1e-6))


@op("local_response_norm")
def local_response_norm(call: Call) -> Results:
    """X / (k + alpha / size * sum of squares of ``size`` neighbouring channels) ** beta."""
    return F.local_response_norm(
        call.tensor("x"),
        call.integer("size"),
        call.number("alpha", 1e-4),
        call.number("beta", 0.75),
        call.number("k", 1.0),
    )
