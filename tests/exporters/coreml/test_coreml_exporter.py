"""Export of trained and recurrent models, options, cures and refusals, judged on the executed packages."""

import numpy as np
import pytest
import torch
import zoo
from coreml_cases import export_context, figure, first, reference, run
from torch import nn

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.coreml.exporter import CoreMlExporter
from edgedeploy.exporters.coreml.integration import integration_files
from edgedeploy.interfaces import Rejection
from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.package import open_package

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    images, _, test_images, labels = zoo.digits_data()
    folder = tmp_path_factory.mktemp("digits")

    def make(profile="iphone14pro", **options):
        return export_context(zoo.digits_cnn(), {"image": images[:64]}, folder, profile, **options)

    return make, {"image": test_images[:100]}, labels[:100]


@pytest.fixture(scope="module")
def plain(digits):
    context = digits[0](author="A. Author", license="MIT", version="1.2", description="Reads digits")
    return context, first(context)


def test_float16_package_passes_both_gates(digits, plain):
    _, samples, labels = digits
    context, artefact = plain
    result = run(artefact, context, samples)
    assert artefact.candidate == "trace-float16"
    assert result.evidence is Evidence.EXECUTOR
    assert figure(result, "float32_cosine_min").value >= 0.9999
    best = result.outputs["output"].argmax(-1)
    own = reference(context, samples).argmax(-1)
    assert len(np.unique(own)) == 10
    assert (best == own).mean() == 1.0
    assert (best[:, 0] == labels).mean() >= 0.94
    assert any("were not exercised" in note for note in result.notes)


def test_package_names_sizes_and_metadata(plain):
    context, artefact = plain
    package = open_package(artefact.path)
    metadata = package.spec.description.metadata
    assert (metadata.author, metadata.license, metadata.versionString) == ("A. Author", "MIT", "1.2")
    assert metadata.shortDescription == "Reads digits"
    assert metadata.userDefined["edgedeploy.model_sha256"] == context.model.sha256
    assert [port.name for port in artefact.contract.inputs] == [value.name for value in package.spec.description.input]
    assert artefact.figures[0].value == package.size_bytes / 1e6
    assert artefact.figures[0].evidence is Evidence.ARTEFACT
    twin = open_package(artefact.folder / artefact.details["float32_twin"] / artefact.main)
    assert package.weight_bytes <= 0.55 * twin.weight_bytes
    assert package.spec.specificationVersion == 8


def test_two_exports_are_equal_byte_for_byte(digits, plain):
    _, artefact = plain
    again = first(digits[0](author="A. Author", license="MIT", version="1.2", description="Reads digits"))
    files = sorted(path.relative_to(artefact.folder) for path in artefact.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again.folder) for path in again.folder.rglob("*") if path.is_file())
    for name in files:
        assert (artefact.folder / name).read_bytes() == (again.folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("profile", "options", "op"),
    [
        ("iphone14pro", {"weights": "int8"}, "constexpr_affine_dequantize"),
        ("iphone14pro", {"weights": "palette4"}, "constexpr_lut_to_dense"),
        ("iphone15pro", {"weights": "int8", "activations": "int8"}, "quantize"),
    ],
)
def test_compressed_packages_shrink_and_stay_right(digits, plain, profile, options, op):
    make, samples, labels = digits
    context = make(profile, **options)
    artefact = first(context)
    result = run(artefact, context, samples)
    assert result.details["op_counts"].get(op, 0) > 0
    assert open_package(artefact.path).weight_bytes < open_package(plain[1].path).weight_bytes
    assert (result.outputs["output"].argmax(-1)[:, 0] == labels).mean() >= 0.93


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))

    def forward(self, x):
        return self.body(x)


def test_int4_weights_per_block_take_an_eighth(tmp_path):
    samples = {"x": RNG.normal(size=(8, 64)).astype(np.float32)}
    context = export_context(Wide().eval(), samples, tmp_path, "iphone15pro", weights="int4")
    artefact = first(context)
    result = run(artefact, context, samples)
    assert result.details["op_counts"]["constexpr_blockwise_shift_scale"] == 2
    assert artefact.details["compressed_weights"] == 2
    twin = open_package(artefact.folder / artefact.details["float32_twin"] / artefact.main)
    assert open_package(artefact.path).weight_bytes < 0.2 * twin.weight_bytes
    expected = reference(context, samples)
    assert np.corrcoef(result.outputs["output"].ravel(), expected.ravel())[0, 1] > 0.98


