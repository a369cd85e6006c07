"""How far a captured graph's outputs are from those of the model it was captured from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgedeploy.errors import EdgeDeployError, InputError
from edgedeploy.graph.probes import Probe, probes, shaken
from edgedeploy.quality.measures import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.graph.graph import Graph
    from edgedeploy.model.loaded import LoadedModel

    Sample = Mapping[str, NDArray[np.generic]]
    Outputs = Mapping[str, NDArray[np.generic]]

#: Both compute in float32 and differ only by the order of additions; a wrong graph is off by far more.
_MIN_COSINE = 0.9999
_MAX_RELATIVE_ERROR = 1e-2
_ON_PROBE = "an input of "
#: On a probe, a difference this many times what rounding the input does to the model itself is still rounding.
_TIMES_OWN_ROUNDING = 8.0


@dataclass(frozen=True)
class Agreement:
    """The worst of all samples and outputs.

    Attributes:
        cosine_min: cosine similarity.
        max_abs_error: largest absolute difference of any element.
        max_relative_error: that difference over the largest magnitude of its output.
        samples: how many were compared.
        made_up: the samples were not the user's data.
        probes: the made-up inputs that said something: those on which the model itself is finite.
        differs_on: the first input on which more than rounding separates the two ("an input of zeros"); empty where
            none does.
    """

    cosine_min: float
    max_abs_error: float
    max_relative_error: float
    samples: int
    made_up: bool
    probes: tuple[str, ...] = ()
    differs_on: str = ""

    @property
    def agrees(self) -> bool:
        """True where only rounding separates the two."""
        return not self.differs_on

    @property
    def differing_probe(self) -> str:
        """The probe on which the two differ; empty where they agree or differ on a sample."""
        return self.differs_on.removeprefix(_ON_PROBE) if self.differs_on.startswith(_ON_PROBE) else ""

    def __str__(self) -> str:
        kind = "made-up sample(s)" if self.made_up else "sample(s)"
        where = f"on {self.differs_on}" if self.differs_on else f"over {self.samples} {kind}"
        if not np.isfinite(self.max_abs_error):
            return f"{where}: the graph gives NaN, an infinity or another shape where the model gives numbers"
        return (
            f"{where}: cosine {self.cosine_min:.6f}, max abs error {self.max_abs_error:.3g} "
            f"({self.max_relative_error:.2g} of the output's range)"
        )


@dataclass(frozen=True)
class _Difference:
    """(cosine, max abs error, max abs error over the largest magnitude) of one input's worst output."""

    cosine: float = 1.0
    absolute: float = 0.0
    relative: float = 0.0

    @property
    def is_rounding(self) -> bool:
        return self.cosine >= _MIN_COSINE and self.relative <= _MAX_RELATIVE_ERROR

    def worse(self, other: _Difference) -> _Difference:
        return _Difference(
            min(self.cosine, other.cosine), max(self.absolute, other.absolute), max(self.relative, other.relative)
        )


def compare(
    model: LoadedModel,
    graph: Graph,
    samples: Sequence[Sample],
    largest: Mapping[str, int] | None = None,
    without: Set[str] = frozenset(),
) -> Agreement:
    """Run both on every sample (without any, on one made-up one), then on probes: zeros, ones, large and tiny values.

    A probe says nothing where the model itself fails or gives numbers that are not finite, and its difference is
    rounding where shaking the input by a few units in the last place moves the model's own output as much.

    Args:
        largest: by integer input, the largest value seen in the user's data; 0 where none is known.
        without: probes to leave out, by name.

    Raises:
        InputError: where ONNX Runtime refuses the graph, or the size of an output depends on the input's values.
    """
    runner = _Runner(graph)
    made_up = not samples
    samples = samples or [model.example]
    worst, sizes = _Difference(), _Sizes()
    for index, sample in enumerate(samples):
        expected = model.reference(sample)
        sizes.see(expected)
        found = _worst(expected, runner.run(sample))
        worst = worst.worse(found)
        if not found.is_rounding:
            name = "a made-up input" if made_up else f"sample {index + 1}"
            return _agreement(found, len(samples), made_up, (), name)
    said = []
    for probe in _safe(probes(model.inputs, samples[0], largest or {}), graph):
        finite = None if probe.name in without else _finite_reference(model, probe.sample)
        if finite is None:
            continue
        sizes.see(finite)
        try:
            found = _worst(finite, runner.run(probe.sample))
        except InputError:
            found = _Difference(0.0, float("inf"), float("inf"))
        said.append(probe.name)
        if not found.is_rounding and not _is_own_rounding(model, probe, samples[0], finite, found):
            return _agreement(found, len(samples), made_up, tuple(said), f"{_ON_PROBE}{probe.name}")
    return _agreement(worst, len(samples), made_up, tuple(said), "")


