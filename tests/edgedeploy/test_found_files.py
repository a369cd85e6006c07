"""What was merely found beside a model names no code, and no file outside its own folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

SECRET = "correct horse battery staple"


@pytest.fixture
def secret(tmp_path) -> Path:
    """A user's file that nobody named, beside the model's folder."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def run_here(deploy, model, tmp_path, monkeypatch):
    """Deploy as one does after a clone, in the model's folder; returns exit code and stderr."""
    monkeypatch.chdir(model.parent)
    Path("evil.py").write_text(f"open({str(tmp_path / 'CANARY')!r}, 'w')\n")

    def run(config: str, *arguments: str):
        Path("deploy.toml").write_text(config)
        command = ("-t", "host", "--candidate", "float32", "-q", "-o", tmp_path / "out", *arguments, model.name)
        code, _, error = deploy(*command)
        assert not (tmp_path / "CANARY").exists(), "code ran"
        return code, error

    return run


CODE = ["evil:A.b", "evil: A", "evil:A ", "evil.:A", ":evil", "evil:", "evil:A:b", "évil:A", "evil:A\\n", "pkg.evil:A"]


@pytest.mark.parametrize("key", ["calibration", "evaluation"])
@pytest.mark.parametrize("value", CODE)
def test_a_found_config_imports_nothing(run_here, key, value):
    code, error = run_here(f'[data]\n{key} = "{value}"\n')
    assert code == 2
    assert "names code" in error and "--config" in error


def test_a_named_config_may_name_code(run_here, tmp_path):
    Path("feed.py").write_text(
        "import numpy as np\ndef samples():\n    data = np.load('model.calib.npz')['image']\n"
        "    return ({'image': row[None]} for row in data)\n"
    )
    assert run_here('[data]\ncalibration = "feed:samples"\n', "--config", "deploy.toml")[0] == 0


OUTSIDE = [
    "{secret}",
    "../secret.txt",
    "../../../../../../../../../etc/passwd",
    "link.txt",
    "folder/../../secret.txt",
    "~/x",
]


@pytest.mark.parametrize("key", ["model.labels", "data.calibration", "data.evaluation"])
@pytest.mark.parametrize(
    "value", [*OUTSIDE, "/dev/zero", "/proc/self/environ", "fifo", "loop", "a\\u0000b", "n" * 5000]
)
def test_a_found_config_reads_nothing_outside(run_here, secret, tmp_path, key, value):
    Path("link.txt").symlink_to(secret)
    Path("loop").symlink_to("loop")
    Path("folder").mkdir()
    os.mkfifo("fifo")
    table, name = key.split(".")
    code, error = run_here(f'[{table}]\n{name} = "{value.format(secret=secret)}"\n')
    assert code == 2
    assert "Traceback" not in error and SECRET not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("links", [{"0.npy": "../secret.npy"}, {"sub": ".."}, {"x.png": "/dev/zero"}])
def test_a_found_folder_of_data_holds_no_links_out(run_here, tmp_path, links):
    Path("data").mkdir()
    (tmp_path / "secret.npy").write_bytes(b"x")
    for name, target in links.items():
        Path("data", name).symlink_to(target if target != ".." else "../..")
    code, error = run_here('[data]\ncalibration = "data"\n')
    assert code == 2
    assert "leads out of" in error and "--calibration" in error


@pytest.mark.parametrize("kind", ["link", "fifo", "broken link", "folder"])
def test_data_found_beside_the_model_lie_there(run_here, tmp_path, kind):
    sidecar = Path("model.calib.npz")
    outside = sidecar.rename(tmp_path / "elsewhere.npz")
    if kind == "link":
        sidecar.symlink_to(outside)
    elif kind == "broken link":
        sidecar.symlink_to("nothing")
    elif kind == "folder":
        sidecar.mkdir()
    else:
        os.mkfifo(sidecar)
    code, error = run_here("")
    assert code == 2
    assert "--calibration" in error


def test_a_labels_file_is_text_of_bounded_size(run_here, tmp_path):
    """Even where the user named the config."""
    for content in (b"\xff\xfe\x00", b"cat\x1b]0;x\x07\ndog\n", b"a\0b", b"x" * (5 << 20)):
        Path("labels.txt").write_bytes(content)
        code, error = run_here('[model]\nlabels = "labels.txt"\n', "--config", "deploy.toml")
        assert code == 2
        assert "\x1b" not in error and "label" in error
    Path("labels.txt").write_text("".join(f"class {digit}\n" for digit in range(10)))
    assert run_here('[model]\nlabels = "labels.txt"\n')[0] == 0
    manifest = json.loads((tmp_path / "out/host/manifest.json").read_text())
    assert manifest["artefact"]["labels"][3] == "class 3"


