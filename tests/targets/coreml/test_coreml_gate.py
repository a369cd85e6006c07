"""The float32 gate lets the right program through and catches small faults; overflow watch; advice."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_cases import export_context, first, run
from mil_program import package as mil_package
from torch import nn

from edgedeploy.errors import ToolFailedError
from edgedeploy.targets.coreml.advice import advise
from edgedeploy.targets.coreml.gate import compare
from edgedeploy.targets.coreml.overflow import watch
from edgedeploy.targets.coreml.package import open_package
from edgedeploy.targets.coreml.program import read_function
from edgedeploy.targets.coreml.runner import twin_report

RNG = np.random.default_rng(0)


class Block(nn.Module):
    """A transformer block's parts: two operands that differ, gelu, a norm whose epsilon matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(32, 128), nn.Linear(128, 32)
        self.norm = nn.LayerNorm(32, eps=1e-5)
        self.gate = nn.Linear(32, 32)

    def forward(self, x):
        y = self.second(torch.nn.functional.gelu(self.first(x)))
        return self.norm(0.05 * (self.gate(x) - y))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    samples = {"x": RNG.normal(size=(8, 32)).astype(np.float32)}
    context = export_context(Block().eval(), samples, tmp_path_factory.mktemp("block"))
    return context, first(context), samples


@pytest.fixture
def twin(exported, tmp_path):
    """A copy of the FLOAT32 twin, with torch's outputs beside it, to do damage to."""
    _, artefact, _ = exported
    return Path(shutil.copytree(artefact.folder / artefact.details["float32_twin"], tmp_path / "twin"))


def operations(spec):
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from block.operations


def edit(folder, change):
    from coremltools.proto import Model_pb2

    file = next(folder.rglob("*.mlmodel"))
    spec = Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    changed = sum(change(operation) for operation in operations(spec))
    assert changed > 0, "the mutation changed nothing"
    file.write_bytes(spec.SerializeToString())


def gelu_to_relu(operation):
    if operation.type != "gelu":
        return 0
    operation.type = "relu"
    return 1


def swapped_operands(operation):
    if operation.type != "sub":
        return 0
    x, y = operation.inputs["x"].arguments[0].name, operation.inputs["y"].arguments[0].name
    operation.inputs["x"].arguments[0].name, operation.inputs["y"].arguments[0].name = y, x
    return 1


def wrong_epsilon(operation):
    if operation.type != "const":
        return 0
    floats = operation.attributes["val"].immediateValue.tensor.floats.values
    if len(floats) != 1 or abs(floats[0] - 1e-5) > 1e-9:
        return 0
    floats[0] = 1e-3
    return 1


def test_the_honest_twin_passes(exported, twin):
    report = twin_report(exported[1], twin)
    assert report.passed
    assert report.agreements[0].cosine > 0.9999999


@pytest.mark.parametrize("mutation", [gelu_to_relu, swapped_operands, wrong_epsilon], ids=lambda item: item.__name__)
def test_a_mutated_program_fails(exported, twin, mutation):
    edit(twin, mutation)
    assert not twin_report(exported[1], twin).passed


def test_a_zeroed_block_of_weights_fails(exported, twin):
    file = next(twin.rglob("weight.bin"))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 256] = bytes(256)
    file.write_bytes(data)
    assert not twin_report(exported[1], twin).passed


def test_the_runner_refuses_a_package_whose_twin_fails(exported, twin):
    context, artefact, samples = exported
    home = artefact.folder / artefact.details["float32_twin"]
    kept = home.with_name("kept")
    shutil.move(home, kept)
    try:
        edit(twin, gelu_to_relu)
        shutil.copytree(twin, home)
        with pytest.raises(ToolFailedError, match="does not compute what torch computes"):
            run(artefact, context, samples)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.move(kept, home)


def test_without_a_twin_the_report_says_so(exported, tmp_path):
    import dataclasses

    context, artefact, samples = exported
    alone = dataclasses.replace(artefact, details={**artefact.details, "float32_twin": "../gone"})
    result = run(alone, context, samples)
    assert any("not proved again" in note for note in result.notes)


def test_error_is_judged_against_what_the_input_changes():
    # A large constant hides a wrong input-driven part from cosine and from relative error.
    constant = 1000.0 + RNG.normal(size=(6, 10)) * 0.01
    wrong = 1000.0 + RNG.normal(size=(6, 10)) * 0.01
    report = compare("y", wrong, constant)
    assert report.cosine > 0.9999
    assert report.error < 1e-3
    assert not report.tight


def test_an_output_that_only_rounding_varies_is_judged_by_its_size():
    constant = 1000.0 + RNG.normal(size=(6, 10)) * 1e-4
    near = 1000.0 + RNG.normal(size=(6, 10)) * 1e-4
    assert compare("y", near, constant).tight
    assert not compare("y", near + 2.0, constant).tight


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_not_a_number_never_agrees(value):
    expected = RNG.normal(size=(3, 4))
    got = expected.copy()
    got[1, 2] = value
    assert not compare("y", got, expected).tight


def test_masks_and_near_overflows_are_found_by_operation(tmp_path):
    x = np.array([[100.0, 250.0]], np.float32)

    def build(mb, x):
        masked = mb.add(x=x, y=np.array([[0.0, np.finfo(np.float32).min]], np.float32), name="masked")
        near = mb.square(x=mb.clip(x=x, alpha=0.0, beta=200.0), name="near")
        return masked, near, mb.log(x=mb.sub(x=x, y=300.0), name="undefined")

    path = mil_package(build, {"x": x}, tmp_path / "m.mlpackage")
    findings = watch(path, [{"x": x}], as_if_float16=True)
    kinds = {finding.operation: finding.kind for finding in findings}
    assert kinds["masked"] == "overflow"
    assert kinds["near"] == "near"
    assert kinds["undefined"] == "nan"
    assert any(finding.op_type == "const" and finding.kind == "overflow" for finding in findings), "the mask itself"
    # Declared float32, nothing of this can overflow: the package itself is not in danger.
    assert {finding.kind for finding in watch(path, [{"x": x}])} <= {"overflow"}


def test_advice_names_the_operation_and_what_was_seen(tmp_path):
    x, index = np.ones((2, 3, 8), np.float32), np.array([0, 1], np.int32)
    weight = np.ones((17000, 8), np.float32)

    def build(mb, x, i):
        return mb.gather(x=mb.linear(x=x, weight=weight, name="wide"), indices=i, axis=1, name="picked")

    path = mil_package(build, {"x": x, "i": index}, tmp_path / "m.mlpackage")
    remarks = advise(read_function(open_package(path)), {"wide": "encoder.head"})
    texts = [str(remark) for remark in remarks]
    assert any("wide (linear) in encoder.head: a dimension over 16384" in text for text in texts)
    assert any("picked (gather): indexed access" in text for text in texts)
    assert any("1x1 convolution" in text for text in texts)
    assert any("float32" in text for text in texts)
