"""Streaming state: found or declared, and judged in the loop on every backend."""

from __future__ import annotations

import json

import numpy as np
import pytest
import streams

from edgedeploy.errors import InputError
from edgedeploy.states import fed_back, find_states
from edgedeploy.tensors import TensorSpec

TARGETS = ("x86-avx2", "jetson-orin-nano", "iphone15pro", "snapdragon888", "stm32h743")


def specs(*names: str, shape: tuple[int, ...] = (1, 8)) -> list[TensorSpec]:
    return [TensorSpec(name, shape, "float32") for name in names]


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("hn", "h"),
        ("h_out", "h_in"),
        ("hn", "h0"),
        ("new_state", "state"),
        ("stateN", "state"),
        ("conv_cache_out", "conv_cache_in"),
        ("output_1", "hidden"),
        ("layers.1.present", "layers.1.past"),
    ],
)
def test_names_and_shapes_that_leave_no_doubt_are_taken_for_state(output, name):
    frame = TensorSpec("frame", (1, 80), "float32")
    found = find_states([frame, *specs(name)], [TensorSpec("scores", (1, 2), "float32"), *specs(output)], None)
    assert found.pairs == {output: name}
    assert f'{output} = "{name}"' in found.notes[0]


def test_unnamed_outputs_are_paired_in_order_where_their_number_is_right():
    inputs = [TensorSpec("x", (1, 1, 20), "float32"), *specs("h", "c", shape=(2, 1, 16))]
    outputs = [TensorSpec("output_0", (1, 1), "float32"), *specs("output_1", "output_2", shape=(2, 1, 16))]
    assert find_states(inputs, outputs, None).pairs == {"output_1": "h", "output_2": "c"}
    # Where the result has the states' shape as well, nobody can say which is which.
    assert not find_states(inputs, specs("output_0", "output_1", "output_2", shape=(2, 1, 16)), None).pairs


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["noisy", "level"], ["denoised"]),
        (["audio_in", "gain"], ["audio_out"]),
        (["state_in"], ["state_out"]),  # with nothing else to take, no stream
        (["image", "mask"], ["output"]),
    ],
)
def test_an_output_of_an_inputs_shape_is_not_yet_a_state(inputs, outputs):
    assert not find_states(specs(*inputs), specs(*outputs), None).pairs


def test_other_shapes_and_types_are_no_states():
    outputs = [TensorSpec("h_out", (1, 9), "float32"), TensorSpec("c_out", (1, 8), "int64")]
    assert not find_states(specs("x", "h_in", "c_in"), outputs, None).pairs


def test_what_deploy_toml_declares_is_checked_and_an_empty_table_means_none():
    inputs, outputs = specs("x", "past"), specs("y", "kept")
    assert find_states(inputs, outputs, {"kept": "past"}).pairs == {"kept": "past"}
    assert not find_states(specs("x", "h"), specs("y", "hn"), {}).pairs
    for wrong in ({"gone": "past"}, {"kept": "gone"}, {"y": "past", "kept": "past"}):
        with pytest.raises(InputError, match=r"deploy\.toml"):
            find_states(inputs, outputs, wrong)
    with pytest.raises(InputError, match="next value"):
        find_states(inputs, [TensorSpec("kept", (1, 4), "float32")], {"kept": "past"})


def test_a_state_keeps_the_samples_shape_and_type():
    sample = {"x": np.ones((1, 2), np.float32), "h": np.zeros((1, 3), np.float32)}
    assert fed_back(sample, None, {"y": "h"})["h"] is sample["h"]
    fed = fed_back(sample, {"y": np.arange(3.0)}, {"y": "h"})["h"]
    assert fed.dtype == np.float32
    assert fed.tolist() == [[0, 1, 2]]


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return streams.write(tmp_path_factory.mktemp("cell"), "cell")


