"""Profiles: every shipped one is valid, a user's own works, every mistake is a sentence."""

from __future__ import annotations

import pytest

from edgedeploy.backends import backends
from edgedeploy.device_profiles.loader import aliases, builtin_names, load_profile, override
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence

MINE = """
extends = "x86-avx2"
[device]
name = "mine"
class = "edge"
backend = "onnxruntime"
[budget]
latency_ms = { max = 12, statistic = "p90" }
"""


@pytest.fixture
def own(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", builtin_names())
def test_every_shipped_profile_is_valid_and_says_where_its_figures_come_from(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.device.backend in backends()
    assert profile.sources, f"{name} names no source"
    assert profile.budget, f"{name} sets no budget"


def test_aliases_are_unique_and_load_their_profile():
    assert not set(aliases()) & set(builtin_names())
    for alias, name in aliases().items():
        assert load_profile(alias).name == name


def test_an_own_file_extends_a_shipped_one(own):
    profile = load_profile(own(MINE))
    base = load_profile("x86-avx2")
    assert profile.name == "mine"
    assert profile.hardware == base.hardware
    assert profile.budget["latency_ms"].max == 12
    assert profile.budget["latency_ms"].statistic == "p90"


def test_an_inherited_budget_is_replaced_whole(own):
    profile = load_profile(own(MINE + "throughput_per_s = { min = 5 }\n"))
    assert profile.budget["throughput_per_s"].max is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINE.replace("statistic", "statistik"), ["statistik", "did you mean 'statistic'"]),
        (MINE.replace("max = 12", 'max = "fast"'), ["latency_ms", "fast"]),
        (MINE.replace("max = 12", "max = 12, min = 3"), ["exactly one of max and min"]),
        (MINE.replace("latency_ms", "latency_us"), ["latency_us", "latency_ms"]),
        (MINE.replace('class = "edge"', 'class = "toaster"'), ["toaster", "'mcu'"]),
        (MINE + "[hardware]\nclok_mhz = 3\n", ["clok_mhz", "clock_mhz"]),
        (MINE.replace("x86-avx2", "x86-avx3"), ["x86-avx3", "x86-avx2"]),
        ("extends = 3 [", ["TOML"]),
        ("[device]\nname = 'x'\nclass = 'edge'\n", ["device.backend", "missing"]),
    ],
)
def test_a_mistake_in_a_profile_is_named(own, text, words):
    with pytest.raises(InputError) as caught:
        load_profile(own(text))
    for word in words:
        assert word in str(caught.value)


def test_profiles_that_extend_each_other_are_refused(own):
    first = own('extends = "b.toml"\n', "a.toml")
    own('extends = "a.toml"\n', "b.toml")
    with pytest.raises(InputError, match="circle"):
        load_profile(first)


def test_an_unknown_target_suggests_the_nearest():
    with pytest.raises(InputError) as caught:
        load_profile("x86-avx512")
    assert "x86-avx512vnni" in caught.value.remedy


def test_overrides_from_the_command_line():
    base = load_profile("x86-avx2")
    changed = override(base, ["latency_ms.p99=7", "size_mb=none"], ["latency=device"], [])
    assert changed.budget["latency_ms"].max == 7
    assert changed.budget["latency_ms"].statistic == "p99"
    assert changed.budget["latency_ms"].evidence is Evidence.DEVICE
    assert "size_mb" not in changed.budget
    allowed = override(changed, allowed=["latency_ms"])
    assert allowed.budget["latency_ms"].allow_unverified and allowed.budget["latency_ms"].required


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budgets": ["latency_ms"]}, "KEY=VALUE"),
        ({"budgets": ["latency_ms=quick"]}, "not a number"),
        ({"budgets": ["latencyms=3"]}, "latency_ms"),
        ({"budgets": ["latency_ms.p42=3"]}, "p42"),
        ({"proofs": ["latency_ms=phone"]}, "kind of evidence"),
        ({"proofs": ["flash_kb=device"]}, "no budget"),
        ({"allowed": ["pwer_mw"]}, "power_mw"),
    ],
)
def test_a_mistake_in_an_override_is_named(options, words):
    with pytest.raises(InputError, match=words):
        override(load_profile("x86-avx2"), **options)
