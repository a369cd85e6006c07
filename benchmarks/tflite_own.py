"""edgedeploy's side of `tflite_writer_peers.py`: one whole process from the float graph and data to a .tflite.

    python benchmarks/tflite_own.py FOLDER OUT.tflite WARM METHOD [TABLES]

METHOD is how ranges are chosen: "auto", as `deploy` does, or "minmax", which is what the peers do.
TABLES is a folder of calibration tables, filled on the first call: later calls convert with ranges that are known, as
when several targets share one calibration.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def convert(folder: Path, method: str, tables: Path | None) -> bytes:
    import numpy as np
    import onnx

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.exporters.tflite_micro.schemes import scheme_of
    from edgedeploy.exporters.tflite_micro.writer import write_tflite
    from edgedeploy.graph.graph import Graph

    model = onnx.load(folder / "model.onnx")
    graph = Graph(model)
    with np.load(folder / "calib.npz", allow_pickle=False) as stored:
        data = ArrayDataset(dict(stored))
    calibration = Calibration(graph, data, CalibrationOptions(method=method), cache=tables)
    return write_tflite(quantize(graph, calibration.table, scheme_of("int8"))).content


def main() -> None:
    folder, out, warm, method = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    tables = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
    out.write_bytes(convert(folder, method, tables))
    times = []
    for _ in range(warm):
        start = time.process_time()
        convert(folder, method, tables)
        times.append(time.process_time() - start)
    print(json.dumps({"warm_s": times}))


if __name__ == "__main__":
    main()
