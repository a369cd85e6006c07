"""Unary real functions that have no integer kernel; the writer puts each into a table of 256 codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[[Any, Mapping[str, Any]], Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Any, attributes: Mapping[str, Any]) -> Any:
    if attributes.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _softplus(x: Any, _: Mapping[str, Any]) -> Any:
    return np.logaddexp(x, 0.0)


#: op type → f(real input, node attributes); the defaults are ONNX's (onnx.ai/onnx/operators).
FUNCTIONS: dict[str, Function] = {
    "Gelu": _gelu,
    "HardSigmoid": lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "Erf": lambda x, _: _erf(x),
    "Softplus": _softplus,
    "Mish": lambda x, a: x * np.tanh(_softplus(x, a)),
    "Elu": lambda x, a: np.where(x > 0, x, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Selu": lambda x, a: (
        a.get("gamma", 1.0507009873554805)
        * np.where(x > 0, x, a.get("alpha", 1.6732632423543772) * np.expm1(np.minimum(x, 0)))
    ),
    "Celu": lambda x, a: np.maximum(x, 0) + np.minimum(0, a.get("alpha", 1.0) * np.expm1(x / a.get("alpha", 1.0))),
    "Softsign": lambda x, _: x / (1 + np.abs(x)),
    "Exp": lambda x, _: np.exp(np.minimum(x, 700.0)),
    "Log": lambda x, _: np.log(np.maximum(x, 1e-30)),
    "Sqrt": lambda x, _: np.sqrt(np.maximum(x, 0)),
    "Reciprocal": lambda x, _: 1 / np.where(x == 0, 1e-30, x),
    "Neg": lambda x, _: -x,
    "Sin": lambda x, _: np.sin(x),
    "Cos": lambda x, _: np.cos(x),
    "Floor": lambda x, _: np.floor(x),
    "Ceil": lambda x, _: np.ceil(x),
    "Round": lambda x, _: np.rint(x),
}
