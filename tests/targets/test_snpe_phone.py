"""The phone runner against a stand-in adb that behaves as documented, failures and timeouts included."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from snpe_nets import context, images, small_cnn

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ExitCode, InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.snpe.exporter import SnpeExporter
from edgedeploy.interfaces import RunJob
from edgedeploy.targets.snpe import phone
from edgedeploy.targets.snpe.runner import SnpeRunner

EVALUATION = images(4, 3, 16, 16, seed=11)

#: Keeps the phone's files in a folder; snpe-net-run writes the row sums of its input as scores.
ADB = """#!{python}
import os, pathlib, shlex, shutil, struct, sys, time
phone = pathlib.Path(os.environ["PHONE"])
behave = os.environ.get("BEHAVE", "")
arguments = sys.argv[1:]
if arguments[:1] == ["-s"]:
    if arguments[1] != "SERIAL1":
        sys.exit("adb: device '" + arguments[1] + "' not found")
    arguments = arguments[2:]
there = lambda path: phone / path.lstrip("/")
def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copyfile(source, target)
if arguments[0] == "push":
    copy(pathlib.Path(arguments[1]), there(arguments[2]))
elif arguments[0] == "pull":
    if not there(arguments[1]).exists():
        sys.exit("adb: error: failed to stat remote object '" + arguments[1] + "': No such file or directory")
    copy(there(arguments[1]), pathlib.Path(arguments[2]))
