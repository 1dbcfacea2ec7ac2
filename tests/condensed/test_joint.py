from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import dense_network, exact_trace, grid
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.condensed.climb import climb
from redy.condensed.joint import bounded, join, nearest
from redy.condensed.maximise import largest
from redy.condensed.search import Rows
from redy.errors import InputError
from redy.model import Affine, Dense, Finding, Line, Network, Proof, Proved, Term, Unit
from redy.model.functions import relu
from redy.rewrite import apply_findings

SIZES = (2, 4, 3, 2)


def perturbed(network, rng, size):
    """The same network with other weights in every layer."""

    def moved(node):
        terms = tuple(
            Term(t.source, Dense.of(t.operator.matrix() + size * rng.normal(size=t.operator.matrix().shape)))
            for t in node.terms
        )
        return Affine(node.name, terms, node.bias + size * rng.normal(size=node.bias.shape))

    nodes = [moved(node) if isinstance(node, Affine) else node for node in network.nodes]
    return Network(network.input, tuple(nodes), network.outputs)


def lined(network, rng):
    """The same network with random lines in place of some units."""
    proof = Proved(Proof("drawn", "test"))
    findings = [
        Finding(Unit(node.name, k), "relaxed", Line(float(rng.normal()), float(rng.normal())), 0.0, proof)
        for node in network.activations
        for k in range(node.shape[0])
        if rng.random() < 0.3
    ]
    return apply_findings(network, findings)


def partners_of(rng, network, other):
    """Other networks to compare with: alike, with lines, and unrelated."""
    kind = rng.integers(0, 3)
    if kind == 0:
        return perturbed(network, rng, 10.0 ** -rng.integers(0, 9))
    return lined(network, rng) if kind == 1 else other


def apart(first, second, point):
    values = exact_trace(first, point), exact_trace(second, point)
    ours, theirs = (v[net.outputs[0].name] for v, net in zip(values, (first, second), strict=True))
    return [a - b for a, b in zip(ours, theirs, strict=True)]


@given(generators, functions, st.booleans())
@settings(max_examples=120, deadline=None)
def test_bounds_of_the_difference_hold_in_rational_arithmetic(rng, function, coarse):
    first = random_network(rng, SIZES, function, coarse=coarse)
    second = partners_of(rng, first, random_network(rng, SIZES, function, coarse=coarse))
    box = random_box(rng, 2, coarse=coarse)
    pairs = nearest(first, second, box.sample(16, rng)) if rng.random() < 0.5 else None
    joint = join(first, second, box, {}, pairs)
    low, high = bounded(joint.condensed, joint.apart)
    rows = Rows.of(joint.condensed, joint.apart)
    found = largest(rows, box.sample(16, rng), boxes=int(rng.choice([0, 200])), work=int(rng.choice([0, 10**7])))
    for point in grid(box.lower, box.upper, 4):
        for k, value in enumerate(apart(first, second, point)):
            assert Fraction(float(low[k])) <= value <= Fraction(float(high[k]))
            assert abs(value) <= Fraction(float(found.bound[k]))
    assert (found.found <= found.bound + rows.doubt[rows.variables :]).all()


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_rows_agree_with_both_networks_within_their_errors(rng, function):
    first = random_network(rng, SIZES, function)
    second = partners_of(rng, first, random_network(rng, SIZES, function))
    box = random_box(rng, 2)
    joint = join(first, second, box, {}, nearest(first, second, box.sample(16, rng)))
    points = box.sample(8, rng)
    rows = Rows.of(joint.condensed, joint.apart)
    values = rows.evaluate(points)[:, rows.variables :]
    doubt = Rows.of(joint.condensed, joint.apart).doubt[len(joint.condensed.variables) :]
    for point, row in zip(points, values, strict=True):
        truth = apart(first, second, [Fraction(float(x)) for x in point])
        assert all(abs(Fraction(float(v)) - t) <= Fraction(float(d)) for v, t, d in zip(row, truth, doubt, strict=True))


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_intervals_of_the_second_network_hold(rng, function):
    first = random_network(rng, SIZES, function)
    second = partners_of(rng, first, random_network(rng, SIZES, function))
    box = random_box(rng, 2)
    joint = join(first, second, box, {})
    for point in grid(box.lower, box.upper, 4):
        values = exact_trace(second, point)
        for node in second.activations:
            lower, upper = joint.intervals[node.name]
            for k, z in enumerate(values[node.source]):
                assert Fraction(float(lower[k])) <= z <= Fraction(float(upper[k]))


