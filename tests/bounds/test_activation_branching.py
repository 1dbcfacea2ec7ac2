"""Splits of ReLUs: sound in exact arithmetic whatever float32 found, and better than linear bounds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import generators, random_box, random_network
from exact import exact_ranges
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds import activation_branching, layers
from redy.bounds.activation_branching import branch
from redy.bounds.layers import Linearised, alike, layers_of
from redy.bounds.linear import linear_bounds
from redy.model import Activate, Affine, Box, Dense, Gather, Limits, Network, Port, Term, identity
from redy.model.convolution import Conv, Windows
from redy.model.functions import leaky_relu, relu

FEW = Limits(work=3_000_000)


@given(generators, st.booleans(), st.sampled_from([1.0, 1e-30, 1e30]))
@settings(max_examples=30, deadline=None)
def test_bounds_hold_and_decided_elements_are_right(rng, coarse, scale):
    network = random_network(rng, (2, 4, 4, 3), relu(), coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    box = Box(box.lower * scale, box.upper * scale)
    truth = exact_ranges(network, box.lower, box.upper)
    before = linear_bounds(network, box)
    found = branch(network, box, before, box.sample(20, rng), FEW)
    for name, (lower, upper) in found.bounds.intervals.items():
        assert (lower >= before.intervals[name][0]).all()
        assert (upper <= before.intervals[name][1]).all()
        for (low, high), below, above in zip(truth[name], lower, upper, strict=True):
            assert Fraction(float(below)) <= low
            assert high <= Fraction(float(above))


@pytest.mark.parametrize("make", ["dense", "convolutional"])
def test_nothing_that_points_reach_is_cut_off_and_more_is_proved(make):
    rng = np.random.default_rng(4)
    if make == "dense":
        network, box = random_network(rng, (20, 24, 24, 24, 3), relu()), Box(np.full(20, 0.2), np.full(20, 0.4))
    else:
        network, box = _convolutional(rng), Box(np.full((2, 8, 8), 0.24), np.full((2, 8, 8), 0.36))
    limits = Limits(work=4_000_000_000 if make == "dense" else 20_000_000_000)
    before = linear_bounds(network, box)
    points = np.concatenate([box.sample(300, rng), box.corners(300, rng)])
    found = branch(network, box, before, points, limits)
    again = branch(network, box, before, points, limits)
    assert found.parts > 50
    stuck = [sum(int((p >= 0).sum()) for p in b.pieces(network).values()) for b in (before, found.bounds)]
    assert stuck[1] > stuck[0]
    values = network.trace(np.concatenate([box.corners(4000, rng), box.sample(2000, rng), *found.witnesses[:, None]]))
    for node in network.activations:
        lower, upper = found.bounds.intervals[node.name]
        assert (values[node.source] >= lower).all()
        assert (values[node.source] <= upper).all()
        np.testing.assert_array_equal(lower, again.bounds.intervals[node.name][0])
        np.testing.assert_array_equal(upper, again.bounds.intervals[node.name][1])


@given(generators)
@settings(max_examples=10, deadline=None)
def test_whatever_the_search_finds_bounds_hold(rng):
    """Slopes, multipliers and splits that are nonsense may cost tightness, never soundness."""
    network = random_network(rng, (2, 5, 5, 3), relu())
    box = random_box(rng, 2)
    truth = exact_ranges(network, box.lower, box.upper)
    honest = Linearised.optimise

    def nonsense(self, places, *args, **kwargs):
        found = honest(self, places, *args, **kwargs)
        found.slopes[:] = rng.uniform(-2, 3, found.slopes.shape)
        found.multipliers[:] = rng.normal(size=found.slopes.shape) * 10.0 ** rng.integers(-3, 4)
        found.upper[:] = rng.normal(size=found.upper.shape) - 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Linearised, "optimise", nonsense)
        found = branch(network, box, linear_bounds(network, box), box.sample(20, rng), FEW)
    for name, (lower, upper) in found.bounds.intervals.items():
        for (low, high), below, above in zip(truth[name], lower, upper, strict=True):
            assert Fraction(float(below)) <= low
            assert high <= Fraction(float(above))


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_no_hostile_network_gets_a_wrong_proof(case):
    found = branch(case.network, case.box, linear_bounds(case.network, case.box), case.box.center[None], FEW)
    for unit in case.phases():
        assert found.bounds.pieces(case.network)[unit.node].flat[unit.index] == -1


def test_layers_are_the_network():
    rng = np.random.default_rng(0)
    for network in (_convolutional(rng), random_network(rng, (5, 6, 7, 3), relu())):
        points = rng.normal(size=(20, *network.input.shape))
        values = network.trace(points)
        found = layers_of(network)
        assert [layer.node.name for layer in found] == [node.name for node in network.activations]
        for layer, z in zip(found, layers.forward(found, points.reshape(20, -1).astype(np.float32)), strict=True):
            np.testing.assert_allclose(z, values[layer.node.source].reshape(20, -1), rtol=1e-3, atol=1e-3)


def test_elements_of_a_convolution_are_bounded_with_what_they_see():
    network = _convolutional(np.random.default_rng(0))
    first, second = layers_of(network)[:2]
    groups = alike(first, np.arange(first.bias.size))
    assert sorted(np.concatenate(groups).tolist()) == list(range(first.bias.size))
    assert len(groups) == 64
    assert len(alike(second, np.arange(second.bias.size))) == 64
    box = Box(np.full((2, 8, 8), -0.1), np.full((2, 8, 8), 0.1))
    bounds = linear_bounds(network, box)
    ranges = [bounds.intervals[node.name] for node in network.activations]
    whole, part = (Linearised(layers_of(network), 1, e, ranges, box) for e in (np.arange(192), np.array([0])))
    assert part.width < whole.width / 5
    assert part.work(100, 1) < whole.work(100, 1)
    one = np.ones(1, np.float32)
    np.testing.assert_allclose(
        part.optimise(np.array([0]), one, 0).upper, whole.optimise(np.array([0]), one, 0).upper, rtol=1e-4
    )


def test_other_activations_keep_the_bounds_they_have():
    rng = np.random.default_rng(0)
    network = random_network(rng, (3, 6, 6, 2), leaky_relu(0.1))
    box = Box(-np.ones(3), np.ones(3))
    before = linear_bounds(network, box)
    found = branch(network, box, before, box.sample(50, rng), FEW)
    assert found.parts == 0
    assert not found.complete
    for name, (lower, upper) in before.intervals.items():
        np.testing.assert_array_equal(found.bounds.intervals[name][0], lower)
        np.testing.assert_array_equal(found.bounds.intervals[name][1], upper)


@pytest.mark.parametrize("limits", [Limits(work=0), Limits(deadline=0.0)])
def test_no_budget_changes_nothing(limits):
    rng = np.random.default_rng(0)
    network = random_network(rng, (3, 6, 6, 2), relu())
    box = Box(-np.ones(3), np.ones(3))
    before = linear_bounds(network, box)
    found = branch(network, box, before, box.sample(5, rng), limits)
    assert found.parts == 0
    for name, (lower, upper) in before.intervals.items():
        np.testing.assert_array_equal(found.bounds.intervals[name][0], lower)
        np.testing.assert_array_equal(found.bounds.intervals[name][1], upper)


def test_networks_too_large_for_dense_layers_keep_their_bounds(monkeypatch):
    monkeypatch.setattr(layers, "MOST", 100)
    network = _convolutional(np.random.default_rng(0))
    box = Box(np.full((2, 8, 8), -0.1), np.full((2, 8, 8), 0.1))
    assert branch(network, box, linear_bounds(network, box), box.center[None]).parts == 0
    assert activation_branching.WORK > 0


def _convolutional(rng: np.random.Generator) -> Network:
    """Two padded convolutions with a residual sum, then dense layers."""
    windows = Windows((8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    first = Conv(rng.normal(size=(3, 2, 3, 3)) / 3, 2, windows)
    second = Conv(rng.normal(size=(3, 3, 3, 3)) / 3, 3, windows)
    nodes = (
        Affine("c1", (Term("x", first),), rng.normal(size=(3, 8, 8)) * 0.3),
        Activate("r1", "c1", relu(), (3, 8, 8)),
        Affine("c2", (Term("r1", second), Term("r1", identity((3, 8, 8)))), rng.normal(size=(3, 8, 8)) * 0.3),
        Activate("r2", "c2", relu(), (3, 8, 8)),
        Affine("f", (Term("r2", Gather(np.arange(192), (3, 8, 8))),), np.zeros(192)),
        Affine("z", (Term("f", Dense.of(rng.normal(size=(20, 192)) / 8)),), np.zeros(20)),
        Activate("r3", "z", relu(), (20,)),
        Affine("o", (Term("r3", Dense.of(rng.normal(size=(4, 20)))),), np.zeros(4)),
    )
    return Network(Port("x", (2, 8, 8)), nodes, (Port("o", (4,)),))
