from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import generators, random_box, random_network
from exact import exact_ranges
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.activation_branching import Budget, branch
from redy.bounds.linear import Relaxation, linear_bounds
from redy.bounds.slopes import optimise
from redy.model import Box
from redy.model.functions import leaky_relu, relu


@given(generators, st.booleans())
@settings(max_examples=60, deadline=None)
def test_bounds_hold_and_decided_elements_are_right(rng, coarse):
    network = random_network(rng, (2, 5, 4, 2), relu(), coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    truth = exact_ranges(network, box.lower, box.upper)
    start = linear_bounds(network, box)
    found = branch(network, box, start, box.sample(20, rng))
    for node in network.activations:
        lower, upper = found.bounds.intervals[node.name]
        assert (lower >= start.intervals[node.name][0]).all()
        assert (upper <= start.intervals[node.name][1]).all()
        for (low, high), least, most in zip(truth[node.name], lower, upper, strict=True):
            assert Fraction(float(least)) <= low
            assert high <= Fraction(float(most))


@given(generators)
@settings(max_examples=60, deadline=None)
def test_every_step_and_every_part_gives_a_sound_bound(rng):
    network = random_network(rng, (3, 8, 8, 4), relu())
    box = random_box(rng, 3)
    bounds = linear_bounds(network, box)
    relaxed = Relaxation(network, box, bounds, ["z3"], refine=False)
    forms = rng.normal(size=(6, 4))
    splits = {name: rng.integers(-1, 2, (6, 8)).astype(np.int8) for name in ("y1", "y2")}
    values = network.trace(box.sample(2000, rng))
    plain, better, parts = (optimise(relaxed, "z3", forms, *how) for how in ((0,), (8,), (8, splits)))
    assert (better.upper <= plain.upper).all()
    found = values["z3"] @ forms.T
    assert (found.max(axis=0) <= better.upper).all()
    for row in range(6):
        inside = np.ones(len(found), dtype=bool)
        for name, sides in splits.items():
            z = values[network.by_name[name].source]
            inside &= ((sides[row] == 0) | (sides[row] * z >= 0)).all(axis=1)
        assert (found[inside, row] <= parts.upper[row]).all()


def test_optimised_slopes_and_branching_prove_more():
    rng = np.random.default_rng(0)
    network = random_network(rng, (30, 20, 20, 20, 2), relu())
    center = rng.normal(size=30) * 0.3
    box = Box(center - 0.02, center + 0.02)
    start = linear_bounds(network, box)
    points = box.sample(100, rng)
    optimised = branch(network, box, start, points, Budget(parts=0))
    full = branch(network, box, start, points, Budget(parts=512))
    counts = [
        sum(int((p >= 0).sum()) for p in b.pieces(network).values()) for b in (start, optimised.bounds, full.bounds)
    ]
    assert counts[0] < counts[1] < counts[2]
    assert optimised.parts == 0 < full.parts
    assert full.complete
    # Undecided elements are refuted by points: those given and the witnesses found.
    values = network.trace(np.concatenate([points, full.witnesses]))
    assert box.contains(full.witnesses).all()
    for node in network.activations:
        z = values[node.source]
        open_ = full.bounds.pieces(network)[node.name] < 0
        assert ((z.min(axis=0) < 0) & (z.max(axis=0) > 0))[open_].all()


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_no_hostile_network_gets_a_wrong_proof(case):
    start = linear_bounds(case.network, case.box)
    samples = np.array([[float(v) for v in case.points[0]]])
    found = branch(case.network, case.box, start, samples, Budget(time_limit=10.0))
    for unit in case.phases():
        assert found.bounds.pieces(case.network)[unit.node].flat[unit.index] == -1


def test_other_activations_keep_the_bounds_they_have():
    network = random_network(np.random.default_rng(0), (3, 6, 6, 2), leaky_relu(0.1))
    box = Box(-np.ones(3), np.ones(3))
    start = linear_bounds(network, box)
    found = branch(network, box, start, box.center[None])
    for name, (lower, upper) in found.bounds.intervals.items():
        np.testing.assert_array_equal(lower, start.intervals[name][0])
        np.testing.assert_array_equal(upper, start.intervals[name][1])
    assert not found.complete


def test_no_time_changes_nothing():
    network = random_network(np.random.default_rng(0), (3, 6, 6, 2), relu())
    box = Box(-np.ones(3), np.ones(3))
    found = branch(network, box, linear_bounds(network, box), box.center[None], Budget(time_limit=0.0))
    assert found.parts == 0
    assert len(found.witnesses) == 0
