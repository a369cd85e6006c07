"""Constant values of a MIL program → numpy arrays, strings, booleans and lists of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.targets.coreml.blobs import unpack_bits
from edgedeploy.targets.coreml.dtypes import BY_MIL, ScalarType
from edgedeploy.targets.coreml.package import Package


def constant(package: Package, value: Any) -> Any:
    """Decode one ``Value`` message; weight-file constants become views of the file.

    Raises:
        InputError: for a type that has no meaning here, or data that do not fill the declared shape.
    """
    kind = value.type.WhichOneof("type")
    if value.WhichOneof("value") == "blobFileValue":
        scalar, shape = _declared(value.type.tensorType)
        blob = value.blobFileValue
        return package.blob(blob.fileName, blob.offset, scalar, shape)
    immediate = value.immediateValue
    which = immediate.WhichOneof("value")
    if which == "tensor":
        return _tensor(immediate.tensor, value.type.tensorType)
    if which in ("list", "tuple"):
        return [constant(package, item) for item in getattr(immediate, which).values]
    raise InputError(f"The program holds a constant of kind {kind}, which is not known here.")


def _declared(tensor_type: Any) -> tuple[ScalarType, tuple[int, ...]]:
    scalar = BY_MIL.get(tensor_type.dataType)
    if scalar is None:
        raise InputError(f"The program holds a constant of type number {tensor_type.dataType}, not known here.")
    return scalar, tuple(int(dimension.constant.size) for dimension in tensor_type.dimensions)


def _tensor(tensor: Any, tensor_type: Any) -> Any:
    scalar, shape = _declared(tensor_type)
    which = tensor.WhichOneof("value")
    count = int(np.prod(shape, dtype=np.int64))
    if which == "strings":
        texts = list(tensor.strings.values)
        return texts[0] if not shape and texts else texts
    if which == "bytes":
        raw = np.frombuffer(tensor.bytes.values, np.uint8).copy()
        if raw.size * 8 < count * scalar.bits:
            raise InputError(f"A constant of shape {shape} and type {scalar.name} has only {raw.size} bytes.")
        if scalar.bits < 8:
            return unpack_bits(raw, scalar, count).reshape(shape)
        return raw[: count * scalar.bits // 8].view(scalar.storage).reshape(shape)
    if which is None:
        return np.zeros(shape, scalar.storage)
    data = np.array(getattr(tensor, which).values)
    if data.size != count:
        raise InputError(f"A constant of shape {shape} has {data.size} elements, expected {count}.")
    return data.astype(scalar.storage).reshape(shape)
