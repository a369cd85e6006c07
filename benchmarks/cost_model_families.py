"""Which rows belong to which family of devices, and the priors of each family (order of `cost_model_fit.NAMES`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cost_model_fit import Bench, Family, Fit, fit_family, frozen_families, table
from cost_model_more_networks import MORE
from cost_model_networks import NETWORKS, hub
from cost_model_rows import Row, cpu_rows, gpu_rows, hub_rows, iphone_rows, jetson_rows, tiny_rows

from edgedeploy.precision import FLOAT16, FLOAT32, INT8, INT16

#: Devices whose published coverage is thin because networks that do not compile cleanly were dropped.
_THIN = {"float": {"qcs6490"}, "w8a8": set(), "w8a16": set()}

NPU_FLOAT = Family("Snapdragon NPU, float", "npu", FLOAT16, (50, 0.05, 0.7, 5500, 50, 120, 35, 1.5), odd_rows=True)
NPU_INT8 = Family("Snapdragon NPU, w8a8", "npu", INT8, (50, 0.02, 0.5, 16000, 50, 100, 40, 2), odd_rows=True)
NPU_INT16 = Family("Snapdragon NPU, w8a16", "npu", INT16, (50, 0.03, 0.7, 9000, 50, 100, 40, 2), odd_rows=True)
#: A Cortex-M has no start-up to speak of and no attention in its four networks: those stay at their priors.
TINY = Family(
    "Cortex-M, int8",
    "mcu",
    INT8,
    (50, 0.01, 20, 0.07, 0.04, 0.01, 1.5, 1),
    (1, 0.01, 0.7, 1, 1, 1, 0.5, 0.01),
    shrink=0.05,
    noise=0.05,
)
IPHONE = Family(
    "iPhone Neural Engine (A14), float16",
    "ane",
    FLOAT16,
    (400, 0.01, 0.5, 3000, 40, 200, 1.5, 1.5),
    (0.7, 0.1, 0.5, 1, 0.7, 0.5, 0.3, 0.5),
)
#: Rates start at the boards' mean peak, and at 60 % of their mean bandwidth.
JETSON = Family(
    "Jetson GPU, TensorRT int8",
    "gpu",
    INT8,
    (100, 0.05, 5, 13500, 60, 100, 8, 2),
    (0.5, 0.1, 0.5, 1, 1, 1, 0.3, 0.3),
    shrink=0.4,
)
GPU = Family("GPU, ncnn float16", "gpu", FLOAT16, (500, 0.01, 50, 200, 20, 10, 4, 2), (1, 0.01, 1, 1, 1, 1, 0.7, 0.7))
CPU_FLOAT = Family(
    "CPU, ncnn float", "cpu", FLOAT32, (100, 0.01, 5, 60, 10, 5, 2, 2), (1, 0.01, 1, 1, 1, 1, 0.7, 0.7), shrink=0.7
)
#: Factors on the same machines in float: about 1.5 times the multiply-accumulates; activations of a byte, not four;
#: weights of a byte, not the two that ncnn keeps in float (and the model counts as four).
CPU_INT8 = Family(
    "CPU, ncnn int8", "cpu", INT8, (1, 1, 1, 1.5, 0.5, 0.25, 1, 1), (1, 0.01, 1, 1, 1, 1, 0.7, 0.1), shrink=0.5
)


def stacks_of(family: Family, devices: Sequence[str]) -> list[str]:
    """The software stack of each Cortex-M board; empty for other families, whose devices have one each."""
    return ["|".join(device.split("|")[:2]) for device in devices] if family is TINY else []


class AroundFloat:
    """The CPUs' float fit without some networks: what their int8 fit is shrunk towards."""

    def __init__(self, rows: Sequence[Row], facts) -> None:
        self._table = table(rows)
        self._bench = Bench(CPU_FLOAT, facts, self._table.networks)
        self._full = fit_family(CPU_FLOAT, self._bench, self._table.logs)

    def __call__(self, held: set[str]) -> Fit:
        """The fit without the networks of these names."""
        if not held:
            return self._full
        logs = self._table.logs.copy()
        logs[:, [name in held for name in self._table.networks]] = np.nan
        return fit_family(CPU_FLOAT, self._bench, logs, self._full)


def gather(folder: Path, wheel: Path, facts) -> list[tuple[Family, list[Row]]]:
    """Every family with its rows; one whose tables are absent has none."""
    found = []
    for family, precision in ((NPU_FLOAT, "float"), (NPU_INT8, "w8a8"), (NPU_INT16, "w8a16")):
        rows = hub_rows(wheel, precision, hub()) if wheel.is_file() else []
        found.append((family, [row for row in rows if row.device not in _THIN[precision]]))
    readers = (
        (TINY, "mcu_mlperf_tiny.csv", tiny_rows),
        (
            IPHONE,
            "coreml_iphone.csv",
            lambda path: [row for row in iphone_rows(path, facts) if row.device == "iphone-A14"],
        ),
        (JETSON, "jetson_rpi_mlperf.csv", jetson_rows),
        (GPU, "cpu_gpu_ncnn.csv", lambda path: gpu_rows(path, facts)),
        (CPU_FLOAT, "cpu_gpu_ncnn.csv", lambda path: cpu_rows(path, integer=False, networks=facts)),
        (CPU_INT8, "cpu_gpu_ncnn.csv", lambda path: cpu_rows(path, integer=True, networks=facts)),
    )
    for family, name, read in readers:
        found.append((family, read(folder) if (folder / name).is_file() else []))
    return found


def architecture(network: str) -> str:
    """The architecture family of a network."""
    from cost_model_networks import every

    return every()[network][0]


def frozen_set() -> set[str]:
    """The test set: a third of the architecture families of `MORE`, by the SHA-256 of their names.

    It was chosen before any fit saw them. The first such set (among the networks of `NETWORKS`) was reported once and
    is fitted on since.
    """
    known = {NETWORKS[name][0] for name in NETWORKS}
    return frozen_families((MORE[name][0] for name in MORE if MORE[name][0] not in known), 1 / 3)
