"""The search over sub-boxes: clauses, witnesses, budgets, its tree."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from drawing import generators, random_box, random_network
from exact import exact_trace
from hypothesis import given, settings

from redy.bounds.linear import linear_bounds
from redy.condensed.form import condense
from redy.condensed.search import LOWER, UPPER, Clause, Found, Rows, Search
from redy.model import Array, Box, Network
from redy.model.functions import relu

CAP, BUDGET = 300_000, 3_000_000


def output_rows(network: Network, box: Box) -> Rows:
    walk = condense(network, box, linear_bounds(network, box).intervals)
    return Rows.of(walk.condensed, walk.forms[network.outputs[0].name])


def nearly_positive_rows(seed: int) -> tuple[Rows, Box]:
    """Two rows that stay a little above zero on their box, and one that does not; proofs need hundreds of sub-boxes."""
    rng = np.random.default_rng(seed)
    box = Box(np.full(3, -1.0), np.full(3, 1.0))
    network = random_network(rng, (3, 10, 10, 3), relu())
    walk = condense(network, box, linear_bounds(network, box).intervals)
    extra = walk.forms[network.outputs[0].name]
    values = network.evaluate(box.sample(20_000, rng))
    spread = values.max(axis=0) - values.min(axis=0)
    extra.b = extra.b - values.min(axis=0) + np.array([0.1, 0.1, -0.1]) * spread
    return Rows.of(walk.condensed, extra), box


def pair_clauses(rows: Rows) -> list[Clause]:
    """Clauses with one and with two literals on the extra rows."""
    literals = [(row, side) for row in range(rows.variables, rows.count) for side in (LOWER, UPPER)]
    single = [Clause((literal,)) for literal in literals]
    return single + [Clause(pair) for pair in itertools.combinations(literals, 2) if pair[0][0] != pair[1][0]]


def holds(network: Network, rows: Rows, clause: Clause, x: Array) -> bool:
    """The clause at one point, in rational arithmetic."""
    y = exact_trace(network, [Fraction(float(v)) for v in x])[network.outputs[0].name]
    return any(
        y[row - rows.variables] >= 0 if side == LOWER else y[row - rows.variables] <= 0 for row, side in clause.literals
    )


def search(rows: Rows, clauses: list[Clause], **limits: object) -> Found:
    return Search(rows, clauses, **{"cap": CAP, "budget": BUDGET, **limits}).run()  # type: ignore[arg-type]


@given(generators)
@settings(max_examples=15, deadline=None)
def test_proved_clauses_hold_and_witnesses_violate(rng):
    network = random_network(rng, (2, 5, 4, 3), relu(), coarse=bool(rng.integers(2)))
    box = random_box(rng, 2, coarse=True)
    rows = output_rows(network, box)
    clauses = pair_clauses(rows)
    found = search(rows, clauses)
    assert sorted([*found.proved, *found.refuted, *found.open]) == list(range(len(clauses)))
    for c, point in found.refuted.items():
        assert box.contains(point[None])[0]
        assert not holds(network, rows, clauses[c], point)
    points = np.concatenate([box.sample(20, rng), box.corners(4, rng)])
    for c in found.proved:
        assert all(holds(network, rows, clauses[c], point) for point in points)


@given(generators)
@settings(max_examples=25, deadline=None)
def test_ranges_of_variables_contain_and_are_reached(rng):
    network = random_network(rng, (2, 5, 4, 2), relu())
    box = random_box(rng, 2)
    rows = output_rows(network, box)
    found = search(rows, pair_clauses(rows), cover=4)
    values = rows.evaluate(box.sample(300, rng))
    assert (values[:, : rows.variables].min(axis=0, initial=np.inf) + rows.doubt[: rows.variables] >= found.lower).all()
    assert (
        values[:, : rows.variables].max(axis=0, initial=-np.inf) - rows.doubt[: rows.variables] <= found.upper
    ).all()
    reached = np.isfinite(found.row_range[0, : rows.variables])
    assert (found.row_range[0, : rows.variables] >= found.lower)[reached].all()
    assert (found.row_range[1, : rows.variables] <= found.upper)[reached].all()


def test_a_clause_of_two_literals_is_proved_where_neither_holds_alone():
    rng = np.random.default_rng(0)
    box = Box(np.full(2, -1.0), np.full(2, 1.0))
    for _ in range(50):
        network = random_network(rng, (2, 6, 6, 2), relu())
        rows = output_rows(network, box)
        first, second = rows.variables, rows.variables + 1
        alone = search(rows, [Clause(((first, LOWER),)), Clause(((second, LOWER),))])
        both = search(rows, [Clause(((first, LOWER), (second, LOWER)))])
        if both.proved and len(alone.refuted) == 2:
            return
    pytest.fail("no network of 50 shows it")


def test_runs_are_equal_and_the_order_of_clauses_does_not_change_verdicts():
    rows, _ = nearly_positive_rows(1)
    clauses = pair_clauses(rows)
    first, second = search(rows, clauses), search(rows, clauses)
    backwards = search(rows, clauses[::-1])
    assert (first.proved, list(first.open), first.boxes) == (second.proved, list(second.open), second.boxes)
    assert np.array_equal(first.tree, second.tree)
    assert not first.open
    assert sorted(len(clauses) - 1 - c for c in backwards.proved) == first.proved


@pytest.mark.parametrize("limits", [{"budget": 1}, {"budget": 20_000}, {"cap": 1}, {"deadline": 0.0}])
def test_limits_leave_clauses_open_and_bounds_sound(limits):
    rng = np.random.default_rng(2)
    box = Box(np.full(3, -1.0), np.full(3, 1.0))
    network = random_network(rng, (3, 10, 10, 3), relu())
    rows = output_rows(network, box)
    clauses = pair_clauses(rows)
    full, found = search(rows, clauses), search(rows, clauses, **limits)
    assert found.open
    assert set(found.proved) <= set(full.proved)
    assert set(found.refuted) <= set(full.refuted)
    values = rows.evaluate(box.sample(2000, rng))[:, : rows.variables]
    assert (values.min(axis=0) >= found.lower).all()
    assert (values.max(axis=0) <= found.upper).all()


def test_a_deadline_is_kept():
    rng = np.random.default_rng(3)
    box = Box(np.full(6, -1.0), np.full(6, 1.0))
    rows = output_rows(random_network(rng, (6, 30, 30, 3), relu()), box)
    clauses = pair_clauses(rows)
    search(rows, clauses, budget=1)
    begin = time.monotonic()
    search(rows, clauses, cap=10**12, budget=10**12, deadline=begin + 0.2)
    assert time.monotonic() - begin < 10


def walk(rows: Rows, tree: Array, clauses: list[Clause]) -> tuple[list[float], list[list[bool]]]:
    """The leaves of a tree of cuts in pre-order, lower halves first: their volumes, and which clauses are closed there.

    Every sub-box is bounded from its parent's bounds, as the search does; a clause closed in a sub-box stays closed.
    """
    volumes: list[float] = []
    shut: list[list[bool]] = []
    want = np.zeros((1, rows.count), dtype=np.int8)
    want[:, rows.variables :] = 3
    stack = [(rows.lower, rows.upper, rows.zlo, rows.zhi, [False] * len(clauses))]
    for axis in tree:
        lo, hi, zlo, zhi, before = stack.pop()
        zlo, zhi = zlo.copy(), zhi.copy()
        low, high, _, _ = rows.bound(lo, hi, zlo, zhi, want)
        ends = {LOWER: low[0], UPPER: -high[0]}
        closed = [
            was or any(ends[side][row - rows.variables] >= 0 for row, side in clause.literals)
            for was, clause in zip(before, clauses, strict=True)
        ]
        if axis < 0:
            volumes.append(float(np.prod(hi - lo)))
            shut.append(closed)
            continue
        middle = lo[0, axis] + (hi[0, axis] - lo[0, axis]) / 2
        left, right = hi.copy(), lo.copy()
        left[0, axis] = right[0, axis] = middle
        stack += [(right, hi, zlo, zhi, closed), (lo, left, zlo, zhi, closed)]
    assert not stack
    return volumes, shut


def test_the_tree_proves_again():
    """Walking it without folding closes every proved clause in every leaf."""
    rows, _ = nearly_positive_rows(4)
    clauses = pair_clauses(rows)
    found = search(rows, clauses)
    volumes, shut = walk(rows, found.tree, clauses)
    assert len(volumes) > 10
    assert sum(volumes) == pytest.approx(8.0)
    assert found.proved
    assert all(closed[c] for closed in shut for c in found.proved)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e308])
def test_nothing_is_proved_or_refuted_by_numbers_that_overflow(value):
    at = np.array([-1.0]), np.array([1.0]), np.array([-1.0]), np.array([1.0])
    arrays = np.array([[1.0], [value]]), np.array([0.0, -value]), np.array([[0.0], [value]]), np.zeros(2)
    found = search(Rows(arrays, np.array([-1]), at), [Clause(((1, LOWER),)), Clause(((1, UPPER),))], cap=1000)
    if np.isfinite(value):
        # 1e308 (x - 1 + relu(x)) overflows in sums of magnitudes only; it is negative at -1 and positive at 1.
        assert not found.proved
    else:
        assert list(found.open) == [0, 1]


def test_an_input_whose_coefficient_vanishes_is_blamed_for_the_gaps_it_causes():
    """Below -|x_0| + 0.2 x_1 the relaxations leave no x_0; its share in the smear comes from their gaps alone."""
    C, M = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.2]]), np.zeros((3, 2))
    M[2] = -1.0
    sides = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    rows = Rows((C, np.zeros(3), M, np.zeros(3)), np.array([-1, -1]), (*sides, *sides))
    want = np.array([[0, 0, 1]], dtype=np.int8)
    low, _, smear, _ = rows.bound(rows.lower, rows.upper, rows.zlo.copy(), rows.zhi.copy(), want)
    assert low[0, 0] == pytest.approx(-1.2)
    assert smear[0, 0] > smear[0, 1] > 0


def test_fitted_slopes_prove_what_the_fixed_choice_cannot():
    """min over [-1, 1] of relu(x) - 0.5 x is 0, which the lower slope 0.5 shows and neither 0 nor 1 does."""
    arrays = np.array([[1.0], [-0.5]]), np.array([0.0, 1e-3]), np.array([[0.0], [1.0]]), np.zeros(2)
    at = np.array([-1.0]), np.array([1.0]), np.array([-1.0]), np.array([1.0])
    rows = Rows(arrays, np.array([-1]), at)
    low, _, _, _ = rows.bound(
        rows.lower, rows.upper, rows.zlo.copy(), rows.zhi.copy(), np.array([[0, 1]], dtype=np.int8)
    )
    assert -0.15 < low[0, 0] <= 1e-3
