"""Sessions that compute a graph as it is written: the same on every CPU, and nothing fused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def open_as_written(model: bytes | Path, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a session with every optimization off.

    The optimizer of ONNX Runtime turns Q/DQ around an op into integer kernels of the host, which on x86 without VNNI
    saturate and elsewhere round a little differently, and it is wrong where float16 and Q/DQ mix (-3 dB against 25 dB
    on EfficientNet-Lite0 with 1.31). Without it Q/DQ is what the file says: codes become float32, the op between is
    computed in float32, and the result is rounded. Sums of products are then rounded to 24 bits, which moves a code by
    one where its real value lies next to the middle between two (``benchmarks/executor_exactness.py`` counts them).

    Args:
        model: the serialized model, or its file.
        threads: of one inference; 0 lets ONNX Runtime choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )
