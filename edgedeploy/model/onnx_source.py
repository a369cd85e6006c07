"""An ``.onnx`` file as a source: read without following its paths out of its folder, run for reference as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.model.naming import distinct_outputs
from edgedeploy.model.onnx_form import check_form, tensor_bytes, tensors_of
from edgedeploy.tensors import Dimension, TensorSpec

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

#: protobuf cannot hold more in one message, and the canonical graph is one file.
MAX_MODEL_BYTES = 2**31 - 1


class OnnxSource:
    """An ONNX model with known input shapes.

    Args:
        path: the file.
        model: its content, external data included.
        given: shapes from ``--input`` for axes that the file leaves open.
    """

    def __init__(self, path: Path, model: onnx.ModelProto, given: Sequence[TensorSpec] = ()) -> None:
        self._path = path
        self.model = model
        self.notes: list[str] = []
        self.inputs = _inputs(model, given)
        self._listed = [value.name for value in model.graph.output]
        self.output_names = distinct_outputs((spec.name for spec in self.inputs), self._listed)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Learnt by running once on the example."""
        return tuple(
            TensorSpec(name, array.shape, str(array.dtype)) for name, array in self.reference(self.example).items()
        )

    @cached_property
    def example(self) -> dict[str, NDArray[np.generic]]:
        """One sample on which the model runs: the one given to `learn`, else made up.

        Raises:
            InputError: where it runs on no made-up values: integers of 1, which open a mask, or of 0, a valid index of
                every table.
        """
        ones = {spec.name: example_array(spec) for spec in self.inputs}
        try:
            self.reference(ones)
        except InputError:
            zeros = {spec.name: example_array(spec, 0) for spec in self.inputs}
            with suppress(InputError):
                self.reference(zeros)
                return zeros
            raise
        return ones

    def learn(self, sample: Mapping[str, NDArray[np.generic]]) -> None:
        """Take one of the user's samples as the example, in the place of made-up values."""
        self.__dict__["example"] = {spec.name: np.asarray(sample[spec.name]) for spec in self.inputs}

    def reference(self, sample: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Run the file as it is, without graph optimizations."""
        feeds = {spec.name: np.ascontiguousarray(sample[spec.name]) for spec in self.inputs}
        session = self._session
        try:
            outputs = session.run(self._listed, feeds)
        except Exception as error:
            raise InputError(
                f"ONNX Runtime cannot run {str(self._path)!r} on these inputs.",
                found=f"inputs {', '.join(map(str, self.inputs))}; {first_line(error)}",
                remedy="State the shapes with --input name:1x3x224x224:float32, or repair the model.",
            ) from error
        return dict(zip(self.output_names, outputs, strict=True))

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            # What was checked, not the path again: its data files are in memory by now.
            content = self.model.SerializeToString()
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(
                f"ONNX Runtime cannot load {str(self._path)!r}.",
                found=first_line(error),
                remedy="Check the file with onnx.checker; custom operators are not taken.",
            ) from error


def read_onnx(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file and pull in its external data.

    Raises:
        InputError: where it is no ONNX model, is larger than 2 GB, or names a data file outside its own folder.
    """
    import onnx

    model = parse_onnx(path)
    check_form(path, model)
    _read_external(path, model)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # its C++ parts raise many kinds
        raise InputError(
            f"{str(path)!r} is not a valid ONNX model.",
            found=first_line(error),
            remedy="Export it again; `python -m onnx.checker` shows the same error.",
        ) from error
    return model


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file alone, and judge nothing in it.

    Raises:
        InputError: where it is no ONNX model, or larger than 2 GB.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if path.stat().st_size > MAX_MODEL_BYTES:
        raise _too_large(path, path.stat().st_size)
    try:
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, ValueError, TypeError, MemoryError, OSError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} is neither ONNX nor any other model that is taken.",
            found=f"a damaged or truncated file, or another format ({error})",
            remedy="Copy or download it again.",
        ) from error
    return model


