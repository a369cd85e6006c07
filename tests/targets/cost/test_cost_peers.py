import cost_graphs as graphs
import numpy as np
import pytest

from edgedeploy.device_profiles.schema import LatencyCoefficients
from edgedeploy.precision import FLOAT16, INT8
from edgedeploy.targets.cost.forms import FORMS
from edgedeploy.targets.cost.latency import layer_times
from edgedeploy.targets.cost.layers import layers
from edgedeploy.targets.cost.peers import Peers, correction, groups, load_peers, position
from edgedeploy.targets.cost.work import work

RATES = LatencyCoefficients(fixed_us=50, compute_gmacs_s=5000, memory_gb_s=40, vector_gb_s=100, op_us=1, band90=2)


def at(graph, precision=INT8):
    executed = layers(graph.facts)
    return position(groups(executed), layer_times(work(graph.facts, executed, FORMS["npu"], precision), RATES))


def test_shares_of_time_add_up():
    found = at(graphs.chain(5))
    waiting = found[-2] ** 2  # part of the layers' own shares as well
    assert (found[:-1] ** 2).sum() - waiting == pytest.approx(1)


def test_a_measured_network_pulls_those_like_it_and_leaves_others_alone():
    here = at(graphs.chain(5))
    peers = Peers(here[None], np.array([0.4]))
    assert 0.2 < correction(here, peers) < 0.4
    assert abs(correction(here + 1, peers)) < 1e-6


def test_far_off_measurements_pull_no_further_than_a_factor_of_e():
    here = at(graphs.chain(5))
    assert correction(here, Peers(here[None], np.array([5.0]))) <= 1


@pytest.mark.parametrize("precision", [FLOAT16, INT8], ids=lambda item: item.name)
def test_the_shipped_table_has_a_position_for_every_network(precision):
    found = load_peers("npu", precision.name)
    assert found is not None
    assert found.positions.shape == (len(found.log_ratio), 14)
    assert np.isfinite(found.positions).all() and np.isfinite(found.log_ratio).all()


def test_a_processor_without_a_table_has_the_form_alone():
    assert load_peers("mcu", "int8") is None
