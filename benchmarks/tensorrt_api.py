"""Lists the Python API of real TensorRT bindings, without TensorRT's libraries and without a GPU.

    pip download --no-deps -d DIR tensorrt-cu12-bindings==10.16.1.11      (or tensorrt-cu13-bindings==11.4.0.106)
    python benchmarks/tensorrt_api.py DIR/*.whl > tests/targets/tensorrt/api_10.16.json

The wheels hold the pybind11 module alone. Its four libraries are stood in for by empty ones made with gcc, which is
enough to import it and to list every class and member; nothing of NVIDIA's is kept but the names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SYMBOLS = [
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "createInferBuilder_INTERNAL",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]
LIST = """
import json, sys, tensorrt_bindings as trt
names = {name: sorted(m for m in dir(getattr(trt, name)) if not m.startswith("__"))
         for name in dir(trt) if not name.startswith("_") and isinstance(getattr(trt, name), type)}
functions = sorted(n for n in dir(trt) if not n.startswith("_") and callable(getattr(trt, n)) and n not in names)
try:
    trt.Builder(trt.Logger())
    without = "a builder"
except TypeError as error:
    without = str(error)
json.dump({"version": trt.__version__, "classes": names, "functions": functions, "null_builder": without},
          sys.stdout, indent=0, sort_keys=True)
"""


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        zipfile.ZipFile(wheel).extractall(place / "wheel")
        major = "11" if "-11." in wheel.name else "10"
        (place / "empty.c").write_text("".join(f"void *{name}() {{ return 0; }}\n" for name in SYMBOLS))
        for library in ("libnvonnxparser", "libnvinfer_plugin", "libnvinfer"):
            soname = f"{library}.so.{major}"
            argv = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", place / soname, place / "empty.c"]
            subprocess.run(argv, check=True)
        env = {**os.environ, "LD_LIBRARY_PATH": str(place), "PYTHONPATH": str(place / "wheel")}
        done = subprocess.run([sys.executable, "-c", LIST], env=env, check=True, capture_output=True, text=True)
        listing = json.loads(done.stdout)
    json.dump(listing, sys.stdout, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
