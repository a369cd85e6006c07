"""The instruction set decides the integer arithmetic: what each profile gets, and what is refused."""

from __future__ import annotations

import pytest

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.device_profiles.machine import IntegerPath, profile_machine, this_machine
from edgedeploy.errors import InputError
from edgedeploy.exporters.onnxruntime.schemes import BY_INTEGER_PATH, scheme_for


@pytest.mark.parametrize(
    ("profile", "path", "activation", "weight", "weight_range"),
    [
        ("x86-avx512vnni", "vnni", "uint8", "int8", (-127, 127)),
        ("x86-avx2", "pairwise", "uint8", "int8", (-63, 63)),
        ("raspberrypi4", "widening", "int8", "int8", (-127, 127)),
        ("raspberrypi5", "dot_product", "int8", "int8", (-127, 127)),
    ],
)
def test_the_scheme_of_each_profile(profile, path, activation, weight, weight_range):
    loaded = load_profile(profile)
    scheme = scheme_for(loaded)
    assert profile_machine(loaded).integer_path == path
    assert (scheme.activation.dtype, scheme.weight.dtype) == (activation, weight)
    assert (scheme.weight.qmin, scheme.weight.qmax) == weight_range
    assert scheme.weight.per_channel and scheme.weight.symmetric


def test_host_follows_the_cpu_at_hand():
    assert scheme_for(load_profile("host")) == BY_INTEGER_PATH[this_machine().integer_path]


@pytest.mark.parametrize("profile", ["x86-avx512vnni", "x86-avx2", "raspberrypi4", "raspberrypi5", "host"])
def test_every_profile_says_where_its_figures_come_from(profile):
    loaded = load_profile(profile)
    assert loaded.device.backend == "onnxruntime"
    assert {"size_mb", "latency_ms"} <= loaded.budget.keys()
    sourced = {key.split(".")[-1] for key in loaded.sources}
    priors = {"peak_int8_gops", "peak_fp32_gflops"} & loaded.hardware.model_fields_set
    assert priors <= sourced and {"budget", "quality"} <= sourced


def _profile(tmp_path, text: str):
    path = tmp_path / "own.toml"
    path.write_text(f'extends = "x86-avx2"\n[device]\nname = "own"\n{text}')
    return load_profile(str(path))


def test_a_profile_whose_scheme_would_saturate_is_refused(tmp_path):
    profile = _profile(tmp_path, '[quantization]\nscheme = "onnxruntime-x86"\n')
    with pytest.raises(InputError, match="saturates on a CPU without VNNI") as caught:
        scheme_for(profile)
    assert "onnxruntime-x86-reduced" in caught.value.remedy


def test_a_profile_that_gains_vnni_may_use_the_full_range(tmp_path):
    text = '[hardware]\nisa = ["avx2", "fma", "avx_vnni"]\n[quantization]\nscheme = "onnxruntime-x86"\n'
    profile = _profile(tmp_path, text)
    assert profile_machine(profile).integer_path is IntegerPath.VNNI
    assert scheme_for(profile).weight.qmax == 127


def test_an_unknown_scheme_names_the_known_ones(tmp_path):
    profile = _profile(tmp_path, '[quantization]\nscheme = "tflite"\n')
    with pytest.raises(InputError, match="no quantization scheme 'tflite'") as caught:
        scheme_for(profile)
    assert "onnxruntime-arm" in caught.value.remedy