def test_a_copy_differs_by_rounding_only_and_costs_no_variables():
    rng = np.random.default_rng(1)
    network, box = random_network(rng, (3, 20, 20, 3), relu()), random_box(rng, 3)
    alone = join(network, dense_network([(np.zeros((3, 3)), np.zeros(3))], relu()), box, {})
    joint = join(network, network, box, {})
    assert len(joint.condensed.variables) == len(alone.condensed.variables) > 0
    low, high = bounded(joint.condensed, joint.apart)
    assert np.maximum(-low, high).max() < 1e-9


def test_difference_variables_are_tighter_than_two_networks_side_by_side():
    rng = np.random.default_rng(2)
    network, box = random_network(rng, (3, 12, 12, 3), relu()), random_box(rng, 3)
    second = perturbed(network, rng, 1e-6)
    unpaired = {node.name: np.full(node.shape[0], -1) for node in second.activations}
    paired, separate = (join(network, second, box, {}, pairs) for pairs in (None, unpaired))
    tight, loose = (max(np.abs(bounded(j.condensed, j.apart)).max(axis=0)) for j in (paired, separate))
    assert tight < 1e-3 * loose


def test_the_largest_difference_is_found_within_the_ratio():
    rng = np.random.default_rng(3)
    network, box = random_network(rng, (3, 12, 12, 3), relu()), random_box(rng, 3)
    second = lined(network, rng)
    joint = join(network, second, box, {})
    found = largest(Rows.of(joint.condensed, joint.apart), box.sample(100, rng), boxes=4_000)
    points = box.sample(20_000, rng)
    sampled = np.abs(network.evaluate(points) - second.evaluate(points)).max(axis=0)
    assert found.complete
    assert (found.bound <= 1.05 * found.found).all()
    assert (sampled <= found.found * (1 + 1e-9)).all()


def test_thresholds_alone_come_within_the_ratio_too():
    rng = np.random.default_rng(3)
    network, box = random_network(rng, (3, 12, 12, 3), relu()), random_box(rng, 3)
    second = lined(network, rng)
    rows = Rows.of((joint := join(network, second, box, {})).condensed, joint.apart)
    usual, alone = (largest(rows, box.sample(100, rng), boxes=boxes) for boxes in (4_000, 0))
    assert alone.complete
    assert (alone.bound <= 1.05 * alone.found).all()
    assert (usual.found <= alone.bound * (1 + 1e-9)).all()
    assert (alone.found <= usual.bound * (1 + 1e-9)).all()


def test_known_thresholds_are_proved_first_and_a_budget_that_ends_leaves_a_bound():
    rng = np.random.default_rng(5)
    network, box = random_network(rng, (3, 12, 12, 3), relu()), random_box(rng, 3)
    second = lined(network, rng)
    rows = Rows.of((joint := join(network, second, box, {})).condensed, joint.apart)
    exact = largest(rows, box.sample(100, rng))
    start = largest(rows, box.center.reshape(1, -1), boxes=0, work=0)
    hinted = largest(rows, box.sample(100, rng), boxes=0, work=600_000, known=1.5 * exact.found)
    assert (start.bound > 2 * exact.found).any()
    assert (hinted.bound <= 1.5 * exact.found).all()
    wrong = largest(rows, box.sample(100, rng), boxes=0, work=600_000, known=0.5 * exact.found)
    assert (wrong.bound >= exact.found * (1 - 1e-9)).all()


def test_equal_networks_do_not_differ():
    rng = np.random.default_rng(4)
    network, box = random_network(rng, (3, 8, 8, 3), relu()), random_box(rng, 3)
    rows = Rows.of((joint := join(network, network, box, {})).condensed, joint.apart)
    found = largest(rows, box.sample(100, rng))
    assert found.complete
    assert (found.bound < 1e-9).all()


def test_networks_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    box = random_box(rng, 2)
    with pytest.raises(InputError, match="outputs of sizes"):
        join(random_network(rng, (2, 3, 2), relu()), random_network(rng, (2, 3, 3), relu()), box, {})
    with pytest.raises(InputError, match="inputs of shape"):
        join(random_network(rng, (2, 3, 2), relu()), random_network(rng, (3, 3, 2), relu()), box, {})


def test_climbing_follows_a_ridge_that_no_step_along_an_input_goes_up():
    """On x = y the function grows along the diagonal only."""
    lower, upper = np.zeros(2), np.ones(2)
    top = climb(lambda x: x.sum(axis=1) - 3 * np.abs(x[:, 0] - x[:, 1]), lower, upper, np.zeros(2))
    assert top.sum() > 1.9


def test_climbing_reaches_the_corner_of_a_linear_function():
    lower, upper = np.array([-1.0, 0.0]), np.array([1.0, 4.0])
    top = climb(lambda x: x @ np.array([1.0, -2.0]), lower, upper, np.array([0.0, 2.0]))
    assert top.tolist() == [1.0, 0.0]
