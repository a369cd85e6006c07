"""A stand-in for a Jetson: `trtexec` and `tegrastats` as programs, and an sshd of our own on loopback.

`trtexec` takes the flags that build.sh uses and refuses others, computes with ONNX Runtime and writes its files in
the formats of NVIDIA/TensorRT samples/common/sampleReporting.cpp. It proves the wiring, not NVIDIA's numerics.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from programs import require

TRTEXEC = """#!{python}
import json, re, sys, time
from pathlib import Path
import numpy as np

VERSION = {version!r}
KNOWN = {{"onnx", "loadEngine", "saveEngine", "timingCacheFile", "warmUp", "duration", "iterations", "exportTimes",
         "exportOutput", "loadInputs", "minShapes", "optShapes", "maxShapes", "help"}}
KNOWN |= {{"stronglyTyped"}} if VERSION[:2] == "10" and len(VERSION) == 6 else set()
KNOWN |= {{"fp16", "int8", "calib"}} if not VERSION.startswith("11") else set()
flags = dict((item[2:].split("=", 1) + [""])[:2] for item in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v%s] # %s" % (VERSION, " ".join(sys.argv)))
unknown = set(flags) - KNOWN
if unknown:
    print("[E] Unknown option: --%s" % unknown.pop())
    sys.exit(1)
if "help" in flags:
    sys.exit(0)
print("[I] Selected Device: Orin")
print("[I] Compute Capability: {capability}")
source = Path(flags["onnx"] if "onnx" in flags else flags["loadEngine"])
if "saveEngine" in flags:
    Path(flags["saveEngine"]).write_bytes(source.read_bytes())
    Path(flags["timingCacheFile"]).write_bytes(b"timings")
    print("[I] flags: " + " ".join(sorted(set(flags) - {{"onnx"}})))
if "exportTimes" in flags:
    rows = ['{{ "startEnqMs" : %d, "endEnqMs" : %d, "computeMs" : 1.5, "latencyMs" : %g }}' % (i, i, 2 + i / 100)
            for i in range(101)]
    Path(flags["exportTimes"]).write_text("[\\n  " + "\\n, ".join(rows) + "\\n]\\n")
    print("[I] Throughput: 432.5 qps")
    time.sleep(0.3)
if "loadInputs" in flags:
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(source), options)
    kinds = {{"tensor(float)": np.float32, "tensor(int64)": np.int64}}
    ports = {{port.name: port for port in session.get_inputs()}}
    feeds = {{}}
    for item in flags["loadInputs"].split(","):
        name, path = item.split(":", 1)
        feeds[name] = np.fromfile(path, kinds[ports[name].type]).reshape(ports[name].shape)
    rows = []
    for port, value in zip(session.get_outputs(), session.run(None, feeds)):
        values = ", ".join("%.9g" % item for item in value.ravel())
        rows.append('{{ "name" : "%s"\\n  , "dimensions" : "%s"\\n  , "values" : [ %s ]\\n  }}'
                    % (port.name, "x".join(map(str, value.shape)), values))
    Path(flags["exportOutput"]).write_text("[\\n  " + "\\n, ".join(rows) + "\\n]\\n")
"""

TEGRASTATS = """#!/bin/sh
while :; do
  echo "11-21-2026 22:00:00 RAM 2345/7620MB CPU [5%@729] GR3D_FREQ 90% VDD_IN 5123mW/5010mW VDD_CPU_GPU_CV 812mW/800mW"
  sleep 0.05
done
"""


def install(folder: Path, *, version: str = "100300", capability: str = "8.7") -> Path:
    """Put the stand-in programs into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = TRTEXEC.format(python=sys.executable, version=version, capability=capability)
    for name, content in (("trtexec", text), ("tegrastats", TEGRASTATS)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    return folder


@contextlib.contextmanager
def ssh_server(folder: Path, programs: Path):
    """Run an sshd on loopback whose sessions find ``programs`` first; yield (address, client config).

    Skips the test where there is no sshd.
    """
    sshd, *_ = require("sshd", "ssh", "ssh-keygen")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = f"{programs}:/usr/bin:/bin"
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": f"PATH={path}",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder / 'user'}\n  UserKnownHostsFile {folder / 'known'}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        for _ in range(2400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"ssh:{getpass.getuser()}@127.0.0.1:{port}", folder / "config"
    finally:
        server.terminate()
        server.wait()
