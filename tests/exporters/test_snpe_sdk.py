"""The Qualcomm SDK, by stand-in tools that take the documented flags: a real DLC is what they "convert" to."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from snpe_nets import compiled_cnn, context, images, small_cnn

from edgedeploy.errors import ExitCode, InputError, ToolFailedError
from edgedeploy.exporters.snpe.exporter import SnpeExporter
from edgedeploy.exporters.snpe.sdk.find import find_sdk

DATA = {"image": images(8, 3, 16, 16)}
TOOL = """#!{python}
import json, os, pathlib, shutil, sys
name = pathlib.Path(sys.argv[0]).name
if "--help" in sys.argv:
    print("usage: " + name + " {flags}")
    sys.exit(0)
with open(os.environ["SDK_LOG"], "a") as log:
    log.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
{before}
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
shutil.copyfile(os.environ["SDK_DLC"], arguments.get("--output_path") or arguments["--output_dlc"])
"""
PAIRS = {
    "qairt": ("qairt-converter", "qairt-quantizer"),
    "snpe": ("snpe-onnx-to-dlc", "snpe-dlc-quantize"),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for variable in ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SDK_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.setenv("SDK_DLC", str(compiled_cnn()[0].dlcs[0]))


def make_sdk(root: Path, kind: str, *, flags: str = "--axis_quant --enable_htp --htp_socs", before: str = "") -> Path:
    folder = root / "bin" / "x86_64-linux-clang"
    folder.mkdir(parents=True)
    for name in PAIRS[kind]:
        tool = folder / name
        tool.write_text(TOOL.format(python=sys.executable, flags=flags, before=before))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return root


def calls(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def make(tmp_path: Path, **options):
    work = tmp_path / "work"
    work.mkdir()
    return next(SnpeExporter().candidates(context(small_cnn(), DATA, work, **options)))


def test_the_newer_pair_converts_our_quantized_graph(tmp_path, monkeypatch):
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(make_sdk(tmp_path / "sdk", "qairt")))
    artefact = make(tmp_path)
    assert "QAIRT_SDK_ROOT" in artefact.details["toolchain"]
    (call,) = calls(tmp_path)
    assert call[0] == "qairt-converter"
    assert call[call.index("--input_network") + 1].endswith("model_qdq.onnx")
    assert (artefact.folder / "model.dlc").is_file()
    assert "context_model" not in artefact.details


def test_the_sdk_cannot_leave_ops_to_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(make_sdk(tmp_path / "sdk", "qairt")))
    with pytest.raises(InputError, match="toolchain=onnxruntime-qnn"):
        make(tmp_path, allow_cpu_nodes="1")


def test_the_older_pair_calibrates_from_raw_float_lists_with_the_flags_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("SNPE_ROOT", str(make_sdk(tmp_path / "sdk", "snpe")))
    make(tmp_path)
    convert, quantize = calls(tmp_path)
    assert (convert[0], quantize[0]) == PAIRS["snpe"]
    assert "--axis_quant" in quantize  # this release has not --use_per_channel_quantization
    assert "--use_per_channel_quantization" not in quantize
    assert "--weights_bitwidth" not in quantize
    assert quantize[quantize.index("--htp_socs") + 1] == "sm8350"
    listed = Path(quantize[quantize.index("--input_list") + 1]).read_text().splitlines()
    assert len(listed) == len(DATA["image"])
    name, _, raw = listed[0].partition(":=")
    assert name == "image"
    assert Path(raw).stat().st_size == 4 * 3 * 16 * 16


def test_a_newer_release_of_the_older_pair_gets_its_own_flag(tmp_path, monkeypatch):
    flags = "--use_per_channel_quantization --axis_quant --act_bitwidth"
    monkeypatch.setenv("SNPE_ROOT", str(make_sdk(tmp_path / "sdk", "snpe", flags=flags)))
    make(tmp_path)
    quantize = calls(tmp_path)[1]
    assert "--use_per_channel_quantization" in quantize
    assert "--axis_quant" not in quantize
    assert quantize[quantize.index("--act_bitwidth") + 1] == "8"


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("sys.exit(0)", "reported success and wrote nothing"),
        ("sys.exit('license expired')", "license expired"),
        ("pathlib.Path(sys.argv[-1]).write_bytes(b'PK nonsense'); sys.exit(0)", "cannot be read back"),
    ],
    ids=["writes nothing", "fails", "writes nonsense"],
)
def test_a_tool_that_fails_is_told(tmp_path, monkeypatch, before, told):
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(make_sdk(tmp_path / "sdk", "qairt", before=before)))
    with pytest.raises(ToolFailedError) as caught:
        make(tmp_path)
    assert told in str(caught.value)
    assert caught.value.exit_code is ExitCode.TOOL_FAILED


def test_a_dlc_with_another_boundary_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(make_sdk(tmp_path / "sdk", "qairt")))
    from onnx import helper
    from snpe_nets import graph_of

    other = graph_of([helper.make_node("Relu", ["picture"], ["y"])], {"picture": [1, 3, 4, 4]}, ["y"], {})
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(ToolFailedError, match="other inputs"):
        next(SnpeExporter().candidates(context(other, {"picture": images(2, 3, 4, 4)}, work)))


@pytest.mark.parametrize("variable", ["QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT"])
def test_a_wrong_root_is_refused_by_its_variable(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no such folder") as caught:
        find_sdk()
    assert variable in str(caught.value)
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(InputError, match="qairt-converter"):
        find_sdk()


def test_no_variable_means_no_sdk():
    assert find_sdk() is None


def test_a_tool_that_cannot_start_is_told(tmp_path, monkeypatch):
    root = make_sdk(tmp_path / "sdk", "qairt")
    tool = root / "bin" / "x86_64-linux-clang" / "qairt-converter"
    tool.write_bytes(b"\x7fELF" + os.urandom(64))
    monkeypatch.setenv("QAIRT_SDK_ROOT", str(root))
    with pytest.raises(ToolFailedError, match="cannot be started"):
        make(tmp_path)
