"""onnx2tf's side of `tflite_writer_peers.py`, in an environment with onnx2tf and tensorflow.

python benchmarks/tflite_peer_onnx2tf.py FOLDER OUT.tflite WARM
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"


def convert(folder: Path) -> bytes:
    import numpy as np
    import onnx
    import onnx2tf

    name = onnx.load(folder / "model.onnx", load_external_data=False).graph.input[0].name
    samples = next(iter(np.load(folder / "calib.npz").values()))
    samples = samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        if samples.ndim == 4 and samples.shape[-1] == 3:
            # It checks itself on 20 photos that it downloads, unless they lie in the current folder under this name.
            photos = np.resize(samples, (20, *samples.shape[1:])).astype(np.float32)
            margins = [(0, 0), *((0, 128 - size) for size in photos.shape[1:3]), (0, 0)]
            np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.pad(photos, margins, mode="reflect"))
        model = shutil.copy(folder / "model.onnx", scratch)  # it simplifies the file it is given in place
        data = Path(scratch) / "calib.npy"
        np.save(data, samples)
        width = samples.shape[-1]
        mean, std = (np.zeros(width), np.ones(width)) if samples.ndim == 2 else (
            np.zeros((1, 1, 1, width)), np.ones((1, 1, 1, width)))  # fmt: skip
        onnx2tf.convert(
            input_onnx_file_path=str(model), output_folder_path=scratch,
            output_integer_quantized_tflite=True, quant_type="per-channel",
            custom_input_op_name_np_data_path=[[name, str(data), mean.tolist(), std.tolist()]],
            input_quant_dtype="int8", output_quant_dtype="int8", non_verbose=True,
        )  # fmt: skip
        return next(Path(scratch).glob("*_full_integer_quant.tflite")).read_bytes()


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
