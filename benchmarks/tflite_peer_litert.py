"""litert-torch + ai-edge-quantizer's side of `tflite_writer_peers.py`, in an environment with both.

python benchmarks/tflite_peer_litert.py FOLDER OUT.tflite WARM
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def convert(folder: Path) -> bytes:
    import litert_torch
    import numpy as np
    import torch
    from ai_edge_quantizer import quantizer, recipe

    samples = next(iter(np.load(folder / "calib.npz").values()))
    program = torch.export.load(folder / "model.pt2")
    float_model = folder / "litert_float.tflite"
    litert_torch.convert(program.module(), (torch.from_numpy(samples[:1]),)).export(str(float_model))
    tool = quantizer.Quantizer(str(float_model), recipe.static_wi8_ai8())
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(float_model)).get_signature_list()
    name = next(iter(runner))
    feed = runner[name]["inputs"][0]
    ranges = tool.calibrate({name: [{feed: sample[None]} for sample in samples]})
    result = tool.quantize(ranges)
    return bytes(result.quantized_model)


def main() -> None:
    folder, out, warm = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    out.write_bytes(convert(folder))
    times = []
    for _ in range(warm):
        start = time.process_time()
        convert(folder)
        times.append(time.process_time() - start)
    print(json.dumps({"warm_s": times}))


if __name__ == "__main__":
    main()
