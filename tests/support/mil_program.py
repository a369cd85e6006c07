"""Builds one-op MIL programs with coremltools, saves them, and runs the saved package through our executor."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.vendor import coremltools

Build = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One op with inputs and an independent definition of its result.

    ``build(mb, **variables)`` makes the op; ``expected(**arrays)`` gets the same inputs, floats as float64.
    """

    op: str
    build: Build
    inputs: dict[str, Any]
    expected: Callable[..., Any]
    note: str = ""
    target: str = "iOS17"
    half: bool = False
    tolerance: float = 2e-5
    half_tolerance: float = 4e-3

    @property
    def id(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op

    @property
    def in_half(self) -> bool:
        """Also run in float16: a float input, and not asked otherwise."""
        return self.half and any(np.asarray(value).dtype == np.float32 for value in self.inputs.values())


def package(build: Build, inputs: dict[str, Any], path: Path, *, target: str = "iOS17", half: bool = False) -> Path:
    ct = coremltools()
    from coremltools.converters.mil import Builder as mb  # noqa: N813 - coremltools' own spelling
    from coremltools.converters.mil.mil import types

    kinds = {"float32": types.fp32, "int32": types.int32, "bool": types.int32}
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    specs = [mb.TensorSpec(array.shape, dtype=kinds[str(array.dtype)]) for array in arrays.values()]

    def body(variables: tuple[Any, ...]) -> Any:
        named = {}
        for (name, array), variable in zip(arrays.items(), variables, strict=True):
            named[name] = mb.cast(x=variable, dtype="bool") if array.dtype == np.bool_ else variable
        return build(mb, **named)

    # The builder reads the parameter names of the function it decorates.
    names = ", ".join(arrays)
    scope: dict[str, Any] = {"body": body}
    exec(f"def program({names}):\n    return body(({names},))", scope)
    with contextlib.redirect_stderr(io.StringIO()):
        program = mb.program(input_specs=specs, opset_version=ct.target[target])(scope["program"])
        passes = ["common::add_fp16_cast"] if half else []
        model = ct.convert(
            program,
            convert_to="mlprogram",
            pass_pipeline=ct.PassPipeline(pass_names=passes),
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target[target],
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def run(
    build: Build, inputs: dict[str, Any], *, target: str = "iOS17", half: bool = False
) -> tuple[list[Any], Executor]:
    with tempfile.TemporaryDirectory() as folder:
        executor = Executor(package(build, inputs, Path(folder) / "case.mlpackage", target=target, half=half))
        feeds = {
            name: np.asarray(value).astype(np.int32) if np.asarray(value).dtype == np.bool_ else np.asarray(value)
            for name, value in inputs.items()
        }
        results = executor.run(feeds)
    return list(results.values()), executor


class Batch:
    """Many cases in one saved program, so that a family of ops costs one conversion; each case is judged alone."""

    def __init__(self, cases: list[Case], *, half: bool = False) -> None:
        self.half = half
        self.cases = [case for case in cases if not half or case.in_half]
        self._broken: dict[str, Exception] = {}
        self._results: dict[str, dict[str, list[Any]]] = {}
        self._types: dict[str, set[str]] = {}
        self._half_types: dict[str, set[str]] = {}

    def check(self, case: Case) -> None:
        if case.target in self._broken:
            raise self._broken[case.target]
        if case.target not in self._results:
            try:
                self._run(case.target)
            except Exception as error:
                self._broken[case.target] = error
                raise
        judge(case, self._results[case.target][case.id], half=self.half)
        assert case.op in self._types[case.target]
        if self.half:
            assert case.op in self._half_types[case.target], "the op was expected to compute in float16"

    def _run(self, target: str) -> None:
        cases = [case for case in self.cases if case.target == target]
        assert len({case.id for case in cases}) == len(cases), "two cases have one id"
        inputs = {
            f"c{n}_{name}": value for n, case in enumerate(cases) for name, value in feeds(case, self.half).items()
        }
        counts: list[int] = []

        def build(mb: Any, **variables: Any) -> Any:
            results: list[Any] = []
            for number, case in enumerate(cases):
                made = case.build(mb, **{name: variables[f"c{number}_{name}"] for name in case.inputs})
                made = list(made) if isinstance(made, (tuple, list)) else [made]
                counts.append(len(made))
                results += made
            return tuple(results)

        got, executor = run(build, inputs, target=target, half=self.half)
        operations = executor.function.block.operations
        self._types[target] = {operation.type for operation in operations}
        self._half_types[target] = {
            operation.type for operation in operations for output in operation.outputs if output.type.dtype == "float16"
        }
        self._results[target] = {}
        for case, count in zip(cases, counts, strict=True):
            self._results[target][case.id], got = got[:count], got[count:]


def feeds(case: Case, half: bool) -> dict[str, Any]:
    """The case's inputs; in half precision already rounded, so that only the op's own rounding is judged."""
    return {
        name: np.asarray(value).astype(np.float16).astype(np.float32)
        if half and np.asarray(value).dtype == np.float32
        else np.asarray(value)
        for name, value in case.inputs.items()
    }


def judge(case: Case, got: list[Any], *, half: bool) -> None:
    wide = {
        name: value.astype(np.float64) if value.dtype == np.float32 else value
        for name, value in feeds(case, half).items()
    }
    expected = case.expected(**wide)
    expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    assert len(got) == len(expected)
    for result, wanted in zip(got, map(np.asarray, expected), strict=True):
        assert result.shape == wanted.shape
        if result.dtype.kind == "f":
            size = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
            limit = (case.half_tolerance if half else case.tolerance) * size
            np.testing.assert_allclose(result.astype(np.float64), wanted, rtol=limit / size, atol=limit)
        else:
            np.testing.assert_array_equal(result, wanted)
