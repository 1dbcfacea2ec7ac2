"""Single rewrites: fusing affine chains, constants, dead units, structure, rounding, findings."""

from __future__ import annotations

import numpy as np
import pytest
from dense_networks import layer, line_finding, network_of, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.model import Activate, Affine, Dense, Gather, Network, Port, Scale, Term
from redy.model.functions import clip, relu
from redy.rewrite import Refusal, apply_findings, fuse, round_weights
from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import drop_dead
from redy.rewrite.structure import name_structure


def test_normalisation_and_flatten_disappear_into_the_first_layer():
    shape = (1, 2, 3)
    weight, bias = layer(4, 6)
    nodes = (
        Affine("centred", (Term("x", Scale(np.ones(shape))),), np.full(shape, -0.5)),
        Affine("scaled", (Term("centred", Scale(np.full(shape, 0.25))),), np.zeros(shape)),
        Affine("flat", (Term("scaled", Gather(np.arange(6), shape)),), np.zeros(6)),
        Affine("z", (Term("flat", Dense.of(weight)),), bias),
        Activate("y", "z", relu(), (4,)),
    )
    network = Network(Port("x", shape), nodes, (Port("y", (4,)),))
    fused = fuse(network)
    assert [node.name for node in fused.nodes] == ["z", "y"]
    points = np.random.default_rng(0).normal(size=(10, *shape))
    np.testing.assert_allclose(fused.evaluate(points), network.evaluate(points), rtol=1e-12, atol=1e-12)


def test_a_low_rank_factor_is_not_multiplied_out():
    first, second = layer(2, 20), layer(20, 2)
    nodes = (
        Affine("low", (Term("x", Dense.of(first[0])),), first[1]),
        Affine("y", (Term("low", Dense.of(second[0])),), second[1]),
    )
    network = Network(Port("x", (20,)), nodes, (Port("y", (20,)),))
    assert [node.name for node in fuse(network).nodes] == ["low", "y"]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_fuse_constants_and_dead_keep_every_output(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    points = rng.normal(size=(20, *network.input.shape))
    small, kept = drop_dead(propagate_constants(fuse(network)))
    expected = network.evaluate(points)
    np.testing.assert_allclose(small.evaluate(points), expected, rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max()))
    for node in small.activations:
        assert kept[node.name].size == node.shape[0]


def test_the_constant_is_the_function_at_the_bias():
    weight = layer(3, 2)[0].copy()
    weight[1] = 0.0
    network = network_of((weight, np.array([0.1, 0.3, 0.2])), layer(2, 3))
    nodes = [Activate(n.name, n.source, clip(0.5, 1.0), n.shape) if n.name == "a0" else n for n in network.nodes]
    network = Network(network.input, tuple(nodes), network.outputs)
    moved = propagate_constants(network)
    outgoing = network.by_name["y"].terms[0].operator.matrix()
    np.testing.assert_allclose(moved.by_name["y"].bias, network.by_name["y"].bias + 0.5 * outgoing[:, 1])
    assert not moved.by_name["y"].terms[0].operator.matrix()[:, 1].any()
    small, kept = drop_dead(moved)
    assert kept["a0"].tolist() == [0, 2]
    assert small.units == 2


def test_dead_units_cascade_to_the_front():
    wide, narrow = layer(3, 4)[0].copy(), layer(2, 3)[0].copy()
    narrow[:, 1] = 0.0
    wide[[0, 2], 3] = 0.0
    network = network_of(layer(4, 2), (wide, layer(3, 4)[1]), (narrow, layer(2, 3)[1]))
    small, kept = drop_dead(network)
    assert kept["a1"].tolist() == [0, 2]
    assert kept["a0"].tolist() == [0, 1, 2]
    points = np.random.default_rng(0).normal(size=(10, 2))
    np.testing.assert_allclose(small.evaluate(points), network.evaluate(points), rtol=1e-12)


def test_selections_and_diagonals_are_named():
    eye = np.eye(3)
    terms = (Term("x", Dense.of(eye[[2, 0, 1]])), Term("x", Dense.of(np.diag([1.0, 2.0, 0.5]))))
    network = Network(Port("x", (3,)), (Affine("y", terms, np.zeros(3)),), (Port("y", (3,)),))
    named = name_structure(network)
    assert [type(term.operator) for term in named.nodes[0].terms] == [Gather, Scale]
    points = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_array_equal(named.evaluate(points), network.evaluate(points))


def test_rounding_gives_numbers_of_the_type_and_refuses_overflow():
    network = network_of((np.array([[1 / 3]]), np.array([1 / 7])), (np.array([[1e300]]), np.array([0.0])))
    assert isinstance(round_weights(network, "float32"), Refusal)
    fitting = network_of((np.array([[1 / 3]]), np.array([1 / 7])), (np.array([[2.0]]), np.array([0.0])))
    rounded = round_weights(fitting, "float32")
    assert isinstance(rounded, Network)
    assert rounded.nodes[0].bias[0] == np.float64(np.float32(1 / 7))


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        (line_finding("z0", 0, 0.0, 0.0), "no activation"),
        (line_finding("nothing", 0, 0.0, 0.0), "no activation"),
        (line_finding("a0", 9, 0.0, 0.0), "has 4 units"),
    ],
)
def test_findings_that_do_not_fit_are_refused(finding, reason):
    result = apply_findings(network_of(layer(4, 3), layer(2, 4)), [finding])
    assert isinstance(result, Refusal)
    assert reason in result.reason
