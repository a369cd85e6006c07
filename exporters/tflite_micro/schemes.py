"""The candidates of this backend and the quantization scheme of each."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.calibration.scheme import IntegerFormat, Scheme
from edgedeploy.calibration.schemes import SCHEMES

#: Candidates in order, with the scheme of each.
CANDIDATES = {"int8": "tflite", "int16x8": "tflite-int16x8"}


def scheme_of(candidate: str) -> Scheme:
    """The quantization scheme of a candidate; a LayerNorm's gamma keeps 16 bits, for its recipe computes in int16."""
    scheme = SCHEMES[CANDIDATES[candidate]]
    precise = IntegerFormat(bits=16, symmetric=True, narrow=True)
    return replace(scheme, weight_formats={**scheme.weight_formats, "LayerNormalization": precise})