HOSTILE_TOML = {
    "deep arrays": "x = " + "[" * 100_000 + "]" * 100_000,
    "deep tables": "x = " + "{a = " * 3000 + "1" + "}" * 3000,
    "moderately deep": "x = " + "[" * 200 + "]" * 200,
    "a long dotted key": ".".join(["a"] * 200_000) + " = 1",
    "an integer of 5000 digits": "x = " + "9" * 5000,
    "an integer of 4000 digits": "[budget]\nsize_mb = { max = " + "9" * 4000 + " }",
    "a byte order mark": "\ufeff[model]\n",
    "NUL": "[model]\nname = 'a\0b'\n",
    "NaN": "[quality]\nmin_cosine = nan\n",
    "infinity": "[quality]\nmin_sqnr_db = -inf\n",
    "5 MB": "# " + "x" * (5 << 20),
    "2000 unknown keys": "".join(f"key{number} = 1\n" for number in range(2000)),
}


@pytest.mark.parametrize("text", HOSTILE_TOML.values(), ids=HOSTILE_TOML.keys())
@pytest.mark.parametrize("place", ["deploy.toml", "profile"])
def test_hostile_toml_is_a_sentence(deploy, model, tmp_path, place, text):
    path = model.parent / "deploy.toml" if place == "deploy.toml" else tmp_path / "mine.toml"
    path.write_text(text)
    code, _, error = deploy("-t", "host" if place == "deploy.toml" else path, "-o", tmp_path / "out", model)
    assert code == 2
    assert len(error) < 3000 and "Traceback" not in error


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"key": ' + "9" * 5000 + "}", "\ufeff{}", "{}", "[1]", '"text"', "\0"]
)
@pytest.mark.parametrize("option", [True, False])
def test_a_hostile_lock_is_a_sentence(deploy, model, tmp_path, text, option):
    lock = tmp_path / "my.lock" if option else model.parent / "deploy.lock"
    lock.write_text(text)
    named = ("--lock", lock) if option else ()
    code, _, error = deploy("-t", "host", "-o", tmp_path / "out", *named, model)
    assert code == 2
    assert "lock file" in error and "Traceback" not in error


PROFILE = 'extends = "host"\n[device]\nname = {name}\n'


@pytest.mark.parametrize(
    "name",
    ["../../documents", "/tmp/documents", "", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "n" * 65, "é", "a b", "x\n",
     "mine.failed", "mine.unverified"],
)  # fmt: skip
def test_a_profile_is_called_by_one_safe_component(deploy, model, tmp_path, name):
    victim = tmp_path / "documents"
    victim.mkdir()
    (victim / "thesis.txt").write_text("three years of work")
    for key in ("name", "aliases"):
        value = json.dumps(name if key == "name" else [name])
        (tmp_path / "mine.toml").write_text(f'extends = "host"\n[device]\nname = "mine"\n{key} = {value}\n'.replace(
            'name = "mine"\nname', "name"))  # fmt: skip
        code, _, error = deploy("-t", tmp_path / "mine.toml", "-o", tmp_path / "a/b", model)
        assert code == 2
        assert f"device.{key}" in error
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["host", "snapdragon888", "sm8350", "HOST"])
def test_a_profile_file_never_passes_for_a_built_in_one(deploy, model, tmp_path, name):
    (tmp_path / "mine.toml").write_text(f'extends = "host"\n[device]\nname = "{name}"\n')
    code, _, error = deploy("-t", tmp_path / "mine.toml", "-o", tmp_path / "out", model)
    assert code == 2
    assert "built-in" in error


def test_a_profile_without_a_name_is_called_after_its_file(deploy, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gate-camera.toml").write_text('extends = "host"\n[budget]\nsize_mb = { max = 7 }\n')
    Path("host.toml").write_text('extends = "host"\n[budget]\nsize_mb = { max = 9 }\n')
    assert deploy("-t", "gate-camera.toml", "--candidate", "float32", model)[0] == 0
    assert Path("out/gate-camera/manifest.json").is_file() and not Path("out/host").exists()
    assert deploy("-t", "host.toml", "-o", "other", model)[0] == 2


@pytest.mark.parametrize("target", ["../mine.toml", "{here}/mine.toml", "link.toml"])
def test_a_found_config_names_no_profile_outside(run_here, tmp_path, deploy, model, target):
    (tmp_path / "mine.toml").write_text('extends = "host"\n[device]\nname = "mine"\n')
    Path("link.toml").symlink_to("../mine.toml")
    Path("deploy.toml").write_text(f'targets = ["{target.format(here=tmp_path)}"]\n')
    code, _, error = deploy("-o", tmp_path / "out", model.name)
    assert code == 2
    assert "targets" in error
