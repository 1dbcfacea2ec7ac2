"""All rewrites together keep what the network computes, never make it larger, and give the same bits again."""

from __future__ import annotations

import numpy as np
from dense_networks import layer, line_finding, network_of, phase_findings, random_network, with_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.model import Activate, Affine, Dense, Network, Port, Term, Unit, Unknown, identity
from redy.model.digest import network_digest
from redy.model.functions import relu
from redy.model.verdict import Finding, Line
from redy.rewrite import Refusal, Shrunk, shrink

SEEDS = st.integers(0, 2**32 - 1)


def applied(network, findings) -> Shrunk:
    result = shrink(network, findings)
    assert isinstance(result, Shrunk)
    return result


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS, layers=st.integers(1, 5), width=st.integers(1, 9), radius=st.floats(0.01, 1))
def test_outputs_stay_on_the_points_for_which_the_findings_hold(seed, layers, width, radius):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=layers, width=width)
    points = rng.normal(size=network.input.shape) + radius * rng.uniform(-1, 1, (50, *network.input.shape))
    findings = phase_findings(network, points)
    small = applied(network, findings).network
    expected = network.evaluate(points)
    np.testing.assert_allclose(small.evaluate(points), expected, rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max()))
    assert small.parameters <= network.parameters
    assert small.macs <= network.macs
    assert network_digest(applied(network, findings).network) == network_digest(small)


@settings(deadline=None, max_examples=100)
@given(seed=SEEDS, layers=st.integers(1, 4), share=st.floats(0, 1))
def test_any_lines_give_what_the_network_with_these_lines_computes_everywhere(seed, layers, share):
    rng = np.random.default_rng(seed)
    network = random_network(rng, layers=layers)
    findings = [
        line_finding(node.name, j, float(rng.choice([0.0, 1.0, rng.normal()])), float(rng.normal()))
        for node in network.activations
        for j in range(node.shape[0])
        if rng.random() < share
    ]
    result = applied(network, findings)
    points = rng.normal(size=(30, *network.input.shape)) * 3
    expected = result.lined.evaluate(points)
    if result.refusal is not None:
        assert result.network is network
        return
    np.testing.assert_allclose(
        result.network.evaluate(points), expected, rtol=1e-8, atol=1e-9 * (1 + np.abs(expected).max())
    )
    lines = {(finding.unit.node, finding.unit.index) for finding in findings}
    kept = {(name, int(j)) for name, units in result.units.items() for j in units}
    assert not kept & lines


@settings(deadline=None, max_examples=100)
@given(seed=SEEDS, layers=st.integers(1, 4))
def test_further_outputs_keep_name_shape_and_value(seed, layers):
    rng = np.random.default_rng(seed)
    network = with_outputs(random_network(rng, layers=layers), rng)
    points = rng.normal(size=network.input.shape) + 0.3 * rng.uniform(-1, 1, (40, *network.input.shape))
    small = applied(network, phase_findings(network, points)).network
    assert small.outputs == network.outputs
    names = [port.name for port in network.outputs]
    expected, found = network.trace(points, names), small.trace(points, names)
    scale = 1 + max(np.abs(value).max() for value in network.trace(points).values())
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-9 * scale)


def test_a_network_whose_units_are_all_lines_becomes_one_matrix():
    network = network_of(layer(4, 3), layer(3, 4), layer(2, 3))
    findings = [line_finding(n.name, j, 1.0, 0.5) for n in network.activations for j in range(n.shape[0])]
    small = applied(network, findings).network
    assert [type(node) for node in small.nodes] == [Affine]
    assert len(small.nodes[0].terms) == 1
    assert small.parameters == 2 * 3 + 2


def test_a_network_whose_units_are_all_constant_becomes_a_bias():
    network = network_of(layer(4, 3), layer(3, 4), layer(2, 3))
    findings = [line_finding("a1", j, 0.0, float(j)) for j in range(3)]
    small = applied(network, findings).network
    assert small.macs == 0
    expected = network.nodes[-1].terms[0].operator.matrix() @ np.arange(3.0) + network.nodes[-1].bias
    np.testing.assert_allclose(small.evaluate(np.ones((1, 3)))[0], expected)


def test_a_plain_fold_would_be_larger_and_is_not_made():
    # Three narrow linear units between two wide layers: folding would join 40 units to 40.
    network = network_of(layer(40, 4), layer(3, 40), layer(40, 3), layer(2, 40))
    findings = [line_finding("a1", j, 1.0, 0.0, "phase") for j in range(3)]
    small = applied(network, findings).network
    assert small.macs == network.macs
    assert small.parameters == network.parameters
    assert [node.name for node in small.activations] == ["a0", "a1", "a2"]


def test_an_output_that_is_an_activation_keeps_its_name_and_order():
    inner = network_of(layer(4, 3), layer(3, 4))
    nodes = (*inner.nodes, Activate("out", "y", relu(), (3,)))
    network = Network(inner.input, nodes, (Port("out", (3,)),))
    findings = [line_finding("out", 1, 1.0, 0.0, "phase"), line_finding("out", 2, 0.0, 0.0, "phase")]
    result = applied(network, findings)
    points = np.random.default_rng(0).normal(size=(20, 3))
    expected = inner.evaluate(points) * [1, 1, 0]
    expected[:, 0] = np.maximum(expected[:, 0], 0)
    if "out_units" in result.units and 1 in result.units["out_units"]:
        expected[:, 1] = np.maximum(expected[:, 1], 0)
    np.testing.assert_allclose(result.network.evaluate(points), expected, rtol=1e-12, atol=1e-12)
    assert result.network.macs < network.macs


def test_residual_connections_cost_nothing_before_and_after():
    rng = np.random.default_rng(1)
    weight = Dense.of(rng.normal(size=(5, 5)))
    nodes = (
        Affine("z", (Term("x", weight),), rng.normal(size=5)),
        Activate("a", "z", relu(), (5,)),
        Affine("s", (Term("a", identity((5,))), Term("x", identity((5,)))), np.zeros(5)),
        Affine("z2", (Term("s", weight),), np.zeros(5)),
        Activate("a2", "z2", relu(), (5,)),
        Affine("y", (Term("a2", identity((5,))), Term("s", identity((5,)))), np.zeros(5)),
    )
    network = Network(Port("x", (5,)), nodes, (Port("y", (5,)),))
    small = applied(network, [line_finding("a", 0, 0.0, 0.0, "phase")]).network
    assert small.macs <= network.macs
    assert small.parameters <= network.parameters
    lined = applied(network, [line_finding("a", 0, 0.0, 0.0, "phase")]).lined
    points = rng.normal(size=(20, 5))
    np.testing.assert_allclose(small.evaluate(points), lined.evaluate(points), rtol=1e-12, atol=1e-12)


def test_a_finding_that_is_not_proved_is_refused():
    network = network_of(layer(4, 3), layer(2, 4))
    finding = Finding(Unit("a0", 0), "phase", Line(0.0, 0.0), 0.0, Unknown("time limit"))
    result = shrink(network, [finding])
    assert isinstance(result, Refusal)
    assert "a0[0]" in result.reason
    assert "not proved" in result.reason
