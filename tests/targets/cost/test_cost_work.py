"""What each form counts, against the arithmetic of the layer itself."""

import cost_graphs as graphs
import pytest
from onnx import helper

from edgedeploy.graph.facts import op_facts
from edgedeploy.precision import FLOAT32, INT8
from edgedeploy.targets.cost.forms import FORMS
from edgedeploy.targets.cost.latency import layer_times
from edgedeploy.targets.cost.layers import layers
from edgedeploy.targets.cost.work import work

SIDE = 16
PIXELS = SIDE * SIDE


def convolution(cin, cout, kernel, groups=1):
    """Facts of one convolution that keeps the map's size."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", group=groups, pads=[kernel // 2] * 4)
    weights = {"w": (cout, cin // groups, kernel, kernel)}
    return op_facts(graphs.model([node], {"x": [1, cin, SIDE, SIDE]}, {"y": [1, cout, SIDE, SIDE]}, weights))


def dense(rows):
    """Facts of one dense layer on a sequence."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="d")
    return op_facts(graphs.model([node], {"x": [1, rows, 64]}, {"y": [1, rows, 32]}, {"w": (64, 32)}))


def counted(facts, form, precision=FLOAT32):
    return work(facts, layers(facts), FORMS[form], precision)


def test_a_cpu_pays_for_every_group_of_a_grouped_convolution():
    facts = convolution(64, 64, 3, groups=8)
    assert counted(facts, "cpu").calls.tolist() == [8]
    assert counted(facts, "npu").calls.tolist() == [1]
    assert counted(convolution(64, 64, 3, groups=64), "cpu").calls.tolist() == [1]


@pytest.mark.parametrize(("precision", "factor"), [(FLOAT32, 0.4), (INT8, 0.8)])
def test_winograd_saves_multiply_accumulates_and_costs_weights(precision, factor):
    facts = convolution(64, 64, 3)
    found = counted(facts, "cpu", precision)
    assert found.macs[0] == pytest.approx(factor * PIXELS * 9 * 64 * 64)
    assert found.memory[0] == pytest.approx(4 * 9 * 64 * 64 * precision.weight_bytes)
    assert counted(facts, "gpu", precision).macs[0] == PIXELS * 9 * 64 * 64


def test_a_wide_kernel_is_unfolded_and_a_pointwise_one_is_not():
    stored = PIXELS * 16 * 4
    assert counted(convolution(16, 16, 1), "cpu").vector[0] == stored
    assert counted(convolution(16, 16, 5), "cpu").vector[0] == stored + PIXELS * 25 * 16 * 4
    assert counted(convolution(64, 64, 3), "cpu").vector[0] == PIXELS * 64 * 4 * (1 + 36 / 16)


def test_a_dense_layer_on_a_sequence_runs_at_the_rate_of_attention():
    assert counted(dense(77), "cpu").unit.tolist() == counted(dense(77), "ane").unit.tolist() == [1]
    assert counted(dense(1), "cpu").unit.tolist() == counted(dense(77), "npu").unit.tolist() == [0]


def test_a_microcontroller_multiplies_two_channels_at_a_time():
    assert counted(convolution(3, 5, 3), "mcu", INT8).macs[0] == PIXELS * 9 * 4 * 6


def test_the_fixed_cost_is_paid_at_every_call():
    from edgedeploy.device_profiles.loader import load_profile

    rates = load_profile("raspberrypi5").cost.latency["float32"]
    one = layer_times(counted(convolution(64, 64, 3, groups=64), "cpu"), rates)
    slower = layer_times(counted(convolution(64, 64, 3, groups=64), "cpu"), rates.model_copy(update={"op_us": 1e3}))
    assert slower.total_us[0] - one.total_us[0] == pytest.approx(1e3 - rates.op_us)
    grouped = counted(convolution(64, 64, 3, groups=8), "cpu")
    dear = layer_times(grouped, rates.model_copy(update={"op_us": 1e3}))
    assert dear.total_us[0] - layer_times(grouped, rates).total_us[0] == pytest.approx(8 * (1e3 - rates.op_us))
