"""What a worker hands over is believed only where it can be true, whatever became of the worker."""

from __future__ import annotations

import pytest

from edgedeploy import pipeline
from edgedeploy.errors import ExitCode

RIGHT = {"target": "host", "exit_code": 0, "verdicts": [], "candidate": "x", "notes": [], "error": None}
LIES = {
    "nothing": [],
    "another target": [{**RIGHT, "target": "z"}],
    "no code of ours": [{**RIGHT, "exit_code": 99}],
    "a code without a bundle": [{**RIGHT, "exit_code": 70}],
    "a list": [[]],
    "no fields": [{}],
    "no bundle": [RIGHT],
    "too many": [RIGHT, RIGHT],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_is_never_a_pass(deploy_model, lie):
    code, out = deploy_model(lambda arguments, channel: [channel.event(value) for value in lie] and None)
    assert code not in (ExitCode.OK, ExitCode.BUG)
    assert not (out / "host").exists()


def test_a_link_in_the_work_folder_is_not_followed(deploy_model, tmp_path):
    precious = tmp_path / "precious"
    (precious / "bundle").mkdir(parents=True)
    (precious / "bundle" / "manifest.json").write_text("{}")

    def lie(arguments, channel):
        (arguments[1] / "host").symlink_to(precious)
        channel.event(RIGHT)

    code, out = deploy_model(lie)
    assert code not in (ExitCode.OK, ExitCode.BUG)
    assert (precious / "bundle" / "manifest.json").read_text() == "{}" and not (out / "host").exists()


@pytest.fixture
def deploy_model(monkeypatch, tmp_path, capfd):
    """Run the command with another function in the worker's place; returns its exit code and the output folder."""
    from edgedeploy.cli import main

    (tmp_path / "model.onnx").write_bytes(b"")

    def run(work):
        monkeypatch.setattr(pipeline, "make_bundles", work)
        with pytest.raises(SystemExit) as ended:
            main(["-t", "host", "-q", "-o", str(tmp_path / "out"), str(tmp_path / "model.onnx")])
        return ended.value.code, tmp_path / "out"

    return run
