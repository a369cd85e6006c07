"""The exporter on trained and made models, through NVIDIA's real parser and builder."""

import json
import subprocess

import numpy as np
import onnx
import pytest
import tensorrt_graphs as graphs
import zoo

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ExitCode, InputError, UnsupportedOpError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tensorrt.cache import CalibrationCache
from edgedeploy.exporters.tensorrt.exporter import TensorRtExporter
from edgedeploy.graph.graph import Graph, graph_from_onnx
from edgedeploy.interfaces import ExportContext, Selection


def context(graph, target, folder, arrays, **options):
    calibration = Calibration(graph, ArrayDataset(arrays))
    folder.mkdir(exist_ok=True)
    return ExportContext(None, graph, load_profile(target), calibration, folder, options)


def layers(target, folder, *, names=("features", "hidden", "scores"), batch=1, **options):
    graph = graph_from_onnx(graphs.two_layers(width=256, names=names))
    data = np.random.default_rng(3).standard_normal((16, 256)).astype(np.float32)
    return context(graph, target, folder, {names[0]: data}, **options)


@pytest.fixture(scope="module")
def rtx(tmp_path_factory):
    return list(TensorRtExporter().candidates(layers("rtx4090", tmp_path_factory.mktemp("rtx") / "work")))


def test_an_rtx_target_gets_a_real_engine_no_larger_than_float16(rtx):
    sizes = {artefact.candidate: artefact.figures[0] for artefact in rtx}
    assert [artefact.candidate for artefact in rtx] == ["int8", "int8-gentle", "int8-gentler", "float16"]
    assert all(figure.evidence is Evidence.ARTEFACT for figure in sizes.values())
    assert sizes["int8"].value < sizes["float16"].value
    for artefact in rtx:
        assert artefact.path.stat().st_size / 1e6 == sizes[artefact.candidate].value
        assert artefact.details["gate"]["status"] == "built"
    assert rtx[0].details["gate"]["dense_int8_share"] == 1.0
    assert TensorRtExporter().selection is Selection.FIRST_PASSING


def test_two_exports_are_byte_identical(rtx, tmp_path):
    again = next(TensorRtExporter().candidates(layers("rtx4090", tmp_path / "work")))
    for path in sorted(rtx[0].folder.iterdir()):
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_the_cure_leaves_the_worst_nodes_float(rtx):
    assert rtx[1].details["gate"]["dense_int8_share"] == 0.5


def test_a_jetson_gets_what_it_needs_to_build_and_an_estimated_size(digits_graph, tmp_path):
    images = zoo.digits_data()[0][:64]
    artefact = next(
        TensorRtExporter().candidates(context(digits_graph, "jetson-orin-nano", tmp_path / "w", {"image": images}))
    )
    assert artefact.details["gate"]["status"] == "parser-checked"
    assert artefact.details["gate"]["float_dense_nodes"] == []
    size = artefact.figures[0]
    assert size.evidence is Evidence.ESTIMATE and size.low < size.value < size.high
    assert artefact.path.stat().st_size / 1e6 != size.value
    names = {path.name for path in artefact.folder.iterdir()}
    assert {"build.sh", "build.py", "build.json", "calibration.cache", "model_float.onnx", "model.onnx"} <= names
    onnx.checker.check_model(onnx.load(artefact.path), full_check=True)
    subprocess.run(["sh", "-n", artefact.folder / "build.sh"], check=True)
    content = (artefact.folder / "calibration.cache").read_bytes()
    inputs = [port.name for port in artefact.contract.inputs]
    assert CalibrationCache.from_bytes(content, version="10.3.0", tensors=inputs).scales["image"] > 0
    assert 0 <= artefact.details["clipped_fraction"] < 0.02


def test_depthwise_transposed_and_dense_layers_are_placed_and_named(tmp_path):
    graph = graph_from_onnx(graphs.depthwise_block())
    data = np.random.default_rng(4).standard_normal((8, 16, 16, 16)).astype(np.float32)
    artefact = next(TensorRtExporter().candidates(context(graph, "jetson-agx-orin", tmp_path / "w", {"image": data})))
    facts = artefact.details["gate"]
    assert facts["dense_int8_share"] == 1.0
    assert "up" in facts["float_other_nodes"]
    assert {"float16", "int8", "int8-depthwise"} <= set(artefact.details["engine_sizes_mb"])


def test_int8_that_would_be_larger_gives_way_to_float16(digits_graph, tmp_path):
    images = zoo.digits_data()[0][:32]
    made = list(TensorRtExporter().candidates(context(digits_graph, "rtx3090", tmp_path / "w", {"image": images})))
    assert [artefact.candidate for artefact in made] == ["float16"]
    assert "every INT8 engine" in made[0].details["placement"]


