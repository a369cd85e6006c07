"""Every mistake that the command alone decides is refused before anything is loaded or written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from edgedeploy import backends as table
from edgedeploy.backends import BUILT_IN, backend
from edgedeploy.cli import COMMANDS
from edgedeploy.device_profiles.loader import builtin_names, load_profile
from edgedeploy.prepare import plan
from edgedeploy.request import DeployRequest


@pytest.fixture
def junk(tmp_path) -> Path:
    """A model file that cannot be loaded: a mistake found before loading is told instead."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"no model at all")
    return path


LONG = "x" * 300
MISTAKES = [
    (["--method", "guess"], "entropy"),
    (["--candidate", "no-such"], "static-qdq"),
    (["--candidate", "a8w8"], "host"),
    (["-O", "no_such=1"], "no_such"),
    (["-O", "equalize=maybe"], "true or false"),
    (["-O", "rtx4090:precision=fp16"], "rtx4090"),
    (["-O", "host:vtcm_mb=4"], "vtcm_mb"),
    (["-O", "equalize"], "KEY=VALUE"),
    (["--device", "carrier-pigeon:7"], "ssh:"),
    (["--device", "adb:0123"], "ssh:"),
    (["--device", "serial:/dev/ttyACM0"], "ssh:"),
    (["--device", "ssh:-oProxyCommand=id"], "ssh:"),
    (["--device", "local:x"], "ssh:"),
    (["--require", "latency=hope"], "evidence"),
    (["--require", "latency=none"], "evidence"),
    (["--require", "speed=device"], "speed"),
    (["--allow-unverified", "powr"], "power_mw"),
    (["--budget", "latency_ms=nan"], "latency_ms"),
    (["--budget", "latency_ms=inf"], "latency_ms"),
    (["--budget", "latency_ms=-1"], "latency_ms"),
    (["--budget", "latency_ms.p50=1e999"], "latency_ms"),
    (["--budget", "latency_us=3"], "latency_ms"),
    (["--input", "x:" + "9" * 5000 + ":float32"], "--input"),
    (["--input", "x:1x²:float32"], "--input"),
    (["--allow-global", "...."], "PKG.CLASS"),
    (["--model", "a b"], "PKG.MOD:FUNCTION"),
    (["--output", "{here}/model.pt"], "--output"),
    (["--output", "{here}/model.pt/below"], "--output"),
    (["--output", LONG], "--output"),
    (["--output", "a\0b"], "NUL"),
    (["--cache", "{here}/model.pt"], "--cache"),
    (["--cache", LONG], "--cache"),
    (["--lock", "{here}/none.lock"], "lock"),
    (["--lock", "{here}/model.pt"], "lock"),
    (["--lock", "a\0b"], "NUL"),
    (["--config", "{here}/none.toml"], "config"),
    (["--calibration", "{here}/none.npz"], "none.npz"),
    (["--eval", LONG], "no data"),
    (["-t", "x86-avx3"], "x86-avx2"),
    (["-t", "host"], "twice"),
    (["-t", "{here}/model.pt.toml"], "profile"),
    (["-t", LONG], "no target"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES, ids=lambda item: " ".join(item)[:40] if item else "")
def test_it_is_refused_before_the_model_is_loaded(deploy, junk, tmp_path, arguments, word):
    given = [argument.format(here=tmp_path) for argument in arguments]
    before = sorted(tmp_path.rglob("*"))
    code, out, error = deploy("-t", "host", "-o", tmp_path / "out", *given, junk)
    assert code == 2 and not out
    assert word in error and "Traceback" not in error and "no model at all" not in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["rtx4090", "jetson-agx-orin", "a100"])
@pytest.mark.parametrize("word", ["fp16", "FP16", "half", "", "int4"])
def test_tensorrt_takes_no_word_for_a_precision_that_it_does_not_know(deploy, junk, target, word):
    code, _, error = deploy("-t", target, "-O", f"precision={word}", junk)
    assert code == 2 and "float16" in error and "precision" in error


def planned(model, *targets, **rest):
    return plan(DeployRequest(model=model, targets=targets, **rest)).options


def test_an_option_goes_to_the_targets_that_know_it(junk):
    both = ("snapdragon888", "host")
    assert planned(junk, *both, options={"vtcm_mb": "4"}) == {"snapdragon888": {"vtcm_mb": "4"}, "host": {}}
    assert planned(junk, *both, options={"equalize": "true"})["host"] == {"equalize": "true"}
    named = planned(junk, "snapdragon888", "qcs6490", options={"vtcm_mb": "4", "SM8350:vtcm_mb": "8"})
    assert named == {"snapdragon888": {"vtcm_mb": "8"}, "qcs6490": {"vtcm_mb": "4"}}