def _agreement(found: _Difference, samples: int, made_up: bool, said: tuple[str, ...], where: str) -> Agreement:
    return Agreement(found.cosine, found.absolute, found.relative, samples, made_up, said, where)


class _Runner:
    """The captured graph in ONNX Runtime."""

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # One run or a few: memory counts more than speed.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _refused(error) from error
        self._inputs = [spec.name for spec in graph.inputs]
        self._outputs = [spec.name for spec in graph.outputs]

    def run(self, sample: Sample) -> Outputs:
        feeds = {name: np.ascontiguousarray(sample[name]) for name in self._inputs}
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))
        except Exception as error:
            raise _refused(error) from error


def _refused(error: Exception) -> InputError:
    return InputError(
        "ONNX Runtime cannot run the captured graph.",
        found=(str(error).strip().splitlines() or [type(error).__name__])[0][:400],
        remedy="Look at the operator that it names: its attributes or shapes make no sense together.",
    )


class _Sizes:
    """The shape of each output, which must be one and the same for every input."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}

    def see(self, outputs: Outputs) -> None:
        for name, value in outputs.items():
            before = self._shapes.setdefault(name, np.shape(value))
            if before != np.shape(value):
                raise depends_on_data(name, before, np.shape(value))


def depends_on_data(name: str, one: tuple[int, ...], other: tuple[int, ...]) -> InputError:
    """An output whose size depends on what the input holds, as after NonZero, masking or non-maximum suppression."""
    sizes = " and ".join("x".join(map(str, shape)) or "a single value" for shape in (one, other))
    return InputError(
        f"The size of output {name!r} depends on the values of the input; a device needs one size.",
        found=f"{sizes} for two inputs",
        remedy="Return everything at a fixed size (the scores before suppression, a mask, or the best k), "
        "and do the selection in the application.",
    )


def _finite_reference(model: LoadedModel, sample: Sample) -> Outputs | None:
    """The model's outputs; ``None`` where it fails, or gives anything that is not finite."""
    try:
        outputs = model.reference(sample)
    except (EdgeDeployError, RuntimeError, ValueError, IndexError, ArithmeticError, TypeError, AssertionError):
        return None
    finite = all(np.isfinite(value).all() for value in outputs.values() if np.asarray(value).dtype.kind == "f")
    return outputs if finite else None


def _safe(made: list[Probe], graph: Graph) -> list[Probe]:
    """No probes with zeros in the integers where something is divided by an integer: that ends the process."""
    constants = {tensor.name for tensor in graph.model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.model.graph.value_info}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    divides = any(
        node.op_type in ("Div", "Mod") and node.input[1] not in constants and types.get(node.output[0]) not in floats
        for node in graph.model.graph.node
    )
    whole = any(spec.dtype.startswith(("int", "uint")) for spec in graph.inputs)
    return [] if whole and divides else made


def _is_own_rounding(model: LoadedModel, probe: Probe, example: Sample, expected: Outputs, found: _Difference) -> bool:
    """True where shaking the input by a few units in the last place moves the model's own output as much."""
    if not np.isfinite(found.absolute):
        return False
    moved = 0.0
    for seed in range(3):
        outputs = _finite_reference(model, shaken(probe.sample, example, seed))
        if outputs is None:
            return True  # on the edge of what float32 holds
        moved = max(moved, _worst(expected, outputs).absolute)
    return found.absolute <= _TIMES_OWN_ROUNDING * moved


def _worst(expected: Outputs, got: Outputs) -> _Difference:
    worst = _Difference()
    for name, value in expected.items():
        worst = worst.worse(_difference(np.asarray(value), np.asarray(got[name])))
    return worst


def _difference(expected: NDArray[np.generic], got: NDArray[np.generic]) -> _Difference:
    """Of one output; another shape, and a number against none, count as no agreement."""
    if expected.shape != got.shape:
        return _Difference(0.0, float("inf"), float("inf"))
    a, b = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities and NaN agree with themselves
    if same.all():
        return _Difference()
    if not (np.isfinite(a[~same]).all() and np.isfinite(b[~same]).all()):
        return _Difference(0.0, float("inf"), float("inf"))
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    error = float(np.abs(a - b).max())
    scale = max(float(np.abs(a).max()), 1e-6)
    # Outputs of rounding noise around zero have no direction to compare.
    noise = float(np.linalg.norm(a) * np.linalg.norm(b)) <= 1e-12 and error <= 1e-6
    return _Difference(1.0 if noise else cosine(a, b), error, error / scale)