elif arguments[0] == "shell":
    line = arguments[1]
    words = shlex.split(line)
    while words and "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)
    tool = words[0].rpartition("/")[2]
    if tool == "getprop":
        print({{"ro.soc.model": os.environ.get("SOC", "SM8350"), "ro.product.model": "Stand-in"}}.get(words[1], ""))
    elif tool == "rm":
        shutil.rmtree(there(words[-1]), ignore_errors=True)
    elif tool == "cat" and words[1].endswith("status"):
        print(os.environ.get("BATTERY", "Discharging"))
    elif tool == "sh" and "throughput" in line:
        print("gauge -400000 4000000\\ngauge -440000 4000000\\nTotal throughput: 250.0 infs/sec")
    elif tool == "sh":
        print("gauge -100000 4000000\\ngauge -100000 4000000")
    elif tool == "snpe-net-run":
        assert "ADSP_LIBRARY_PATH=" in line and ";" in line
        if behave == "dies":
            sys.stderr.write("error_code=1002; error_message=Failed to create context\\n"); sys.exit(1)
        if behave == "hangs":
            time.sleep(100000)
        option = lambda name: words[words.index(name) + 1]
        assert "--use_dsp" in words
        rows = there(option("--input_list")).read_text().split()
        for index, row in enumerate(rows):
            raw = there(row.partition(":=")[2]).read_bytes()
            values = struct.unpack("<%df" % (len(raw) // 4), raw)
            folder = there(option("--output_dir")) / ("Result_%d" % index)
            folder.mkdir(parents=True)
            count = 9 if behave == "short" else 10
            if behave != "nothing":
                (folder / "scores.raw").write_bytes(struct.pack("<%df" % count, *values[:count]))
"""


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    data = {"image": images(8, 3, 16, 16)}
    return next(SnpeExporter().candidates(context(small_cnn(), data, tmp_path_factory.mktemp("export"))))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A stand-in adb on PATH, an SDK with the phone's runtime, and a job."""
    tools = tmp_path / "tools"
    tools.mkdir()
    adb = tools / "adb"
    adb.write_text(ADB.format(python=sys.executable))
    adb.chmod(adb.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("PHONE", str(tmp_path / "phone"))
    sdk = tmp_path / "sdk"
    for name in (
        "bin/aarch64-android/snpe-net-run", "bin/aarch64-android/snpe-throughput-net-run",
        "lib/aarch64-android/libSNPE.so", "lib/hexagon-v68/unsigned/libSnpeHtpV68Skel.so",
    ):  # fmt: skip
        path = sdk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stand-in")
    for variable in ("QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(sdk))
    work = tmp_path / "job"
    work.mkdir()
    return RunJob(load_profile("snapdragon888"), ArrayDataset({"image": EVALUATION}), work, device="adb:SERIAL1")


def test_push_run_pull_and_measure(artefact, bench, tmp_path):
    result = SnpeRunner().run(artefact, bench)
    assert result.evidence is Evidence.DEVICE
    scores = result.outputs["scores"]
    assert scores.shape == (4, 1, 10)
    np.testing.assert_array_equal(scores.reshape(4, 10), EVALUATION.reshape(4, -1)[:, :10])
    figures = {figure.name: figure for figure in result.figures}
    assert figures["latency_ms"].value == pytest.approx(4.0)
    assert figures["latency_ms"].evidence is Evidence.DEVICE
    assert figures["power_mw"].value == pytest.approx(1680 - 400)
    assert result.details["phone"]["ro.soc.model"] == "SM8350"
    pushed = {path.name for path in (tmp_path / "phone").rglob("*")}
    assert {"model.dlc", "snpe-net-run", "libSNPE.so", "libSnpeHtpV68Skel.so", "input_list.txt"} <= pushed


def test_power_is_not_known_while_the_phone_charges(artefact, bench, monkeypatch):
    monkeypatch.setenv("BATTERY", "Charging")
    figures = {figure.name: figure for figure in SnpeRunner().run(artefact, bench).figures}
    assert figures["power_mw"].value is None
    assert "charging" in figures["power_mw"].how


@pytest.mark.parametrize(
    ("behave", "told"),
    [("dies", "error_code=1002"), ("nothing", "left no output 'scores'"), ("short", "36 bytes, expected 40")],
)
def test_a_failing_phone_is_told(artefact, bench, monkeypatch, behave, told):
    monkeypatch.setenv("BEHAVE", behave)
    with pytest.raises(ToolFailedError) as caught:
        SnpeRunner().run(artefact, bench)
    assert told in str(caught.value)
    assert caught.value.exit_code is ExitCode.TOOL_FAILED


def test_a_hanging_phone_is_ended(artefact, bench, monkeypatch):
    monkeypatch.setenv("BEHAVE", "hangs")
    monkeypatch.setattr(phone, "_RUN_TIMEOUT_S", 2.0)
    with pytest.raises(ToolFailedError, match="longer than 2 s"):
        SnpeRunner().run(artefact, bench)


def test_another_phone_than_the_target_is_refused(artefact, bench, monkeypatch):
    monkeypatch.setenv("SOC", "SM8550")
    with pytest.raises(InputError, match=r"SM8550 .*expected SM8350"):
        SnpeRunner().run(artefact, bench)


def test_an_unknown_serial_is_told(artefact, bench):
    job = RunJob(bench.profile, bench.samples, bench.work_dir, device="adb:OTHER")
    with pytest.raises(ToolFailedError, match="not found"):
        SnpeRunner().run(artefact, job)


def test_missing_adb_runtime_or_architecture(artefact, bench, monkeypatch, tmp_path):
    (tmp_path / "sdk/lib/hexagon-v68/unsigned/libSnpeHtpV68Skel.so").unlink()
    with pytest.raises(MissingToolError, match="Hexagon V68"):
        SnpeRunner().run(artefact, bench)
    monkeypatch.delenv("QAIRT_SDK_ROOT")
    with pytest.raises(MissingToolError, match="snpe-net-run"):
        SnpeRunner().run(artefact, bench)


def test_missing_adb(artefact, bench, monkeypatch, tmp_path):
    (tmp_path / "tools" / "adb").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    with pytest.raises(MissingToolError, match="adb"):
        SnpeRunner().run(artefact, bench)


def test_other_ways_to_a_device_are_refused(artefact, bench):
    job = RunJob(bench.profile, bench.samples, bench.work_dir, device="ssh:me@phone")
    with pytest.raises(InputError, match="adb"):
        SnpeRunner().run(artefact, job)


def test_names_cannot_lead_out_of_the_pulled_folder(tmp_path):
    from edgedeploy.tensors import PortSpec

    (tmp_path / "secret.raw").write_bytes(b"\0" * 4)
    folder = tmp_path / "Result_0"
    folder.mkdir()
    with pytest.raises(ToolFailedError, match="left no output"):
        phone._read(Path(folder), PortSpec("y", "../secret", (1,), "float32"))
