"""Stands in for a Mac's `xcrun`: `coremlcompiler compile` copies, `swift` predicts with our executor.

It keeps to what run_on_mac.swift reads and writes; it proves the path there and back, not Apple's compiler.
"""

import json
import shutil
import sys
from pathlib import Path


def main(arguments):
    if arguments[:2] == ["coremlcompiler", "compile"]:
        package, target = Path(arguments[2]), Path(arguments[3])
        shutil.copytree(package, target / f"{package.stem}.mlmodelc" / package.name)
        return 0
    if arguments[0] != "swift":
        print(f"xcrun: error: unable to find utility {arguments[0]!r}", file=sys.stderr)
        return 72
    import numpy as np

    from edgedeploy.targets.coreml.executor import Executor

    folder = Path(arguments[2])
    assert Path(arguments[1]).read_text().startswith("// Runs a compiled Core ML model")
    job = json.loads((folder / "job.json").read_text())
    executor = Executor(next((folder / job["model"]).iterdir()))
    report = {"machine": "stand-in", "system": "no macOS", "units": {}}
    for unit in ("CPU_ONLY", "CPU_AND_NE", "ALL"):
        for number in range(job["samples"]):
            feeds = {
                port["name"]: np.fromfile(folder / f"inputs/{number}/{port['name']}.bin", port["dtype"]).reshape(
                    port["shape"]
                )
                for port in job["inputs"]
            }
            results = executor.run(feeds)
            target = folder / "outputs" / unit / str(number)
            target.mkdir(parents=True)
            for port in job["outputs"]:
                results[port["name"]].astype(np.float32).tofile(target / f"{port['name']}.bin")
        times = [2.0] * (job["repetitions"] // 2) + [4.0] * (job["repetitions"] - job["repetitions"] // 2)
        report["units"][unit] = {"load_ms": 12.5, "latency_ms": times, "placement": {"a": "neural-engine", "b": "cpu"}}
    (folder / "results.json").write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
