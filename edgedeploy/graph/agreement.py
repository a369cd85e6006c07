"""How far a captured graph's outputs are from those of the model it was captured from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.quality.measures import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.graph.graph import Graph
    from edgedeploy.model.loaded import LoadedModel

#: Both compute in float32 and differ only by the order of additions; a wrong graph is off by far more.
_MIN_COSINE = 0.9999
_MAX_RELATIVE_ERROR = 1e-2


@dataclass(frozen=True)
class Agreement:
    """The worst of all samples and outputs.

    Attributes:
        cosine_min: cosine similarity.
        max_abs_error: largest absolute difference of any element.
        max_relative_error: that difference over the largest magnitude of its output.
        samples: how many were compared.
        made_up: the samples were not the user's data.
    """

    cosine_min: float
    max_abs_error: float
    max_relative_error: float
    samples: int
    made_up: bool

    @property
    def agrees(self) -> bool:
        """True where only rounding separates the two."""
        return self.cosine_min >= _MIN_COSINE and self.max_relative_error <= _MAX_RELATIVE_ERROR

    def __str__(self) -> str:
        kind = "made-up sample(s)" if self.made_up else "sample(s)"
        return (
            f"cosine {self.cosine_min:.6f}, max abs error {self.max_abs_error:.3g} "
            f"({self.max_relative_error:.2g} of the output's range) over {self.samples} {kind}"
        )


def compare(model: LoadedModel, graph: Graph, samples: Sequence[Mapping[str, NDArray[np.generic]]]) -> Agreement:
    """Run both on every sample; without samples, on one made-up one."""
    import onnxruntime

    from edgedeploy.model.onnx_source import example_array

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # One run or a few: memory counts more than speed.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in graph.outputs]
    made_up = not samples
    if made_up:
        samples = [{spec.name: example_array(spec) for spec in model.inputs}]
    lowest, absolute, relative = 1.0, 0.0, 0.0
    for sample in samples:
        expected = model.reference(sample)
        feeds = {spec.name: np.ascontiguousarray(sample[spec.name]) for spec in graph.inputs}
        for name, value in zip(names, session.run(names, feeds), strict=True):
            here = _difference(np.asarray(expected[name]), np.asarray(value))
            lowest, absolute, relative = min(lowest, here[0]), max(absolute, here[1]), max(relative, here[2])
    return Agreement(lowest, absolute, relative, len(samples), made_up)


def _difference(expected: NDArray[np.generic], got: NDArray[np.generic]) -> tuple[float, float, float]:
    """(cosine, max abs error, max abs error over the largest magnitude); shapes that differ count as no agreement."""
    if expected.shape != got.shape:
        return 0.0, float("inf"), float("inf")
    a, b = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities and NaN agree with themselves
    if same.all():
        return 1.0, 0.0, 0.0
    if not (np.isfinite(a[~same]).all() and np.isfinite(b[~same]).all()):
        return 0.0, float("inf"), float("inf")
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    error = float(np.abs(a - b).max())
    scale = max(float(np.abs(a).max()), 1e-6)
    # Outputs of rounding noise around zero have no direction to compare.
    noise = float(np.linalg.norm(a) * np.linalg.norm(b)) <= 1e-12 and error <= 1e-6
    return 1.0 if noise else cosine(a, b), error, error / scale
