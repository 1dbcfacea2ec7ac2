"""Phases by branching against exhaustive enumeration of activation patterns in rational arithmetic."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import dense_network, exact_ranges, exact_trace
from hostile import HOSTILE
from hypothesis import given, settings

from redy.condensed.phases import Phases, phases
from redy.model import Activate, Box, Network
from redy.model.functions import leaky_relu, relu
from redy.questions.phases import PhaseSettings
from redy.questions.seen import sample_points, seen_at
from redy.redundancy.phase import find_phases

BUDGET = 3_000_000


def stuck(node: Activate, found: Phases) -> np.ndarray:
    lower, upper = found.intervals[node.name]
    return node.function.broadcast_to(node.shape).stuck(lower, upper)


def check(network: Network, box: Box, found: Phases) -> None:
    """Bounds contain the exact ranges, points lie in them, and what is not proved really moves or is listed."""
    truth = exact_ranges(network, box.lower, box.upper)
    for node in network.activations:
        lower, upper = found.intervals[node.name]
        breaks = node.function.broadcast_to(node.shape).breakpoints
        for index, (low, high) in enumerate(truth[node.name]):
            assert Fraction(float(lower[index])) <= low
            assert high <= Fraction(float(upper[index]))
            if node.name in found.seen:
                first, last = (float(end[index]) for end in found.seen[node.name])
                assert not np.isfinite(first) or Fraction(first) >= low
                assert not np.isfinite(last) or Fraction(last) <= high
            moves = any(low < Fraction(float(t)) < high for t in breaks[:, index])
            if stuck(node, found)[index] < 0 and (node.name, index) not in found.undecided:
                assert moves
            if moves:
                assert stuck(node, found)[index] < 0


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_phases_of_random_networks(rng, function):
    network = random_network(rng, (2, 4, 3, 2), function)
    box = random_box(rng, 2)
    check(network, box, phases(network, box, budget=BUDGET))


@given(generators, functions)
@settings(max_examples=60, deadline=None)
def test_phases_where_bounds_are_exactly_zero(rng, function):
    network = random_network(rng, (2, 4, 3, 2), function, coarse=True)
    box = random_box(rng, 2, coarse=True)
    check(network, box, phases(network, box, budget=BUDGET))


def test_small_networks_are_decided_completely():
    rng = np.random.default_rng(0)
    for _ in range(20):
        network = random_network(rng, (2, 5, 5, 2), leaky_relu(0.1))
        found = phases(network, random_box(rng, 2), budget=30_000_000)
        assert found.undecided == []
        assert found.complete


def test_a_unit_that_only_touches_zero_is_never_said_to_move():
    """z2 = 0.1 relu(x) + 0.2 relu(x) + ... - c relu(x) >= 0: evaluated in float64 it has either sign."""
    weights = np.array([[0.1, 0.2, 0.3, 0.7]])
    exact = sum((Fraction(float(w)) for w in weights[0]), Fraction(0))
    total = np.nextafter(float(exact), -np.inf) if Fraction(float(exact)) > exact else float(exact)
    first = np.ones((5, 1)), np.zeros(5)
    network = dense_network(
        [first, (np.append(weights, [[-total]], axis=1), np.zeros(1)), (1.0, 0.0)], relu(), last_active=True
    )
    box = Box(np.array([-1.0]), np.array([1.0]))
    found = phases(network, box, budget=BUDGET)
    low, high = found.seen.get("y2", (np.array([np.inf]), np.array([-np.inf])))
    assert low[0] >= 0
    # The whole way ends without "a proof contradicts a point".
    points = sample_points(box, 2000, 16, seed=0)
    answer = find_phases(network, box, seen_at(network, points), points, PhaseSettings(engine="branch"))
    assert ("y2", 0) not in {(f.unit.node, f.unit.index) for f in answer.findings if f.line.slope == 0}
    assert high[0] <= 1e-15


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
@pytest.mark.parametrize("sampled", [False, True])
def test_hostile_networks_give_no_wrong_phase(case, sampled):
    with np.errstate(over="ignore", invalid="ignore"):
        seen = seen_at(case.network, case.box.sample(50, np.random.default_rng(0))) if sampled else None
        found = phases(case.network, case.box, seen=seen, budget=BUDGET)
        for unit, pieces in case.phases().items():
            node = case.network.by_name[unit.node]
            assert isinstance(node, Activate)
            assert len(pieces) > 1
            assert stuck(node, found)[unit.index] < 0


def test_two_runs_are_equal_and_limits_leave_sound_bounds():
    rng = np.random.default_rng(7)
    network = random_network(rng, (3, 12, 12, 12, 2), relu())
    box = Box(np.full(3, -1.0), np.full(3, 1.0))
    first, second = (phases(network, box, budget=BUDGET) for _ in range(2))
    assert first.undecided == second.undecided
    assert first.boxes == second.boxes
    values = network.trace(box.sample(5000, rng))
    for found in (first, phases(network, box, budget=1), phases(network, box, time_limit=0.0)):
        for node in network.activations:
            lower, upper = found.intervals[node.name]
            assert (values[node.source] >= lower).all()
            assert (values[node.source] <= upper).all()
            assert (lower <= first.intervals[node.name][0]).all()
            assert np.array_equal(first.intervals[node.name][0], second.intervals[node.name][0])
    assert not phases(network, box, budget=1).complete


def test_a_time_limit_is_kept():
    rng = np.random.default_rng(8)
    network = random_network(rng, (10, 60, 60, 60, 2), relu())
    box = Box(np.full(10, -0.1), np.full(10, 0.1))
    phases(network, box, budget=1)
    begin = time.monotonic()
    found = phases(network, box, budget=10**12, time_limit=0.5)
    assert time.monotonic() - begin < 20
    assert not found.complete
    assert found.undecided


def test_more_is_proved_than_by_linear_bounds():
    rng = np.random.default_rng(9)
    network = random_network(rng, (3, 15, 15, 15, 2), relu())
    box = Box(np.full(3, -0.3), np.full(3, 0.3))
    points = sample_points(box, 3000, 16, seed=0)
    seen = seen_at(network, points)
    counts = [len(find_phases(network, box, seen, points, PhaseSettings(way)).findings) for way in ("linear", "branch")]
    assert counts[1] > counts[0]


@pytest.mark.parametrize(("threshold", "piece"), [(0.5, -1), (1.0, -1), (1.5, 0)])
def test_a_bound_of_exactly_zero_is_stuck_or_open_but_never_seen_to_move(threshold, piece):
    """z2 = |x| - t on [-1, 1]: rounding forbids a proof where the largest value is exactly zero."""
    first = np.array([[1.0], [-1.0]]), np.zeros(2)
    network = dense_network([first, (np.ones((1, 2)), -threshold)], relu(), last_active=True)
    found = phases(network, Box(np.array([-1.0]), np.array([1.0])), budget=BUDGET)
    assert stuck(network.activations[1], found)[0] in {piece, 0 if threshold >= 1 else -1}
    assert (("y2", 0) in found.undecided) == (threshold == 1.0 and stuck(network.activations[1], found)[0] < 0)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_product_that_underflows_but_acts_on_huge_values_is_not_lost(shift):
    """1e200 * 1e-200 * 1e-125 * 1e130 = 1e5, but the product of the two small weights is zero in float64."""
    steps = [(1e200, 0.0), (1e-200, shift), (1e-125, shift), (1e130, -shift * 1e130 - 1.0), (1.0, 0.0)]
    network = dense_network(steps, relu(), last_active=True)
    box = Box(np.array([-1.0]), np.array([1.0]))
    values = [exact_trace(network, [Fraction(x)])["z4"][0] for x in (-1, 1)]
    found = phases(network, box, budget=BUDGET)
    if values[0] < 0 < values[1]:
        assert stuck(network.activations[3], found)[0] < 0
    check_ends(found, "y4", values)


def check_ends(found: Phases, name: str, values: list[Fraction]) -> None:
    lower, upper = (float(end[0]) for end in found.intervals[name])
    assert not np.isfinite(lower) or Fraction(lower) <= min(values)
    assert not np.isfinite(upper) or Fraction(upper) >= max(values)


def test_networks_with_many_inputs_branch_on_relus():
    rng = np.random.default_rng(11)
    network = random_network(rng, (20, 12, 12, 12, 2), relu())
    box = Box(np.full(20, -0.04), np.full(20, 0.04))
    points = sample_points(box, 2000, 16, seed=0)
    seen = seen_at(network, points)
    linear, auto = (find_phases(network, box, seen, points, PhaseSettings(way)) for way in ("linear", "auto"))
    assert "activation branching" in auto.stats
    assert len(auto.findings) > len(linear.findings)
    assert len(auto.undecided) < len(linear.undecided)
    assert not any(finding.verdict.proof.trusted for finding in auto.findings)
