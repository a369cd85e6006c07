"""Files that would run code when loaded: each is refused, and nothing ran."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import zipfile

import doctored
import pytest
import torch

from edgedeploy.errors import ExitCode, InputError, UntrustedCodeError
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input
from edgedeploy.model.pickles import OPAQUE, globals_of

INPUT = (parse_input("x:1x1x8x8:float32"),)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it-ran"


def refused(path, marker, options=None):
    with pytest.raises(InputError) as caught:
        load_model(path, options)
    assert not marker.exists()
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    return caught.value


def run_unguarded(path):
    """What torch itself makes of the file; it may well fail after the harm is done."""
    logging.disable()
    with path.open("rb") as file, contextlib.suppress(Exception):
        torch.export.load(file)
    logging.disable(logging.NOTSET)


def test_the_doctored_pickle_does_run_when_nothing_guards_it(tmp_path, marker):
    path = tmp_path / "bad.pt"
    path.write_bytes(doctored.hostile_zip(marker))
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_hostile_checkpoint(tmp_path, marker):
    path = tmp_path / "model.pt"
    path.write_bytes(doctored.hostile_zip(marker))
    error = refused(path, marker)
    assert "posix.system" in error.found
    assert "--allow-global posix.system" in error.remedy
    assert "--unsafe-load" in error.remedy


def test_hostile_checkpoint_of_the_old_format(tmp_path, marker):
    path = tmp_path / "model.pt"
    torch.save(doctored.Touch(marker), path, _use_new_zipfile_serialization=False)
    assert "posix.system" in refused(path, marker).found


def test_hostile_plain_pickle(tmp_path, marker):
    path = tmp_path / "model.pt"
    path.write_bytes(doctored.hostile_pickle(marker))
    assert "posix.system" in refused(path, marker).found


def test_pickled_module_lists_its_classes_and_the_two_ways_on(tmp_path, marker):
    path = tmp_path / "model.pt"
    torch.save(doctored.small_net(), path)
    error = refused(path, marker, LoadOptions(inputs=INPUT))
    names = (
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.batchnorm.BatchNorm2d",
    )
    assert all(name in error.found for name in names)
    allowed = frozenset(word for word in error.remedy.replace(".", " ").split() if word == "--allow-global")
    assert allowed
    flags = error.remedy.split("--allow-global ")[1:]
    options = LoadOptions(inputs=INPUT, allow_globals=frozenset(flag.split()[0].rstrip(".") for flag in flags))
    assert load_model(path, options).kind == "pickled_module"
    assert load_model(path, LoadOptions(inputs=INPUT, unsafe_load=True)).kind == "pickled_module"


def test_allowing_one_class_does_not_allow_another(tmp_path, marker):
    path = tmp_path / "model.pt"
    path.write_bytes(doctored.hostile_zip(marker))
    refused(path, marker, LoadOptions(allow_globals=frozenset({"torch.nn.modules.conv.Conv2d"})))


@pytest.mark.parametrize("suffix", ["pt2", "pt"])
def test_hostile_sample_inputs_of_a_pt2(tmp_path, marker, suffix):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    bad = doctored.rewrite(
        good,
        tmp_path / f"model.{suffix}",
        lambda name, content: doctored.hostile_zip(marker) if name == "data/sample_inputs/model.pt" else content,
    )
    run_unguarded(bad)
    assert marker.exists(), "torch.export.load runs it: the guard is needed"
    marker.unlink()
    assert "posix.system" in refused(bad, marker).found


@pytest.mark.parametrize("member", ["data/weights/model.pt", "data/constants/model.pt", "data/extra/notes.pt"])
def test_hostile_pickle_added_to_a_pt2(tmp_path, marker, member):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    added = {member.replace("/", "__"): doctored.hostile_zip(marker)}
    refused(doctored.rewrite(good, tmp_path / "model.pt2", lambda _, content: content, **added), marker)


@pytest.mark.parametrize(
    ("kind", "file"), [("weights", "weight_0"), ("constants", "tensor_0"), ("constants", "opaque_obj_0")]
)
def test_hostile_pickle_behind_a_weight_or_constant(tmp_path, marker, kind, file):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    payload = doctored.hostile_pickle(marker) if file.startswith("opaque") else doctored.hostile_zip(marker)

    def change(table):
        entry = {"path_name": file, "is_param": True, "use_pickle": True, "tensor_meta": None}
        table["config"]["0.weight" if kind == "weights" else "c"] = entry

    edit = doctored.edit_json(f"data/{kind}/model_{kind}_config.json", change)
    swapped = doctored.rewrite(
        good,
        tmp_path / "model.pt2",
        lambda name, content: None if name == f"data/{kind}/{file}" else edit(name, content),
        **{f"data__{kind}__{file}": payload},
    )
    found = refused(swapped, marker).found
    assert file in found if file.startswith("opaque") else "posix.system" in found


def test_compiled_code_in_a_pt2(tmp_path, marker):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    bad = doctored.rewrite(
        good, tmp_path / "model.pt2", lambda _, content: content, data__aotinductor__model__model__so=b"\x7fELF"
    )
    assert "aotinductor" in refused(bad, marker).found


def test_graph_node_that_calls_the_shell(tmp_path, marker):
    good = doctored.save_pt2(tmp_path / "good.pt2")

    def change(document):
        node = document["graph_module"]["graph"]["nodes"][-1]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "command", "arg": {"as_string": f"touch {marker}"}, "kind": 1}]

    bad = doctored.rewrite(good, tmp_path / "model.pt2", doctored.edit_json("models/model.json", change))
    assert "torch.os.system" in refused(bad, marker).found


def test_shape_that_is_python_code(tmp_path, marker):
    good = doctored.save_pt2(tmp_path / "good.pt2", dynamic=True)
    code = f"__import__('os').system('touch {marker}')"

    def poison(content):
        if isinstance(content, dict):
            for key, value in content.items():
                if key == "expr_str":
                    content[key] = code
                else:
                    poison(value)
        elif isinstance(content, list):
            for value in content:
                poison(value)

    bad = doctored.rewrite(good, tmp_path / "model.pt2", doctored.edit_json("models/model.json", poison))
    run_unguarded(bad)
    assert marker.exists(), "torch.export.load runs it: the guard is needed"
    marker.unlink()
    assert "Python code" in refused(bad, marker).found


def test_tree_description_that_imports_modules(tmp_path, marker):
    package = tmp_path / "evil_package.py"
    package.write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    good = doctored.save_pt2(tmp_path / "good.pt2")

    def change(document):
        enum = json.dumps({"__enum__": True, "fqn": "evil_package:X", "name": "Y"})
        spec = json.dumps([1, {"type": "builtins.tuple", "context": enum, "children_spec": []}])
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    bad = doctored.rewrite(good, tmp_path / "model.pt2", doctored.edit_json("models/model.json", change))
    assert "imports Python code" in refused(bad, marker).found


def test_second_archive_at_the_top_of_a_pt2(tmp_path, marker):
    """torch falls back to an older layout at the archive's root when the newer one fails."""
    path = doctored.save_pt2(tmp_path / "model.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_state_dict.pt", doctored.hostile_zip(marker))
    refused(path, marker)


