"""What a run on some machine proves about a profile's device."""

from __future__ import annotations

import pytest

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.device_profiles.machine import Machine
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence
from edgedeploy.targets.onnxruntime.evidence import standing

AVX2 = frozenset({"avx2", "fma", "sse2"})
SERVER = Machine("x86_64", AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}, "Xeon", 40)
AMX = Machine("x86_64", SERVER.features | {"amx_int8"}, "Xeon 4", 40)
DESKTOP = Machine("x86_64", AVX2, "i5", 4)
PI4 = Machine("aarch64", frozenset({"asimd", "fp"}), "", 4, "Raspberry Pi 4 Model B Rev 1.4")
PI5 = Machine("aarch64", frozenset({"asimd", "asimddp", "asimdhp", "fphp"}), "", 4, "Raspberry Pi 5 Model B Rev 1.0")
GRAVITON = Machine("aarch64", PI5.features | {"i8mm"}, "Neoverse", 64)


@pytest.mark.parametrize(
    ("profile", "machine", "numerics", "times"),
    [
        ("x86-avx512vnni", SERVER, "simulator", "simulator"),
        ("x86-avx512vnni", DESKTOP, "executor", "none"),
        ("x86-avx2", DESKTOP, "simulator", "simulator"),
        ("x86-avx2", SERVER, "executor", "none"),  # it would run the VNNI kernels
        ("raspberrypi5", SERVER, "executor", "none"),
        ("raspberrypi5", PI5, "simulator", "simulator"),
        ("raspberrypi5", GRAVITON, "simulator", "none"),  # the same arithmetic, another class of machine
        ("raspberrypi4", PI5, "executor", "none"),
        ("host", SERVER, "device", "device"),
        ("host", PI4, "device", "device"),
    ],
)
def test_a_run_on_this_host(profile, machine, numerics, times):
    found = standing(load_profile(profile), machine, "")
    assert (found.numerics, found.times) == (Evidence(numerics), Evidence(times))
    assert bool(found.why) == (times == "none")


def test_a_host_with_more_than_the_profile_says_so():
    found = standing(load_profile("x86-avx512vnni"), AMX, "")
    assert found.times is Evidence.SIMULATOR
    assert "amx_int8" in found.why


@pytest.mark.parametrize(("profile", "machine"), [("x86-avx512vnni", SERVER), ("raspberrypi4", PI4), ("host", DESKTOP)])
@pytest.mark.parametrize("device", ["local", "ssh:pi@kitchen"])
def test_a_machine_that_the_user_names_is_the_device(profile, machine, device):
    assert standing(load_profile(profile), machine, device).times is Evidence.DEVICE


@pytest.mark.parametrize(
    ("profile", "machine", "lacks"), [("raspberrypi4", SERVER, "x86_64"), ("x86-avx512vnni", DESKTOP, "avx512_vnni")]
)
def test_a_machine_that_cannot_be_the_device_is_refused(profile, machine, lacks):
    with pytest.raises(InputError, match="is not a") as caught:
        standing(load_profile(profile), machine, "local")
    assert lacks in caught.value.found