class Colour(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x)).mean((2, 3))


def test_image_input_takes_pixels_with_mean_and_std_per_channel(tmp_path):
    mean, std = np.array([123.0, 116.0, 103.0]), np.array([58.0, 57.0, 50.0])
    pixels = RNG.integers(0, 256, (4, 3, 16, 16))
    samples = {"x": ((pixels - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)).astype(np.float32)}
    context = export_context(
        Colour().eval(), samples, tmp_path, image="x", mean="123,116,103", std="58,57,50", color="RGB"
    )
    artefact = first(context)
    description = open_package(artefact.path).spec.description.input[0]
    assert description.type.WhichOneof("Type") == "imageType"
    assert artefact.contract.inputs[0].dtype == "uint8"
    result = run(artefact, context, samples)
    np.testing.assert_allclose(result.outputs["output"], reference(context, samples), atol=5e-3)
    direct = Executor(artefact.path).run({"x": pixels[:1].astype(np.float32)})
    np.testing.assert_allclose(next(iter(direct.values())), result.outputs["output"][0], atol=1e-5)


def test_class_labels_make_a_classifier(digits, tmp_path):
    make, samples, _ = digits
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(f"digit {number}" for number in range(10)))
    context = make(labels=str(file))
    artefact = first(context)
    description = open_package(artefact.path).spec.description
    assert description.predictedFeatureName == "classLabel"
    result = run(artefact, context, {"image": samples["image"][:10]})
    expected = reference(context, {"image": samples["image"][:10]})
    assert (result.outputs["output"].argmax(-1) == expected.argmax(-1)).all()


