from __future__ import annotations

import numpy as np
import pytest
from drawing import generators, random_box, random_network
from exact import exact_trace, grid
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.errors import InputError
from redy.model import Finding, Line, Proof, Proved, Refuted, Unit, Unknown
from redy.model.claims import SameWinner, Within
from redy.model.functions import leaky_relu, relu
from redy.questions.by_milp import ask_milp
from redy.questions.query import Query, ask, broken, violation
from redy.rewrite import apply_findings

SIZES = (2, 4, 3, 3)
winners = st.sampled_from(["max", "min"])
activations = st.sampled_from([relu(), leaky_relu(0.125)])


def with_lines(network, rng, share):
    proof = Proved(Proof("drawn", "test"))
    findings = [
        Finding(Unit(node.name, k), "relaxed", Line(float(rng.choice([0.0, 0.5, 1.0])), 0.25 * share), 0.0, proof)
        for node in network.activations
        for k in range(node.shape[0])
        if rng.random() < share
    ]
    return apply_findings(network, findings)


def drawn(rng, function, share, coarse):
    network = random_network(rng, SIZES, function, coarse=coarse)
    return network, with_lines(network, rng, share), random_box(rng, 2, coarse=coarse)


def output_values(network, point):
    return exact_trace(network, point)[network.outputs[0].name]


@given(generators, activations, st.booleans(), st.floats(0.01, 3.0))
@settings(max_examples=80, deadline=None)
def test_within_is_right_against_rational_points(rng, function, coarse, tolerance):
    network, other, box = drawn(rng, function, 0.3, coarse)
    query = Query(network, other, box, Within(np.full(3, tolerance)))
    verdict = ask(query, budget=2_000_000)
    worst = max(
        abs(a - b)
        for point in grid(box.lower, box.upper, 5)
        for a, b in zip(output_values(network, point), output_values(other, point), strict=True)
    )
    if isinstance(verdict, Proved):
        assert float(worst) <= tolerance * (1 + 1e-12)
    if isinstance(verdict, Refuted):
        assert box.contains(verdict.witness[None])[0]
        assert violation(query, verdict.witness[None])[0] > 0


@given(generators, activations, st.booleans(), winners)
@settings(max_examples=80, deadline=None)
def test_the_winner_is_kept_where_that_is_proved(rng, function, coarse, winner):
    network, other, box = drawn(rng, function, 0.2, coarse)
    claim = SameWinner(winner, 1e-3)
    query = Query(network, other, box, claim)
    verdict = ask(query, budget=2_000_000)
    if isinstance(verdict, Refuted):
        assert violation(query, verdict.witness[None])[0] > 0
    if not isinstance(verdict, Proved):
        return
    sign = 1 if winner == "max" else -1
    for point in grid(box.lower, box.upper, 7):
        y = [sign * v for v in output_values(network, point)]
        z = [sign * v for v in output_values(other, point)]
        for i in [i for i in range(3) if y[i] == max(y)]:
            assert all(z[i] >= z[o] for o in range(3) if float(y[i] - y[o]) > claim.margin)


@given(generators, activations, st.booleans(), winners, st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_engine_and_the_solver_agree(rng, function, coarse, winner, decision):
    network, other, box = drawn(rng, function, 0.2, coarse)
    claim = SameWinner(winner, 1e-2) if decision else Within(np.full(3, 0.4))
    query = Query(network, other, box, claim)
    engine, solver = ask(query, budget=20_000_000), ask_milp(query, time_limit=20.0, trust=True)
    assert {type(engine), type(solver)} != {Proved, Refuted}


def test_the_engine_and_the_solver_both_decide_clear_cases():
    rng = np.random.default_rng(5)
    network, box = random_network(rng, SIZES, relu()), random_box(rng, 2)
    other = with_lines(network, rng, 0.4)
    points = box.sample(2000, rng)
    worst = np.abs(network.evaluate(points) - other.evaluate(points)).max(axis=0)
    for factor, expected in ((1.5, Proved), (0.7, Refuted)):
        query = Query(network, other, box, Within(factor * worst))
        assert isinstance(ask(query), expected)
        assert isinstance(ask_milp(query, time_limit=30.0), expected)


def test_a_budget_that_ends_is_unknown():
    rng = np.random.default_rng(6)
    network = random_network(rng, (3, 30, 30, 3), relu())
    other, box = with_lines(network, rng, 0.3), random_box(rng, 3)
    points = box.sample(2000, rng)
    worst = np.abs(network.evaluate(points) - other.evaluate(points)).max(axis=0)
    assert isinstance(ask(Query(network, other, box, Within(1.5 * worst)), budget=1), Unknown)


def test_exact_ties_belong_to_anyone_and_wider_leads_do_not():
    y = np.array([[1.0, 1.0, 0.0], [1.0, 0.9999, 0.0], [1.0, 0.9, 0.0]])
    claim = SameWinner("max", 1e-3)
    swapped = y[:, [1, 0, 2]]
    assert (broken(claim, y, swapped) > 0).tolist() == [False, False, True]
    assert (broken(claim, y, y[:, [2, 1, 0]]) > 0).tolist() == [True, True, True]


def test_a_margin_must_be_positive():
    with pytest.raises(InputError, match="margin"):
        SameWinner("max", 0.0)


def test_at_a_tie_of_the_original_every_tied_winner_counts():
    y, z = np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, -1.0, 0.0]])
    assert broken(SameWinner("max", 0.5), y, z) == [1.0]
    assert broken(SameWinner("max", 0.5), y[:, [1, 0, 2]], z[:, [1, 0, 2]]) == [1.0]
    assert broken(SameWinner("min", 0.5), -y, -z) == [1.0]
    assert broken(SameWinner("max", 0.5), y, np.array([[1.0, 0.5, 0.0]])) < 0
