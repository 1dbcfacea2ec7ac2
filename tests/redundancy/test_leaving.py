"""Where units leave their pieces: what is proved holds at rational points, what is refuted breaks there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import dense_network, exact_trace, grid
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.linear import linear_bounds
from redy.model import Box, Line, Proved, Refuted, Unit
from redy.model.claims import SameWinner
from redy.model.functions import clip, relu
from redy.questions.leaving import ask_leaving, never_winning
from redy.questions.query import Query, ask, violation
from redy.redundancy.leaving import LeavingSearch
from redy.redundancy.lines import exact_intercept, unit_function
from redy.redundancy.relaxed import Facts, with_lines
from redy.redundancy.result import find_result

SIZES = (2, 4, 3, 3)
MARGIN = 1e-3
winners = st.sampled_from(["max", "min"])


def facts_of(network, box, rng):
    return Facts(network, box, linear_bounds(network, box).intervals, (), box.sample(300, rng), budget=20_000_000)


def drawn_pieces(network, rng, share):
    """Some units with one of their pieces each, where the line is exact."""
    pieces = {}
    for node in network.activations:
        for k in range(node.shape[0]):
            function = unit_function(node, k)
            piece = int(rng.integers(function.pieces))
            intercept = exact_intercept(function, piece)
            if rng.random() < share and float(intercept) == intercept:
                pieces[Unit(node.name, k)] = piece, Line(float(function.slopes[piece]), float(intercept))
    return pieces


def assert_kept(network, other, box, winner, count=7):
    """At rational points of the box every winner stays ahead of what it beats by more than the margin."""
    sign, name = (1 if winner == "max" else -1), network.outputs[0].name
    for point in grid(box.lower, box.upper, count):
        y, z = ([sign * v for v in exact_trace(net, point)[name]] for net in (network, other))
        for i in [i for i in range(len(y)) if y[i] == max(y)]:
            assert all(z[i] >= z[o] for o in range(len(y)) if float(y[i] - y[o]) > MARGIN)


@given(generators, functions, st.booleans(), winners, st.sampled_from([0.1, 0.3]))
@settings(max_examples=150, deadline=None)
def test_what_is_proved_holds_and_what_is_refuted_breaks_outside_a_piece(rng, function, coarse, winner, share):
    network, box = random_network(rng, SIZES, function, coarse=coarse), random_box(rng, 2, coarse=coarse)
    facts, chosen = facts_of(network, box, rng), drawn_pieces(network, rng, share)
    other = with_lines(facts, list(chosen), {unit: line for unit, (_, line) in chosen.items()})
    query = Query(network, other, box, SameWinner(winner, MARGIN), facts.intervals)
    left = ask_leaving(query, {unit: piece for unit, (piece, _) in chosen.items()}, frozenset(), budget=2_000_000)
    assert (left.proof is not None) == (not left.open and not left.refuted)
    if left.proof is not None:
        assert_kept(network, other, box, winner)
    for unit, point in left.refuted.items():
        assert violation(query, point[None])[0] > 0
        node = network.by_name[unit.node]
        z = network.trace(point[None])[node.source].ravel()[[unit.index]]
        assert int(unit_function(node, unit.index).piece_of(z)[0]) != chosen[unit][0]


@given(generators, functions, winners)
@settings(max_examples=60, deadline=None)
def test_an_output_that_is_proved_never_to_win_does_not(rng, function, winner):
    network, box = random_network(rng, SIZES, function), random_box(rng, 2)
    facts = facts_of(network, box, rng)
    query = Query(network, network, box, SameWinner(winner, MARGIN), facts.intervals)
    never = never_winning(query, [0, 1, 2], budget=2_000_000)
    values = network.evaluate(box.sample(2000, rng)) * (1.0 if winner == "max" else -1.0)
    assert never.isdisjoint(np.unique(values.argmax(axis=1)).tolist())


def crossing(wrong_side: float):
    """Outputs x and -x on [-1, 1]; a unit relu(y - 0.5) adds to the first one, `wrong_side` times."""
    hidden = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.0, -0.5])
    last = np.array([[1.0, -1.0, wrong_side], [-1.0, 1.0, 0.0]]), np.zeros(2)
    return dense_network([hidden, last], relu()), Box(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def test_a_unit_is_removed_only_where_it_turns_no_decision():
    for weight, expected in ((0.0, True), (0.5, False)):
        network, box = crossing(weight)
        facts = facts_of(network, box, np.random.default_rng(0))
        unit = Unit(network.activations[0].name, 2)
        claim = SameWinner("max", MARGIN, MARGIN / 2)
        other = with_lines(facts, [unit], {unit: Line(0.0, 0.0)})
        query = Query(network, other, box, claim, facts.intervals)
        left = ask_leaving(query, {unit: 0}, frozenset(), budget=2_000_000)
        assert (left.proof is not None) == expected
        assert isinstance(ask(query, budget=2_000_000), Proved if expected else Refuted)


@pytest.mark.parametrize(
    ("ends", "expected"),
    # Beyond an end by so little that the margin allows it; far beyond.
    [((-0.50005, 0.75005), True), ((-1.0, 0.75005), False), ((-0.50005, 1.0), False)],
)
def test_both_ends_of_a_piece_count(ends, expected):
    hidden = np.array([[0.25, 0.0], [0.0, 1.0]]), np.zeros(2)
    network = dense_network([hidden, (np.array([[4.0, 1.0], [-4.0, -1.0]]), np.zeros(2))], clip(-0.5, 0.75))
    box = Box(np.array([-1.0, ends[0]]), np.array([1.0, ends[1]]))
    facts = facts_of(network, box, np.random.default_rng(0))
    unit = Unit(network.activations[0].name, 1)
    other = with_lines(facts, [unit], {unit: Line(1.0, 0.0)})
    query = Query(network, other, box, SameWinner("max", MARGIN, MARGIN / 2), facts.intervals)
    left = ask_leaving(query, {unit: 1}, frozenset(), budget=2_000_000)
    assert (left.proof is not None) == expected


def test_without_work_nothing_is_proved():
    network, box = crossing(0.5)
    facts = facts_of(network, box, np.random.default_rng(0))
    claim = SameWinner("max", MARGIN, MARGIN / 2)
    unit = Unit(network.activations[0].name, 2)
    answer = LeavingSearch(
        Facts(network, box, facts.intervals, (), facts.points, budget=1), claim, {}, frozenset()
    ).run()
    assert answer.findings == ()
    pieces = {unit: (0, Line(0.0, 0.0))}
    late = Facts(network, box, facts.intervals, (), facts.points, deadline=-math.inf)
    answer = LeavingSearch(late, claim, pieces, frozenset()).run()
    assert answer.findings == ()
    assert answer.note == "time limit"


def test_sets_found_keep_the_decision_and_are_found_at_all():
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network, box = random_network(rng, (2, 8, 6, 3), relu()), random_box(rng, 2)
        facts = facts_of(network, box, rng)
        answer = find_result(facts, SameWinner("max", MARGIN, MARGIN / 2))
        lines = {finding.unit: finding.line for finding in answer.findings}
        assert_kept(network, with_lines(facts, list(lines), lines), box, "max", count=9)
        assert all(finding.kind == "result" for finding in answer.findings)
        found += len(lines)
    assert found > 12
