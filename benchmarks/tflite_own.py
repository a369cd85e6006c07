"""edgedeploy's side of `tflite_writer_peers.py`: one whole process from the float graph and data to a .tflite.

    python benchmarks/tflite_own.py FOLDER OUT.tflite WARM METHOD [TABLE.npz]

METHOD is how ranges are chosen: "auto", as `deploy` does, which also rounds weights by layers' outputs, or "minmax",
with each weight rounded to its nearest code, which is what the peers do. TABLE is a calibration table as `deploy
calibrate` writes it, made on the first call: later calls convert with ranges that are known and read no samples, and a
warm conversion has the table in memory, as the second target of one `deploy` has.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph


def float_graph(folder: Path) -> Graph:
    """The network's exported graph."""
    import onnx

    from edgedeploy.graph.graph import Graph

    return Graph(onnx.load(folder / "model.onnx"))


def calibrated(folder: Path, graph: Graph, method: str) -> CalibrationTable:
    """The table of one pass over the network's calibration samples."""
    import numpy as np

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.exporters.tflite_micro.schemes import scheme_of

    with np.load(folder / "calib.npz", allow_pickle=False) as stored:
        data = ArrayDataset(dict(stored))
    options = CalibrationOptions(method=method, round_by_outputs=method == "auto")
    return Calibration(graph, data, options).table_for(scheme_of("int8"))


def written(graph: Graph, table: CalibrationTable) -> bytes:
    """The .tflite file."""
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.exporters.tflite_micro.schemes import scheme_of
    from edgedeploy.exporters.tflite_micro.writer import write_tflite

    return write_tflite(quantize(graph, table, scheme_of("int8"))).content


def convert(folder: Path, method: str, table: CalibrationTable | None = None) -> bytes:
    """Read, calibrate where no table is given, quantize and write."""
    graph = float_graph(folder)
    return written(graph, table or calibrated(folder, graph, method))


def known_table(folder: Path, method: str, path: Path) -> CalibrationTable:
    """The table in a file, which is made where it is absent."""
    from edgedeploy.calibration.table_file import load_table, save_table
    from edgedeploy.errors import InputError

    try:
        return load_table(path)
    except InputError:  # absent, or of an earlier version
        save_table(calibrated(folder, float_graph(folder), method), path)
    return load_table(path)


def main() -> None:
    folder, out, warm, method = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    table = known_table(folder, method, Path(sys.argv[5])) if len(sys.argv) > 5 else None
    out.write_bytes(convert(folder, method, table))
    times = []
    for _ in range(warm):
        start = time.process_time()
        convert(folder, method, table)
        times.append(time.process_time() - start)
    print(json.dumps({"warm_s": times}))


if __name__ == "__main__":
    main()
