import cost_graphs as graphs
import pytest
from onnx import helper

from edgedeploy.device_profiles.loader import builtin_names, load_profile
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure, unknown
from edgedeploy.graph.facts import op_facts
from edgedeploy.graph.graph import graph_from_onnx
from edgedeploy.targets.cost import estimate, explain, fill_estimates, precision_of


@pytest.fixture(scope="module")
def graph():
    return graphs.chain(50)


def figures(graph, target, scheme, **options):
    return {item.name: item for item in estimate(graph.facts, load_profile(target), precision_of(scheme), **options)}


def test_every_figure_is_an_estimate_with_its_band(graph):
    found = figures(graph, "snapdragon888", "qnn-a8w8")
    assert {"latency_ms", "throughput_per_s", "energy_mj", "power_mw", "ram_kb", "traffic_mb"} == set(found)
    for item in found.values():
        assert item.evidence is Evidence.ESTIMATE and item.low <= item.value <= item.high
    assert "interpolated" in found["latency_ms"].how


def test_layers_and_overhead_add_up_to_the_latency(graph):
    found = explain(graph.facts, load_profile("stm32l4r5"), precision_of("tflite"))
    total = sum(layer.latency_us for layer in found.layers) + found.overhead_us
    assert total / 1e3 == pytest.approx(found.figure("latency_ms").value)
    assert found.top(2)[0].latency_us >= found.top(2)[1].latency_us


@pytest.mark.parametrize("target", [name for name in builtin_names() if load_profile(name).cost])
def test_more_work_takes_longer_on_every_device(target):
    profile = load_profile(target)
    for precision in profile.cost.latency:
        small, large = (figures(graphs.chain(4, width), target, precision) for width in (32, 128))
        assert small["latency_ms"].value < large["latency_ms"].value
        assert small["ram_kb"].value < large["ram_kb"].value


def test_integers_are_faster_than_float_on_the_same_npu():
    wide = graphs.chain(20, width=128, size=64)
    assert (
        figures(wide, "snapdragon8gen2", "qnn-a8w8")["latency_ms"].value
        < figures(wide, "snapdragon8gen2", "float16")["latency_ms"].value
    )


def test_a_device_without_measurements_gets_no_latency(graph):
    profile = load_profile("jetson-nano")
    assert profile.cost is None
    found = explain(graph.facts, profile, precision_of("tensorrt"))
    assert found.figure("latency_ms") is None and found.layers == ()
    assert "no published measurements" in found.status


def test_an_ethos_u_leaves_its_latency_to_vela(graph):
    found = explain(graph.facts, load_profile("cortex-m55-ethos-u55-128"), precision_of("tflite"))
    assert found.figure("latency_ms") is None and "Vela" in found.status


def test_a_precision_without_coefficients_gets_no_latency(graph):
    found = explain(graph.facts, load_profile("snapdragon888"), precision_of("float16"))
    assert found.figure("latency_ms") is None
    assert "no coefficients for float16" in found.status


def test_an_interpolated_profile_has_a_wide_band():
    cost = load_profile("snapdragon888").cost
    assert cost.status == "interpolated" and cost.latency["int8"].band90 >= 1.7


def test_power_at_a_rate_is_energy_times_rate_until_the_device_is_busy(graph):
    slow = figures(graph, "stm32l4r5", "tflite", rate_per_s=0.1)
    back_to_back = figures(graph, "stm32l4r5", "tflite")
    busy = figures(graph, "stm32l4r5", "tflite", rate_per_s=1e6)
    assert slow["power_mw"].value == pytest.approx(slow["energy_mj"].value * 0.1)
    assert busy["power_mw"].value == pytest.approx(back_to_back["power_mw"].value)


def test_an_open_axis_beyond_the_batch_is_refused():
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    facts = op_facts(graphs.model(nodes, {"x": [1, "length"]}, {"y": [1, "length"]}))
    with pytest.raises(InputError, match="shapes are not known"):
        estimate(facts, load_profile("snapdragon888"), precision_of("qnn-a8w8"))


def test_an_unknown_op_is_counted_and_named():
    nodes = [helper.make_node("Hardmax", ["x"], ["y"], axis=1)]
    facts = graph_from_onnx(graphs.model(nodes, {"x": [1, 8, 4, 4]}, {"y": [1, 8, 4, 4]})).facts
    found = explain(facts, load_profile("snapdragon888"), precision_of("qnn-a8w8"))
    assert found.unknown_ops == ("Hardmax",)
    assert "Hardmax" in found.figure("latency_ms").how
    assert found.layers[0].bound == "memory" and found.layers[0].latency_us > 0


def test_only_what_nobody_measured_is_filled_in(graph):
    measured = Figure("ram_kb", 12.0, Evidence.SIMULATOR)
    given = (Figure("size_mb", 1.0, Evidence.ARTEFACT), unknown("latency_ms", "no board"), measured)
    found = {
        item.name: item for item in fill_estimates(graph, load_profile("stm32l4r5"), precision_of("tflite"), given)
    }
    assert found["ram_kb"] is measured and found["size_mb"] is given[0]
    assert found["latency_ms"].evidence is Evidence.ESTIMATE


def test_nothing_is_filled_in_where_nothing_was_fitted(graph):
    given = (unknown("latency_ms", "no board"),)
    assert fill_estimates(graph, load_profile("jetson-nano"), precision_of("tensorrt"), given) == given
    # An artefact that does not say how it computes gets no estimate from its scheme's name.
    assert fill_estimates(graph, load_profile("stm32l4r5"), None, given) == given


COST = """
extends = "snapdragon888"
[device]
name = "mine"
class = "phone"
backend = "snpe"
[cost]
{cost}
"""


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        ("latency = {int8 = {compute_gmacs_s = -5}}", "compute_gmacs_s"),
        ("latency = {int8 = {compute_gmacs_s = 0}}", "compute_gmacs_s"),
        ("latency = {int8 = {band90 = 0.5}}", "band90"),
        ("latency = {int8 = {memory_gb_s = nan}}", "memory_gb_s"),
        ("latency = {int8 = {op_us = inf}}", "op_us"),
        ("latency = {int7 = {op_us = 1}}", "int7"),
        ("latency = {float16 = {op_us = 1}}", "missing"),
        ("latency = {int8 = {speed = 1}}", "speed"),
        ('form = "tpu"', "form"),
    ],
)
def test_nonsensical_coefficients_are_refused_by_name(tmp_path, cost, said):
    path = tmp_path / "mine.toml"
    path.write_text(COST.format(cost=cost))
    with pytest.raises(InputError) as refused:
        load_profile(path)
    assert said in str(refused.value)