def test_the_nano_has_no_int8_and_says_so(digits_graph, tmp_path):
    images = zoo.digits_data()[0][:8]
    made = list(TensorRtExporter().candidates(context(digits_graph, "jetson-nano", tmp_path / "w", {"image": images})))
    assert [artefact.candidate for artefact in made] == ["float16"]
    assert "no INT8 arithmetic" in made[0].details["placement"]
    assert onnx.load(made[0].path).opset_import[0].version == 13
    with pytest.raises(InputError, match="no INT8 arithmetic"):
        ask = context(digits_graph, "jetson-nano", tmp_path / "x", {"image": images}, precision="int8")
        list(TensorRtExporter().candidates(ask))


def test_an_old_tensorrt_gets_flags_and_an_old_opset(digits_graph, tmp_path):
    images = zoo.digits_data()[0][:32]
    artefact = next(
        TensorRtExporter().candidates(context(digits_graph, "jetson-xavier-nx", tmp_path / "w", {"image": images}))
    )
    assert onnx.load(artefact.path).opset_import[0].version == 17
    assert json.loads((artefact.folder / "build.json").read_text())["flags"] == ["FP16", "INT8"]
    assert "--fp16 --int8" in (artefact.folder / "build.sh").read_text()
    assert artefact.emulation != artefact.main
    assert b"TRT-8502-" in (artefact.folder / "calibration.cache").read_bytes()


def test_tensorrt_11_gets_no_cache(tmp_path):
    artefact = next(TensorRtExporter().candidates(layers("a100", tmp_path / "w")))
    assert not (artefact.folder / "calibration.cache").exists()
    assert "--calib" not in (artefact.folder / "build.sh").read_text()


def test_names_that_the_tools_cannot_carry_are_renamed(tmp_path):
    made = layers("jetson-orin-nano", tmp_path / "w", names=("in: put", "a,b", "scores"))
    artefact = next(TensorRtExporter().candidates(made))
    port = artefact.contract.inputs[0]
    assert (port.source_name, port.name) == ("in: put", "in__put")
    assert artefact.details["renamed"] == {"in: put": "in__put", "a,b": "a_b"}
    scales = CalibrationCache.from_bytes((artefact.folder / "calibration.cache").read_bytes()).scales
    assert {"in__put", "a_b", "scores"} <= set(scales)
    assert onnx.load(artefact.path).graph.input[0].name == "in__put"


def test_a_refused_op_is_named_with_nvidias_reason(tmp_path):
    made = context(Graph(graphs.foreign_op()), "t4", tmp_path / "w", {"x": np.ones((4, 4), np.float32)})
    with pytest.raises(UnsupportedOpError) as caught:
        list(TensorRtExporter().candidates(made))
    assert "Polish at 'odd'" in str(caught.value) and caught.value.exit_code is ExitCode.BAD_INPUT


def dynamic(folder, **options):
    proto = graphs.two_layers(width=64)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph = graph_from_onnx(proto, dynamic_batch=True)
    data = np.random.default_rng(5).standard_normal((8, 64)).astype(np.float32)
    return context(graph, "h200", folder, {"features": data}, **options)


def test_a_dynamic_shape_without_a_range_is_named(tmp_path):
    with pytest.raises(InputError, match="range for every dynamic dimension") as caught:
        list(TensorRtExporter().candidates(dynamic(tmp_path / "w")))
    assert "'batch'" in str(caught.value) and "range.batch=1:4:8" in str(caught.value)


def test_a_dynamic_shape_with_a_range_is_built(tmp_path):
    artefact = next(TensorRtExporter().candidates(dynamic(tmp_path / "w", **{"range.batch": "1:4:8"})))
    assert json.loads((artefact.folder / "build.json").read_text())["ranges"]["features"] == [[1, 64], [4, 64], [8, 64]]
    assert "--minShapes=features:1x64" in (artefact.folder / "build.sh").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "no option 'colour'"),
        ({"equalize": "maybe"}, "true or false"),
        ({"range.batch": "8:4:1"}, "not in order"),
        ({"range.batch": "many"}, "not a range"),
    ],
)
def test_options_are_checked(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        list(TensorRtExporter().candidates(layers("t4", tmp_path / "w", **options)))


def test_only_the_pinned_candidate_is_made(tmp_path):
    asked = layers("rtx3090", tmp_path / "w")
    asked.pinned = "float16"
    assert [artefact.candidate for artefact in TensorRtExporter().candidates(asked)] == ["float16"]
