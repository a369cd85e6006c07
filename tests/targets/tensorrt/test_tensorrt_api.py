"""Every name that our device code uses exists in the real bindings of TensorRT 10.16 and 11.4.

The listings were made from NVIDIA's wheels by benchmarks/tensorrt_api.py.
"""

import ast
import inspect
import json
from pathlib import Path

import pytest

from edgedeploy.exporters.tensorrt import calibrator, device_build, worker

FOLDER = Path(__file__).parent
#: What each variable of the device code holds.
HOLDS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "settings": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
#: Names that only TensorRT 10 and older have; the code asks for them there alone.
OLD = {"IInt8EntropyCalibrator2", "IBuilderConfig.int8_calibrator", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}


def listing(version):
    return json.loads((FOLDER / f"api_{version}.json").read_text())


def used(module):
    """Dotted names, by class: `trt.X.Y` as X.Y, and `variable.member` as Class.member."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node).replace("self._trt.", "trt.")
        owner, _, member = text.rpartition(".")
        if owner == "trt":
            found.add(member)
        elif owner.startswith("trt."):
            found.add(f"{owner[4:]}.{member}")
        elif owner in HOLDS:
            found.add(f"{HOLDS[owner]}.{member}")
    return {name for name in found if "__" not in name}


def exists(name, api):
    owner, _, member = name.partition(".")
    if not member:
        return owner in api["classes"] or owner in api["functions"]
    while member.count("."):  # trt.ILogger.Severity.ERROR: the last class counts
        owner, _, member = member.partition(".")
    if owner in ("ILogger", "Severity"):
        return member in ("ERROR", "WARNING", "INTERNAL_ERROR", "Severity", "log")
    return member in api["classes"].get(owner, ())


@pytest.mark.parametrize("version", ["10.16", "11.4"])
@pytest.mark.parametrize("module", [device_build, calibrator], ids=["build.py", "calibrator"])
def test_every_name_is_in_the_real_api(version, module):
    api = listing(version)
    names = used(module)
    assert len(names) > (20 if module is device_build else 0)
    missing = {name for name in names if not exists(name, api)}
    assert missing <= (OLD if version == "11.4" else set())


def test_the_calibrators_methods_are_those_of_the_interface():
    interface = listing("10.16")["classes"]["IInt8EntropyCalibrator2"]
    ours = {"get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache"}
    assert ours <= set(interface)
    assert "IInt8EntropyCalibrator2" not in listing("11.4")["classes"]


def test_the_precision_flags_are_those_of_version_10():
    assert {"FP16", "INT8"} <= set(listing("10.16")["classes"]["BuilderFlag"])
    assert not {"FP16", "INT8"} & set(listing("11.4")["classes"]["BuilderFlag"])


def test_the_gate_uses_names_that_its_own_package_has():
    from edgedeploy.exporters.tensorrt.bindings import tensorrt_rtx

    trt = tensorrt_rtx()
    for name in ("Builder", "OnnxParser", "ComputeCapability", "ProfilingVerbosity", "NetworkDefinitionCreationFlag"):
        assert name in inspect.getsource(worker) and hasattr(trt, name)
