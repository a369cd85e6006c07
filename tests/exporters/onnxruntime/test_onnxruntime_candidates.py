"""Which candidates a convolutional model gets, what is in their files, and what is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnxruntime_cases import agreement, case, digits, execute
from torch import nn

from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.onnxruntime.exporter import OnnxRuntimeExporter


@pytest.fixture(scope="module")
def cnn():
    return digits()


@pytest.fixture(scope="module")
def artefacts(cnn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefacts")
    return {item.candidate: item for item in OnnxRuntimeExporter().candidates(cnn.context(folder))}


def test_a_cnn_gets_the_static_form_and_the_float_fallback(artefacts):
    assert list(artefacts) == ["static-qdq", "float32"]
    reasons = artefacts["static-qdq"].details["not_offered"]
    assert "convolutions are never quantized dynamically" in reasons["dynamic-int8"]
    assert "of the parameters" in reasons["weight-only-int4"]


@pytest.mark.parametrize("candidate", ["static-qdq", "float32"])
def test_each_is_one_file_that_keeps_the_boundary(cnn, artefacts, candidate):
    artefact = artefacts[candidate]
    assert [path.name for path in artefact.folder.iterdir()] == [artefact.main.name]
    size = artefact.figures[0]
    assert (size.name, size.evidence) == ("size_mb", Evidence.ARTEFACT)
    assert size.value == pytest.approx(artefact.path.stat().st_size / 1e6)
    graph = onnx.load(artefact.path).graph
    for values, specs, ports in (
        (graph.input, cnn.graph.inputs, artefact.contract.inputs),
        (graph.output, cnn.graph.outputs, artefact.contract.outputs),
    ):
        assert [value.name for value in values] == [spec.name for spec in specs] == [port.name for port in ports]
        assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in values)
        assert [port.shape for port in ports] == [spec.shape for spec in specs]


def test_the_static_form_answers_as_the_model_does(cnn, artefacts):
    assert agreement(cnn.reference, execute(artefacts["static-qdq"], cnn.samples)) >= 0.98
    np.testing.assert_allclose(execute(artefacts["float32"], cnn.samples), cnn.reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("profile", "activation"),
    [("x86-avx512vnni", onnx.TensorProto.UINT8), ("raspberrypi5", onnx.TensorProto.INT8)],
)
def test_the_file_holds_the_profiles_arithmetic(cnn, tmp_path, profile, activation):
    graph = onnx.load(cnn.artefact(tmp_path, "static-qdq", profile).path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zero_points = {types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {activation}


def test_reduced_range_weights_stay_within_seven_bits(cnn, tmp_path):
    graph = onnx.load(cnn.artefact(tmp_path, "static-qdq", "x86-avx2").path).graph
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == 3]
    large = [weight for weight in weights if weight.ndim > 1]
    assert large and all(abs(weight.astype(int)).max() <= 63 for weight in large)


def test_two_exports_give_the_same_bytes(cnn, artefacts, tmp_path):
    for artefact in OnnxRuntimeExporter().candidates(cnn.context(tmp_path)):
        ours, theirs = (
            hashlib.sha256(item.path.read_bytes()).hexdigest() for item in (artefact, artefacts[artefact.candidate])
        )
        assert ours == theirs


def test_without_calibration_data_nothing_static_is_offered(cnn, tmp_path):
    made = list(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, data_free=True)))
    assert [item.candidate for item in made] == ["float32"]
    assert all(item.data_free for item in made)
    assert "no calibration data" in made[0].details["not_offered"]["static-qdq"]


def test_a_pinned_candidate_is_the_only_one(cnn, tmp_path):
    made = list(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, pinned="float32")))
    assert [item.candidate for item in made] == ["float32"]


def test_an_unknown_candidate_lists_the_choices(cnn, tmp_path):
    with pytest.raises(InputError, match="no candidate 'int3'") as caught:
        next(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, pinned="int3")))
    assert "static-qdq, static-mixed, float32" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_candidate_that_makes_no_sense_says_why(cnn, tmp_path):
    with pytest.raises(InputError, match="makes no sense") as caught:
        next(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, pinned="dynamic-int8")))
    assert "linear layers carry only" in caught.value.found


def test_options_are_refused(cnn, tmp_path):
    with pytest.raises(InputError, match="no option 'speed'") as caught:
        next(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, options={"speed": "high"})))
    assert "equalize" in caught.value.remedy


@pytest.mark.parametrize("name", ["equalize", "bias_correction", "mixed_precision"])
def test_an_option_is_true_or_false(cnn, tmp_path, name):
    with pytest.raises(InputError, match=f"Option {name} cannot be 'maybe'"):
        next(OnnxRuntimeExporter().candidates(cnn.context(tmp_path, options={name: "maybe"})))


def test_repairs_are_switched_by_options(cnn, tmp_path):
    def made(**options):
        context = cnn.context(tmp_path / "-".join(options) / "x", pinned="static-qdq", options=options)
        context.work_dir.mkdir(parents=True)
        return next(OnnxRuntimeExporter().candidates(context))

    plain, uncorrected, even = made(), made(bias_correction="false"), made(equalize="true")
    assert plain.path.read_bytes() != uncorrected.path.read_bytes()
    facts = even.details["equalization"]
    assert facts["applied"] or facts["why"]
    assert "equalization" not in plain.details
    assert 0 <= plain.details["clipped_fraction"] < 0.01


class _Mixed(nn.Module):
    """A convolution, then linear layers that carry most of the arithmetic; ends in a Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)
        self.hidden = nn.Linear(4 * 36, 512)
        self.last = nn.Linear(512, 64)

    def forward(self, image):
        return self.last(nn.functional.relu(self.hidden(self.convolution(image).flatten(1))))


@pytest.fixture(scope="module")
def mixed():
    import zoo

    return case(_Mixed().eval(), {"image": zoo.digits_data()[0][:24]}, 12)


def test_dynamic_quantization_leaves_convolutions_float_and_survives_a_final_gemm(mixed, tmp_path):
    artefact = mixed.artefact(tmp_path, "dynamic-int8")
    ops = [node.op_type for node in onnx.load(artefact.path).graph.node]
    assert ops.count("MatMulInteger") == 2
    assert "Conv" in ops and "ConvInteger" not in ops
    outputs = execute(artefact, mixed.samples)
    assert np.abs(outputs - mixed.reference).max() < 0.05 * np.abs(mixed.reference).max()


@pytest.mark.parametrize("candidate", ["weight-only-int8", "weight-only-int4", "static-qdq"])
def test_every_form_of_a_model_that_ends_in_gemm_runs(mixed, tmp_path, candidate):
    outputs = execute(mixed.artefact(tmp_path, candidate), mixed.samples)
    limit = 0.25 if candidate.endswith("int4") else 0.05
    assert np.abs(outputs - mixed.reference).max() < limit * np.abs(mixed.reference).max()


def test_data_free_forms_of_a_linear_model_need_no_table(mixed, tmp_path):
    made = [item.candidate for item in OnnxRuntimeExporter().candidates(mixed.context(tmp_path, data_free=True))]
    assert made == ["dynamic-int8", "weight-only-int8", "weight-only-int4", "float32"]