def test_deploy_toml_has_options_for_all_and_for_one(junk):
    (junk.parent / "deploy.toml").write_text(
        '[model]\nauthor = "Ada"\nlicense = "MIT"\n[options]\nvtcm_mb = 2\nequalize = true\n'
        "[options.snapdragon888]\nvtcm_mb = 4\n[options.iphone12]\nbatch = '1..8'\n"
    )
    found = planned(junk, "snapdragon888", "qcs6490", "host", "iphone12", options={"iphone12:license": "BSD"})
    assert found["snapdragon888"] == {"vtcm_mb": "4", "equalize": "True"}
    assert found["qcs6490"]["vtcm_mb"] == "2"
    assert found["host"] == {"equalize": "True"}
    assert found["iphone12"] == {"author": "Ada", "license": "BSD", "batch": "1..8"}
    assert planned(junk, "host") == {"host": {"equalize": "True"}}  # what is for other targets is no mistake


@pytest.mark.parametrize(
    "text", ["[options]\nno_such = 1\n", "[options.host]\nvtcm_mb = 3\n", "[options]\nequalize = 3\n"]
)
def test_a_wrong_option_in_deploy_toml_is_refused(deploy, junk, text):
    (junk.parent / "deploy.toml").write_text(text)
    code, _, error = deploy("-t", "host", junk)
    assert code == 2 and "option" in error.lower() and "no model at all" not in error


def test_a_found_config_hands_no_file_from_outside_to_a_backend(deploy, junk):
    (junk.parent / "deploy.toml").write_text('[options]\nlabels = "/etc/passwd"\n')
    code, _, error = deploy("-t", "iphone12", junk)
    assert code == 2 and "options.labels" in error and "--config" in error


def test_what_backends_declare_is_what_they_have():
    """Names stand in the table so that nothing heavy is imported; here they are held against the backends."""
    from edgedeploy.exporters.coreml.convert import ROUTES
    from edgedeploy.exporters.coreml.exporter import KEEP
    from edgedeploy.exporters.onnxruntime.offers import ORDER
    from edgedeploy.exporters.snpe.exporter import RECIPES
    from edgedeploy.exporters.tensorrt.placement import CURES
    from edgedeploy.exporters.tflite_micro.schemes import CANDIDATES

    assert set(backend("onnxruntime").candidates) == set(ORDER)
    assert set(backend("snpe").candidates) == set(RECIPES)
    assert set(backend("tflite_micro").candidates) == set(CANDIDATES)
    assert all(f"int8-{cure}" in backend("tensorrt").candidates for cure in CURES)
    assert {f"{route}-{form}" for route in ROUTES for form in ("float16", f"float16-{KEEP}", "float32")} == set(
        backend("coreml").candidates
    )
    for entry in BUILT_IN:
        keys = [option.key for option in entry.load_options()]
        assert keys and len(keys) == len(set(keys)) and entry.devices and all(
            option.meaning for option in entry.load_options()
        )  # fmt: skip


@pytest.mark.parametrize("name", builtin_names())
def test_every_shipped_profile_has_options_that_its_backend_takes(name):
    profile = load_profile(name)
    backend(profile.device.backend).check_options(profile, {})


def test_a_backend_that_declares_nothing_is_left_to_find_mistakes_itself(junk, tmp_path, monkeypatch):
    theirs = table.Backend("theirs", "their:Exporter", "their:Runner")
    monkeypatch.setattr(table, "backends", lambda: {"theirs": theirs})
    (tmp_path / "their.toml").write_text('[device]\nname = "their"\nclass = "edge"\nbackend = "theirs"\n')
    request = DeployRequest(
        model=junk, targets=(str(tmp_path / "their.toml"),), options={"any": "1"}, candidate="x", device="local"
    )
    assert plan(request).options == {"their": {"any": "1"}}


def options_of(name: str) -> set[str]:
    import importlib

    command = importlib.import_module(f"edgedeploy.commands.{name}").command
    return {text for item in command.params if isinstance(item, click.Option) for text in item.opts}


LOADING = {"deploy", "estimate", "calibrate", "layers"}


def test_an_option_that_a_remedy_names_exists_in_the_commands_that_say_it(repository):
    """Every ``--option`` in a message is one of some command; those on loading are in every command that loads."""
    known = {name: options_of(module) for name, (module, _) in COMMANDS.items()} | {"deploy": options_of("deploy")}
    every = set().union(*known.values()) | {"--help"}
    wrong = []
    for room in ("edgedeploy", "calibration", "exporters", "targets", "device_profiles"):
        for path in sorted((repository / room).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Error")):
                    continue
                named = {*re.findall(r"(?<![\w-])--[a-z][a-z-]+", ast.unparse(call))}
                wrong += [
                    f"{path}:{call.lineno} {option}" for option in named - every if "pip" not in ast.unparse(call)
                ]
    assert not wrong
    for command in LOADING:
        loading = {"--model", "--input", "--config", "--trust-code", "--allow-global", "--unsafe-load"}
        assert loading <= known[command], command


def test_deploy_targets_explains_options_and_candidates(deploy):
    code, out, _ = deploy("targets", "snapdragon888")
    assert code == 0
    for word in ("vtcm_mb", "equalize", "a16w8", "adb"):
        assert word in out
