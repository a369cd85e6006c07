"""The peer of `snpe_models.py`: onnxruntime's own QNN recipe, compiled and simulated the same way."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

SAMPLES = 20


def peer(
    model: nn.Module, calibration: dict[str, np.ndarray], evaluation: dict[str, np.ndarray], *, wide: bool
) -> None:
    """The peer: onnxruntime's own QNN recipe (min-max, per channel) over the same samples, compiled the same way."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    from edgedeploy.errors import EdgeDeployError
    from edgedeploy.exporters.snpe.compile import compile_graph
    from edgedeploy.exporters.snpe.qnn.host import run_job
    from edgedeploy.exporters.snpe.qnn.install import require_qnn
    from edgedeploy.exporters.snpe.qnn.job import Job
    from edgedeploy.exporters.snpe.qnn.options import Hexagon, htp_options

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(range(len(next(iter(calibration.values())))))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {key: value[row : row + 1] for key, value in calibration.items()}

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        example = tuple(torch.from_numpy(values[:1]) for values in calibration.values())
        plain, quantized = work / "float.onnx", work / "peer.onnx"
        torch.onnx.export(model, example, plain, dynamo=True, opset_version=20, external_data=False,
                          input_names=list(calibration), output_names=["result"])  # fmt: skip
        config = get_qnn_qdq_config(
            str(plain), Samples(), activation_type=QuantType.QUInt16 if wide else QuantType.QUInt8,
            weight_type=QuantType.QUInt8 if wide else QuantType.QInt8, per_channel=not wide,
        )  # fmt: skip
        quantize(str(plain), str(quantized), config)
        nodes = len(onnx.load(quantized).graph.node)
        print(f"  peer: onnxruntime get_qnn_qdq_config, {nodes} nodes")
        try:
            compiled = compile_graph(require_qnn(), quantized, Hexagon(68), Hexagon(68, 30), work / "compiled")
        except EdgeDeployError as problem:
            print(f"    not compiled: {problem.what} {problem.found}"[:300])
            return
        count = min(SAMPLES, len(next(iter(evaluation.values()))))
        (work / "in").mkdir()
        (work / "out").mkdir()
        exact = []
        for row in range(count):
            sample = {key: value[row : row + 1] for key, value in evaluation.items()}
            np.savez(work / "in" / f"{row}.npz", **sample)
            with torch.no_grad():
                exact.append(model(*(torch.from_numpy(value) for value in sample.values())).numpy().ravel())
        job = Job(
            str(compiled.context_model), htp_options(require_qnn(), Hexagon(68, 30)), str(work / "answer.json"),
            samples=str(work / "in"), outputs=str(work / "out"), count=count, load_by_path=True,
        )  # fmt: skip
        run_job(job, work / "run", timeout_s=600)
        got = np.stack([np.load(work / "out" / f"{row}.npz")["result"].ravel() for row in range(count)])
        want = np.stack(exact)
        cosines = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
        same = (got.argmax(1) == want.argmax(1)).mean()
        print(f"    DLC {compiled.dlcs[0].stat().st_size / 1e6:.3f} MB, {compiled.trace.mapped} ops on HTP, n={count}")
        print(f"    cosine to FP32 mean {cosines.mean():.5f}, min {cosines.min():.5f}, top-1 {same:.4f}")
