"""The one pass over the data: run the FP32 graph and gather every observed tensor's statistics."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from edgedeploy.calibration.dataset import Dataset
from edgedeploy.calibration.observed import Observed
from edgedeploy.calibration.statistics import StatisticsBuilder, TensorStatistics
from edgedeploy.errors import InputError
from edgedeploy.graph.graph import Graph
from edgedeploy.progress import NoProgress, Progress

#: Activations that are looked at together: as much as the caches near a core hold, and never very many samples.
_GATHERED_BYTES = 1 << 24
_GATHERED_SAMPLES = 1 << 10

#: A model of this size or more goes to the runtime through a file, so that its bytes need not stay in memory.
_FILED_BYTES = 1 << 23


def collect(
    graph: Graph,
    data: Dataset,
    observed: Observed,
    folds: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> dict[str, TensorStatistics]:
    """Run every sample once, one at a time, and gather statistics of the observed tensors.

    Samples run singly whatever batches they arrived in, and everything is added exactly, so that neither the order of
    the data nor its batching changes a bit of the result. Activations of some 16 MiB, and of one sample at least, are
    gathered before they are looked at: small networks would otherwise spend their time on calls.

    Args:
        graph: the FP32 graph.
        data: samples in the graph's input names, shapes and dtypes.
        observed: which tensors to look at.
        folds: fold of each sample by its hash, from 0 without gaps; ``None`` makes one fold.
        progress: told of each sample.

    Raises:
        InputError: a tensor becomes NaN, or the graph cannot run a sample.
    """
    inputs = {spec.name for spec in graph.inputs}
    folds = folds or dict.fromkeys(data.hashes, 0)
    count = max(folds.values()) + 1
    builders = {name: StatisticsBuilder(name, observed.channel_axis.get(name), count) for name in observed.tensors}
    fetch = [name for name in observed.tensors if name not in inputs]
    session = fetch_session(graph.model, fetch)
    order = sorted(range(len(data)), key=lambda position: folds[data.hashes[position]])
    gathered = _Gathered(builders, data)
    for position in (progress or NoProgress()).track(order, what="Calibrating", total=len(data)):
        sample = data[position]
        values = run_sample(session, fetch, sample, data, position)
        values |= {name: cast("NDArray[np.float32]", sample[name]) for name in observed.tensors if name in inputs}
        gathered.add(position, values, folds[data.hashes[position]])
    gathered.flush()
    return {name: builder.build() for name, builder in builders.items()}


class _Gathered:
    """Samples in the order of their folds, whose activations wait to be looked at together."""

    def __init__(self, builders: Mapping[str, StatisticsBuilder], data: Dataset) -> None:
        self._builders, self._data = builders, data
        self._positions: list[int] = []
        self._values: list[dict[str, NDArray[np.float32]]] = []
        self._shapes: list[tuple[int, ...]] = []
        self._folds: list[int] = []
        self._bytes = 0

    def add(self, position: int, values: dict[str, NDArray[np.float32]], fold: int) -> None:
        """Take a sample's tensors, after what waits where that is of other shapes."""
        shapes = [value.shape for value in values.values()]
        if shapes != self._shapes:
            self.flush()
        self._positions.append(position)
        self._values.append(values)
        self._folds.append(fold)
        self._shapes = shapes
        self._bytes += sum(value.nbytes for value in values.values())
        if self._bytes >= _GATHERED_BYTES or len(self._positions) == _GATHERED_SAMPLES:
            self.flush()

    def flush(self) -> None:
        """Add everything that waits to the statistics; `InputError` where a tensor is NaN."""
        if not self._positions:
            return
        for name, builder in self._builders.items():
            found = [values.pop(name) for values in self._values]
            nan = builder.add(np.stack(found) if len(found) > 1 else found[0][None], self._folds)
            if nan is not None:
                raise _nan(name, self._data, self._positions[nan])
        self._positions, self._values, self._folds, self._bytes = [], [], [], 0


def fetch_session(model: onnx.ModelProto, fetch: list[str]) -> Any:
    """A session of the model on one thread that also outputs the tensors ``fetch``, declared in its value_info."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = True
    content = model.SerializeToString()
    addition = _more_outputs(model, fetch).SerializeToString()
    if len(content) < _FILED_BYTES:
        return onnxruntime.InferenceSession(content + addition, options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(content)
        del content
        with path.open("ab") as file:
            file.write(addition)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _more_outputs(model: onnx.ModelProto, fetch: list[str]) -> onnx.ModelProto:
    """Return a message that, appended to the serialized model, declares ``fetch`` as outputs.

    Concatenated protocol buffers merge, repeated fields by appending (protobuf encoding, "Last One Wins"), so the
    weights need no second copy in memory.
    """
    present = {value.name for value in model.graph.output}
    known = {value.name: value for value in model.graph.value_info}
    addition = onnx.ModelProto()
    addition.graph.output.extend(known[name] for name in fetch if name not in present)
    return addition


def run_sample(
    session: Any, fetch: list[str], sample: Mapping[str, NDArray[np.generic]], data: Dataset, position: int
) -> dict[str, NDArray[np.float32]]:
    """The tensors ``fetch`` of one sample, by name; `InputError` naming the sample where the model cannot run it."""
    try:
        return dict(zip(fetch, session.run(fetch, dict(sample)), strict=True))
    except Exception as error:  # onnxruntime raises types of its own for each status code
        raise InputError(
            f"The model cannot run a calibration sample of {data.source}.",
            found=f"{data.reader.describe(data.indices[position])}: {str(error).splitlines()[0]}",
            remedy="Check that ids, lengths and shapes are what the model was trained on.",
        ) from None


def _nan(name: str, data: Dataset, position: int) -> InputError:
    return InputError(
        f"Tensor {name!r} is NaN during calibration.",
        found=f"in {data.reader.describe(data.indices[position])} of {data.source}",
        remedy="Remove that sample, or mend the model: it overflows or divides by zero there.",
    )
