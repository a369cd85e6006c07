import sys

import pytest

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ExitCode, InputError, MissingToolError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tensorrt.bindings import tensorrt_rtx
from edgedeploy.exporters.tensorrt.settings import read_settings

NAMES = [
    "jetson-nano",
    "jetson-xavier-nx",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "t4",
    "a100",
    "h200",
    "rtx3090",
    "rtx4090",
    "rtx5090",
    "edge-tester",
    "realtime-gpu",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_complete_and_says_where_its_figures_come_from(name):
    profile = load_profile(name)
    settings = read_settings(profile, {})
    assert profile.device.backend == "tensorrt" and profile.device.vendor == "NVIDIA"
    assert "size_mb" in profile.budget and "budget" in profile.sources
    assert {"hardware.compute_capability", "hardware.peak_fp16_gflops"} <= set(profile.sources)
    assert settings.rtx == (profile.hardware.engine == "tensorrt-rtx")


@pytest.mark.parametrize(("name", "sm"), [("rtx3090", "SM86"), ("rtx4090", "SM89"), ("rtx5090", "SM120")])
def test_rtx_targets_are_built_for_their_own_gpu(name, sm):
    assert read_settings(load_profile(name), {}).sm == sm


def test_the_real_time_goal_is_a_percentile_that_only_a_device_can_prove():
    budget = load_profile("realtime-gpu").budget["latency_ms"]
    assert (budget.max, budget.statistic, budget.evidence, budget.required) == (10, "p99", Evidence.DEVICE, True)


def test_the_edge_tester_is_a_box_of_ten_megabytes_and_fifty_milliseconds():
    budget = load_profile("edge-tester").budget
    assert (budget["size_mb"].max, budget["latency_ms"].max) == (10, 50)


def test_a_profile_without_a_version_is_refused():
    profile = load_profile("t4")
    broken = profile.model_copy(update={"hardware": profile.hardware.model_copy(update={"tensorrt_version": "ten"})})
    with pytest.raises(InputError, match="TensorRT version"):
        read_settings(broken, {})


def test_an_unknown_scheme_is_refused():
    profile = load_profile("t4")
    broken = profile.model_copy(update={"quantization": profile.quantization.model_copy(update={"scheme": "int3"})})
    with pytest.raises(InputError, match="'int3'"):
        read_settings(broken, {})


def test_a_missing_vendor_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(MissingToolError) as caught:
        tensorrt_rtx()
    assert caught.value.exit_code is ExitCode.MISSING_TOOL and "edgedeploy[tensorrt-rtx]" in str(caught.value)