def test_flexible_batch(digits):
    make, samples, _ = digits
    context = make(batch="1..4")
    artefact = first(context)
    name = artefact.contract.inputs[0].name
    assert artefact.contract.inputs[0].shape[0] == "batch"
    whole = next(iter(Executor(artefact.path).run({name: samples["image"][:3]}).values()))
    np.testing.assert_allclose(whole, reference(context, {"image": samples["image"][:3]})[:, 0], atol=0.05)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(6, 8, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.rnn(x)[0]


def agrees(model: nn.Module, samples: dict[str, np.ndarray], folder) -> None:
    """The float32 twin and the float16 package compute what torch computes."""
    context = export_context(model, samples, folder)
    result = run(first(context), context, samples)
    assert figure(result, "float32_max_error").value < 1e-5
    np.testing.assert_allclose(result.outputs["output"], reference(context, samples), atol=5e-3)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers(tmp_path, kind):
    samples = {"x": RNG.normal(size=(3, 7, 6)).astype(np.float32)}
    agrees(Recurrent(kind).eval(), samples, tmp_path)


def test_a_recurrent_layer_exported_with_a_dynamic_batch(tmp_path):
    """Such a program computes with sizes, and no trace takes those."""
    samples = {"x": RNG.normal(size=(3, 7, 6)).astype(np.float32)}
    batch = torch.export.Dim("batch", min=1, max=8)
    example = (torch.from_numpy(samples["x"][:2]),)
    program = torch.export.export(Recurrent(nn.GRU).eval(), example, dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    agrees(Recurrent(nn.GRU).eval(), samples, tmp_path)


class OwnConversions(nn.Module):
    """Every op that the exporter teaches coremltools, each in a row of the output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, x):
        f = nn.functional
        share = torch.sigmoid(x)
        first, second = x.chunk(2, -1)
        rows = [
            f.celu(x, alpha=0.7), f.logsigmoid(x), f.hardtanh(x, -1, 1), torch.expm1(x), torch.log1p(share),
            torch.lerp(x, share, 0.3), torch.addcmul(x, share, x, value=0.5), torch.addcdiv(x, x, share + 1.0),
            torch.logit(share, eps=1e-3), torch.cat([second, first], -1), x + x.new_ones(8),
            torch.where(torch.isinf(x), x.new_ones(8), x), self.cell(x)[0],
        ]  # fmt: skip
        return torch.stack(rows, 1)


def test_ops_that_coremltools_lacks_or_converts_wrongly(tmp_path):
    samples = {"x": RNG.normal(size=(4, 8)).astype(np.float32)}
    agrees(OwnConversions().eval(), samples, tmp_path)


class Overflowing(nn.Module):
    """Squares values in the hundreds: the sum passes float16's 65,504 and comes back."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(16, 16)

    def forward(self, x):
        loud = self.project(x) * 400.0
        energy = (loud * loud).sum(-1, keepdim=True)
        return loud / torch.sqrt(energy + 1.0)


def test_an_overflow_is_found_and_cured_by_keeping_operations_in_float32(tmp_path):
    samples = {"x": RNG.normal(size=(6, 16)).astype(np.float32)}
    context = export_context(Overflowing().eval(), samples, tmp_path)
    candidates = CoreMlExporter().candidates(context)
    plain = next(candidates)
    broken = run(plain, context, samples)
    assert np.abs(broken.outputs["output"]).max() == 0.0
    assert any("overflow" in finding for finding in broken.details["overflow"])
    context.rejections.append(Rejection(plain.candidate, "cosine", ("min_cosine",)))
    cured = next(candidates)
    assert cured.candidate == "trace-float16-keep-float32"
    assert cured.details["kept_float32"]
    np.testing.assert_allclose(run(cured, context, samples).outputs["output"], reference(context, samples), atol=3e-3)


def test_a_pinned_candidate_is_the_only_one(digits):
    context = digits[0]()
    context.pinned = "program-float16"
    assert [artefact.candidate for artefact in CoreMlExporter().candidates(context)] == ["program-float16"]


class Strange(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.odd = Strange()

    def forward(self, x):
        return self.odd(self.first(x))


def test_an_unsupported_op_is_named_with_its_module(tmp_path):
    # capture() would refuse it first, so the exporter is given the graph of another model.
    from edgedeploy.exporters.coreml.boundary import Boundary, contract
    from edgedeploy.exporters.coreml.convert import capture, convert
    from edgedeploy.exporters.coreml.options import CoreMlOptions
    from edgedeploy.tensors import TensorSpec

    spec = [TensorSpec("x", (1, 4), "float32")]
    options = CoreMlOptions("iOS17")
    boundary = Boundary(Host().eval(), spec, lambda values: (tuple(values), {}))
    for route in ("trace", "program"):
        captured = capture(boundary, (torch.zeros(1, 4),), route, fixed=True)
        with pytest.raises(UnsupportedOpError) as caught:
            convert(captured, contract(spec, [TensorSpec("y", (1, 4), "float32")], options), options)
        assert "bessel_j0" in str(caught.value)
        assert "odd" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wieghts": "int8"}, "no option 'wieghts'"),
        ({"weights": "int7"}, "weights=int7"),
        ({"weights": "int4"}, "needs iOS 18"),
        ({"batch": "4..1"}, "not a range"),
        ({"image": "nobody"}, "no such input"),
        ({"image": "image", "color": "RGB"}, "cannot be an image"),
        ({"mean": "1"}, "no image input"),
        ({"image": "image", "color": "GRAYSCALE", "std": "0"}, "not positive"),
        ({"image": "image", "color": "GRAYSCALE", "mean": "1,2"}, "2 values for 1 channels"),
        ({"labels": "/nowhere/labels.txt"}, "labels is missing"),
    ],
)
def test_wrong_options_are_refused(digits, options, words):
    with pytest.raises(InputError, match=words):
        first(digits[0](**options))


def test_swift_code_has_the_models_own_names(plain):
    _, artefact = plain
    sources = integration_files(artefact, "my digits-v2")
    assert set(sources) == {"MyDigitsV2Predictor.swift", "run_on_mac.swift"}
    code = sources["MyDigitsV2Predictor.swift"]
    assert '"image": MLFeatureValue(multiArray: image)' in code
    assert 'featureValue(for: "output")' in code
    assert "1 x 1 x 8 x 8" in code
    assert code.count("{") == code.count("}")
    assert code.count("(") == code.count(")")