@pytest.mark.parametrize("target", TARGETS)
def test_every_backend_feeds_the_artefact_its_own_state(cell, tmp_path, target):
    """A step of the loop is a single step that starts from the state which the artefact itself gave before."""
    from edgedeploy.backends import backend
    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.device_profiles.loader import load_profile
    from edgedeploy.graph.capture import capture
    from edgedeploy.interfaces import ExportContext, RunJob
    from edgedeploy.model.load import load_model

    profile = load_profile(target)
    made = backend(profile.device.backend)
    model = load_model(cell)
    graph = capture(model)
    data = np.load(cell.with_name("model.calib.npz"))
    samples = ArrayDataset({name: data[name][:6, 0] for name in data.files})
    for name in ("export", "once", "loop"):
        (tmp_path / name).mkdir()
    calibration = Calibration(graph, ArrayDataset({name: data[name][6:, 0] for name in data.files}))
    context = ExportContext(model, graph, profile, calibration, tmp_path / "export")
    artefact = next(made.load_exporter().candidates(context))
    runner = made.load_runner()
    states = {"output_1": "hidden"}
    loop = runner.run(artefact, RunJob(profile, samples, tmp_path / "loop", measure=False, states=states)).outputs
    hidden = np.concatenate([data["hidden"][0], loop["output_1"][:-1, 0]])
    followed = ArrayDataset({"frame": data["frame"][:6, 0], "hidden": hidden})
    once = runner.run(artefact, RunJob(profile, followed, tmp_path / "once", measure=False)).outputs
    for name, value in once.items():
        np.testing.assert_allclose(loop[name], value, atol=1e-6)
    assert np.abs(loop["output_1"] - runner_free(cell, data)).max() < 0.2


def runner_free(cell, data) -> np.ndarray:
    import torch

    net, _ = streams.make("cell")
    hidden, rows = torch.tensor(data["hidden"][0]), []
    with torch.no_grad():
        for frame in data["frame"][:6]:
            _, hidden = net(torch.tensor(frame), hidden)
            rows.append(hidden.numpy())
    return np.stack(rows)


def test_a_stream_is_judged_step_by_step_and_in_the_loop(deploy, cell, tmp_path):
    code, out, err = deploy("-t", "x86-avx2", "--candidate", "float32", "-o", tmp_path, cell)
    assert code == 0, out + err
    assert "judged in the loop" in out + err
    run = json.loads((tmp_path / "x86-avx2" / "measurements.json").read_text())["runs"][0]
    names = {item["output"]: item["samples"] for item in run["comparisons"]}
    assert names == {"output_0": 60, "output_1": 60, "output_0 (in the loop)": 60, "output_1 (in the loop)": 60}
    code, out, err = deploy("verify", tmp_path / "x86-avx2")
    assert code == 0, out + err
    assert "golden_loop" in out


def test_a_backend_that_cannot_loop_leaves_it_unverified_or_hands_it_to_this_host(tmp_path):
    from edgedeploy.evidence import Evidence
    from edgedeploy.interfaces import RunJob, RunResult, cannot_loop
    from edgedeploy.judge import Outcome
    from edgedeploy.looped import run_loop

    class Phone:
        """Loops on this host only, or nowhere."""

        def __init__(self, *, here: bool) -> None:
            self.here = here

        def run(self, artefact, job):
            if job.device or not self.here:
                return cannot_loop("the phone")
            return RunResult({"h": np.zeros((2, 1))}, Evidence.SIMULATOR)

    job = RunJob(None, None, tmp_path / "run", "adb:1")
    nowhere = run_loop(Phone(here=False), None, job, {"h": "h0"})
    (verdict,) = nowhere.verdicts(())
    assert verdict.outcome is Outcome.UNVERIFIED
    assert "the phone" in verdict.why
    job = RunJob(None, None, tmp_path / "again", "adb:1")
    assert run_loop(Phone(here=True), None, job, {"h": "h0"}).evidence is Evidence.SIMULATOR
