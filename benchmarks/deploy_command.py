"""What the whole command costs: time by stage, peak memory against torch's own inference, start-up of --help.

    python benchmarks/deploy_command.py [--photos DIR]

Each figure comes from a process of its own. Photos: a folder of images (400 for the 640-sample run, which
repeats them shifted by one pixel so that every sample is different); without it foolbox's 20 photos are varied.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

TORCH_INFERENCE = """
import resource, sys
sys.path.insert(0, {examples!r})
import torch, efficientnet_lite0
torch.set_num_threads(1)
model = efficientnet_lite0.build()
with torch.inference_mode():
    for _ in range(5):
        model(torch.zeros(1, 3, 224, 224))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def calibration(folder: Path, photos: Path | None, count: int) -> Path:
    """Write ``count`` different samples as .npz: photos, then the same photos moved by a pixel."""
    import efficientnet_lite0
    import foolbox

    source = photos or Path(foolbox.__file__).parent / "data"
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = files if photos else [path for path in files if path.name.startswith("imagenet_")]
    path = folder / f"calib-{count}.npy"
    images = np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=(count, 3, 224, 224))
    for index in range(count):
        images[index] = np.roll(efficientnet_lite0.photo(files[index % len(files)]), index // len(files), axis=2)
    archive = folder / f"calib-{count}.npz"
    np.savez(archive, image=images)
    path.unlink()
    return archive


def deploy(folder: Path, data: Path) -> tuple[dict, float]:
    """Run the command once; returns measurements.json and the peak MB of all its processes together's largest."""
    out = folder / f"out-{data.stem}"
    command = [
        sys.executable, "-P", "-m", "edgedeploy", "-t", "host", "-q", "-o", str(out), "--calibration", str(data),
        "--model", "efficientnet_lite0:build", "--input", "image:1x3x224x224:float32",
        "--allow-unverified", "latency_ms", "--budget", "latency_ms=none", str(folder / "model" / "model.pt"),
    ]  # fmt: skip
    wrapper = (
        "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, r.returncode)"
    )
    examples = str(Path(__file__).parents[1] / "examples")
    environment = {**os.environ, "PYTHONPATH": examples, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *command], capture_output=True, text=True, check=True, env=environment
    )
    peak, code = done.stdout.split()[-2:]
    if int(code) not in (0, 1, 3):
        sys.exit(f"deploy ended with {code}:\n{done.stderr}")
    [bundle] = [path for path in out.iterdir() if path.is_dir()]
    return json.loads((bundle / "measurements.json").read_text()), int(peak) * 1024 / 1e6


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def help_ratio(rounds: int = 15) -> float:
    """CPU time of `deploy --help` over `python -c pass`, median of interleaved rounds."""
    tool = str(Path(sys.executable).with_name("deploy"))
    pairs = [(cpu_seconds([tool, "--help"]), cpu_seconds([sys.executable, "-c", "pass"])) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in pairs) / statistics.median(bare for _, bare in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/imagenet400"))
    photos = parser.parse_args().photos
    if not photos.is_dir():
        print(f"{photos} is absent: foolbox's 20 photos are varied instead")
        photos = None
    import efficientnet_lite0

    print(f"deploy --help: {help_ratio():.1f} x the CPU time of python -c pass (goal: 12 or less)")
    code = TORCH_INFERENCE.format(examples=str(Path(__file__).parents[1] / "examples"))
    torch_mb = int(subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1]) * 1024 / 1e6
    print(f"torch FP32 inference of EfficientNet-Lite0: {torch_mb:.0f} MB peak")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        efficientnet_lite0.write(folder / "model")
        (folder / "model" / "deploy.toml").unlink()
        peaks = {}
        for count in (64, 640):
            measurements, peaks[count] = deploy(folder, calibration(folder, photos, count))
            stages = measurements["stages_s"]
            split = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
            print(f"{count} samples: {sum(stages.values()):.1f} s ({split}); peak {peaks[count]:.0f} MB")
    print(f"peak memory: {peaks[64] / torch_mb:.2f} x torch's own inference (goal: 3 or less)")
    print(f"640 against 64 samples: {100 * (peaks[640] / peaks[64] - 1):+.1f} % (goal: within 5 %)")


if __name__ == "__main__":
    main()