def test_torchscript_needs_the_users_word(tmp_path, marker):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.trace(doctored.small_net(), torch.ones(1, 1, 8, 8)), path)
    with pytest.raises(UntrustedCodeError) as caught:
        load_model(path, LoadOptions(inputs=INPUT))
    assert "--trust-code" in caught.value.remedy
    assert caught.value.exit_code is ExitCode.BAD_INPUT


def test_names_a_pickle_hides_count_as_computed():
    # STACK_GLOBAL whose module name is an element taken from a tuple, not a string pushed before it.
    hidden = b"\x80\x04\x8c\x02os(\x8c\x06systemt0\x93."
    assert globals_of(hidden) == {OPAQUE}
    assert globals_of(pickle.dumps(print, protocol=4)) == {"builtins.print"}
    # The same two names out of order through the memo.
    memo = b"\x80\x04\x8c\x06system\x94\x8c\x05posix\x94h\x01h\x00\x93."
    assert globals_of(memo) == {"posix.system"}
    assert globals_of(b"\x80\x02\x82\x01.") == {OPAQUE}


def test_unsafe_load_is_the_only_way_past_a_hidden_name(tmp_path, marker):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x04\x8c\x02os(\x8c\x06systemt0\x93.")
    error = refused(path, marker)
    assert OPAQUE in error.found
    assert "--allow-global" not in error.remedy
