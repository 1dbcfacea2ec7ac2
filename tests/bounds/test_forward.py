"""Forward mode holds in exact arithmetic, on every kind of node, and limits leave sound ranges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import exact_ranges
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_linear import _convolutional

from redy.bounds.forward import Forward, fits
from redy.bounds.interval import interval_bounds, node_range
from redy.bounds.linear import linear_bounds
from redy.bounds.relaxation import relax, relax_product
from redy.model import Activate, Box, Limits, Network, Product


@np.errstate(all="ignore")
def _forward(network: Network, box: Box):
    """Ranges of all values by interval arithmetic, and those that forward mode alone gives."""
    ranges = {network.input.name: (box.lower, box.upper)}
    forward, alone = Forward(network.input.name, box, network.nodes), {}
    for node in network.nodes:
        lines = ()
        if isinstance(node, Activate):
            lines = (relax(node.function, *ranges[node.source]),)
        elif isinstance(node, Product):
            lines = relax_product(ranges[node.left], ranges[node.right])
        found = node_range(node, ranges)
        nothing = np.full(node.shape, -np.inf), np.full(node.shape, np.inf)
        constant = not lines and not hasattr(node, "terms") and not hasattr(node, "index")
        alone[node.name] = forward.extend(node, found if constant else nothing, ranges, lines)
        ranges[node.name] = found
    return ranges, alone


@given(generators, functions, st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_exact_ranges_are_enclosed(rng, function, coarse, fixed):
    network = random_network(rng, (2, 3, 3, 2), function, coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    if fixed:
        box = Box(box.lower, np.array([box.upper[0], box.lower[1]]))
    truth = exact_ranges(network, box.lower, box.upper)
    _, alone = _forward(network, box)
    for node in network.activations:
        for (low, high), lower, upper in zip(truth[node.name], *alone[node.source], strict=True):
            assert lower == -np.inf or Fraction(float(lower)) <= low
            assert upper == np.inf or high <= Fraction(float(upper))


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150, 1e-300])
@given(generators)
@settings(max_examples=20, deadline=None)
def test_badly_scaled_networks(scale, rng):
    network = random_network(rng, (2, 4, 4, 1), functions.elements[0])
    lower = rng.normal(size=2) * scale
    box = Box(lower, lower + scale * rng.uniform(size=2))
    truth = exact_ranges(network, box.lower, box.upper)
    for node in network.activations:
        for (low, high), lower, upper in zip(truth[node.name], *_forward(network, box)[1][node.source], strict=True):
            assert lower == -np.inf or Fraction(float(lower)) <= low
            assert upper == np.inf or high <= Fraction(float(upper))


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_no_hostile_network_gets_a_wrong_proof(case):
    _, alone = _forward(case.network, case.box)
    for unit in case.phases():
        node = case.network.by_name[unit.node]
        assert node.function.stuck(*alone[node.source]).flat[unit.index] == -1


def test_every_kind_of_node_and_what_forward_mode_is_for():
    rng = np.random.default_rng(5)
    network = _convolutional(rng)
    lower = rng.uniform(-0.4, 0.4, (2, 6, 6))
    box = Box(lower, lower + 0.4 * (rng.random((2, 6, 6)) < 0.05))
    ranges, alone = _forward(network, box)
    for points in (box.sample(3000, rng), box.corners(500, rng)):
        for name, values in network.trace(points).items():
            for low, high in [ranges[name], *([alone[name]] if name in alone else [])]:
                assert (values >= low).all()
                assert (values <= high).all()
    assert np.subtract(*alone["c2"][::-1]).sum() < np.subtract(*ranges["c2"][::-1]).sum()


def test_many_inputs_have_no_forward_mode():
    network = random_network(np.random.default_rng(0), (300, 4, 2), functions.elements[0])
    assert not fits(network.nodes, Box(np.zeros(300), np.ones(300)))
    assert fits(network.nodes, Box(np.zeros(300), np.r_[np.ones(3), np.zeros(297)]))


@pytest.mark.parametrize("limits", [Limits(work=0), Limits(work=60_000), Limits(work=100_000), Limits(deadline=0.0)])
def test_what_limits_leave_out_keeps_sound_ranges(limits):
    rng = np.random.default_rng(2)
    network = random_network(rng, (80, 20, 20, 20, 3), functions.elements[0])
    box = Box(-0.1 * np.ones(80), 0.1 * np.ones(80))
    full, cheap = linear_bounds(network, box), interval_bounds(network, box)
    bounds, again = (linear_bounds(network, box, limits=limits) for _ in range(2))
    values = network.trace(np.concatenate([box.sample(500, rng), box.corners(500, rng)]))
    widths = []
    for node in network.activations:
        lower, upper = bounds.intervals[node.name]
        assert (values[node.source] >= lower).all()
        assert (values[node.source] <= upper).all()
        assert (lower >= cheap.intervals[node.name][0]).all()
        np.testing.assert_array_equal(lower, again.intervals[node.name][0])
        widths.append(float((upper - lower).sum() - np.subtract(*full.intervals[node.name][::-1]).sum()))
    assert widths[-1] > 0
    reached = [float((upper - lower).sum()) for lower, upper in bounds.intervals.values()]
    nothing = [float((upper - lower).sum()) for lower, upper in cheap.intervals.values()]
    assert (reached[-1] < nothing[-1]) == (0 < limits.work < 200_000)
