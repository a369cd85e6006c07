"""Install the CPU build of torch: one that pip already sees, else PyTorch's CPU index, else plain.

    python packaging/install_torch.py torch==2.13.0 https://download.pytorch.org/whl/cpu

On Linux, PyPI's own torch brings several gigabytes of CUDA packages, so it comes last; it is what a machine
gets that reaches PyPI alone and has no CPU wheel at hand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def resolves_to_cpu(requirement: str) -> bool:
    """Ask pip what it would install without naming an index; true for a local or a "+cpu" build."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*_PIP, "--dry-run", "--no-deps", "--ignore-installed", "--report", str(report), requirement]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return False
        [found] = json.loads(report.read_text())["install"]
    url = found["download_info"]["url"]
    return "+cpu" in found["metadata"]["version"] or url.startswith("file:") or not sys.platform.startswith("linux")


def main(requirement: str, index: str) -> None:
    """Try the three ways in turn."""
    ways = [["--index-url", index, "--retries", "0", "--timeout", "15"], []]
    if resolves_to_cpu(requirement):
        ways = [[]]
    for options in ways:
        if subprocess.run([*_PIP, *options, requirement], check=False).returncode == 0:
            return
    sys.exit(f"{requirement} could not be installed; name an index that has it: make TORCH_INDEX=URL")


_PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

if __name__ == "__main__":
    main(*sys.argv[1:3])