def _read_external(path: Path, model: onnx.ModelProto) -> None:
    import onnx
    from onnx import external_data_helper as external

    tensors = [tensor for tensor in tensors_of(model) if external.uses_external_data(tensor)]
    folder = path.parent.resolve()
    total = path.stat().st_size
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        data = _resolved(path, tensor.name, location)
        words = PurePosixPath(location.replace("\\", "/")).parts
        if not location or ".." in words or Path(location).is_absolute() or not data.is_relative_to(folder):
            raise InputError(
                f"{str(path)!r} names a data file outside its own folder; nothing was read.",
                found=f"tensor {tensor.name!r}: {location!r}",
                remedy="Save the model again with its data file beside it.",
            )
        if data == path.resolve():
            raise InputError(
                f"{str(path)!r} is damaged.",
                found=f"tensor {tensor.name[:200]!r} has the model itself for its data file",
            )
        if not data.is_file():
            raise InputError(
                f"The data file of {str(path)!r} is missing.",
                found=f"tensor {tensor.name!r} lies in {location!r}",
                remedy="Put it beside the model.",
            )
        offset, length = (_number(path, tensor.name, entries.get(key)) for key in ("offset", "length"))
        size = data.stat().st_size
        if offset + length > size:
            raise InputError(
                f"The data file of {str(path)!r} is too short.",
                found=f"tensor {tensor.name!r} ends at byte {offset + length:,}; {location!r} has {size:,}",
                remedy="Copy or download it again.",
            )
        _check_length(path, tensor, length or size - offset)
        total += length or size - offset
    if total > MAX_MODEL_BYTES:
        raise _too_large(path, total)
    for tensor in tensors:
        try:
            external.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, MemoryError, onnx.checker.ValidationError) as error:
            raise InputError(f"The data of {str(path)!r} cannot be read.", found=first_line(error)) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _resolved(path: Path, tensor: str, location: str) -> Path:
    try:
        data = (path.parent.resolve() / location).resolve()
        data.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{str(path)!r} names a data file that is no path.",
            found=f"tensor {tensor[:200]!r}: {location[:80]!r} ({type(error).__name__})",
        ) from None
    return data


def _check_length(path: Path, tensor: onnx.TensorProto, length: int) -> None:
    wanted = tensor_bytes(tensor)
    if length < wanted:
        raise InputError(
            f"{str(path)!r} is damaged.",
            found=f"tensor {tensor.name[:200]!r} needs {wanted:,} bytes and its data file has {length:,} for it",
        )


def first_line(error: BaseException) -> str:
    """The first line of an error, for a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _number(path: Path, tensor: str, text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InputError(
            f"{str(path)!r} is damaged.", found=f"tensor {tensor[:200]!r} has an offset or length of {text[:40]!r}"
        )
    return int(text)


def _too_large(path: Path, size: int) -> InputError:
    return InputError(
        f"{str(path)!r} is larger than one ONNX file can be.",
        found=f"{size / 2**30:.1f} GiB; the limit is 2 GiB",
        remedy="Deploy a smaller model, or split it.",
    )


def _inputs(model: onnx.ModelProto, given: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    said = {spec.name: spec for spec in given}
    specs = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        if not value.type.HasField("tensor_type"):
            raise InputError(f"Input {value.name!r} of the ONNX model is not a tensor.")
        tensor = value.type.tensor_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        shape: list[Dimension] = [axis.dim_value if axis.dim_value > 0 else "" for axis in tensor.shape.dim]
        spec = said.pop(value.name, None)
        if spec is not None:
            fits = len(spec.shape) == len(shape) and all(a in ("", b) for a, b in zip(shape, spec.shape, strict=False))
            if spec.dtype != dtype or (not fits and tensor.HasField("shape")):
                raise InputError(
                    f"--input {spec} does not fit the model.",
                    found=f"the file says {value.name}:{'x'.join(str(size or '?') for size in shape)}:{dtype}",
                    remedy="Give sizes only for the axes shown as '?'.",
                )
            shape = list(spec.shape)
        if shape and shape[0] in ("", "batch"):
            shape[0] = 1
        if "" in shape or (not tensor.HasField("shape") and spec is None):
            raise InputError(
                f"Input {value.name!r} of the ONNX model has axes of no fixed size.",
                found="x".join(str(size or "?") for size in shape) or "no shape at all",
                remedy=f"State it: --input {value.name}:{'x'.join(str(size or 'SIZE') for size in shape)}:{dtype}",
            )
        specs.append(TensorSpec(value.name, tuple(shape), dtype))
    if said:
        raise InputError(
            f"--input names {', '.join(map(repr, said))}, which the model does not have.",
            found=f"its inputs are {', '.join(spec.name for spec in specs)}",
        )
    return tuple(specs)


def example_array(spec: TensorSpec, fill: int = 1) -> NDArray[np.generic]:
    """Made-up values, always the same: normal floats, ``fill`` for everything else."""
    size = [int(axis) for axis in spec.shape]
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return np.random.default_rng(0).standard_normal(size).astype(spec.dtype)
    return np.full(size, fill, dtype=spec.dtype)
