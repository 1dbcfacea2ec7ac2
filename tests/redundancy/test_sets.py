from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawing import FUNCTIONS, generators, random_box, random_network
from exact import dense_network, exact_trace, grid
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.errors import InputError
from redy.model import Activate, Affine, Box, Dense, Finding, Line, Network, Port, Proof, Proved, Term, Unit
from redy.model.digest import network_digest
from redy.model.functions import relu
from redy.questions.phases import PhaseSettings
from redy.questions.seen import sample_points, seen_at
from redy.questions.simulate import effects, guess
from redy.reduction import reduce, replay
from redy.reduction.refit import smallest_largest
from redy.redundancy.forward import find_forward
from redy.redundancy.lines import line_error, minimax_line, spare_line, unit_function
from redy.redundancy.phase import find_phases
from redy.redundancy.relaxed import Facts, find_relaxed, met_ranges
from redy.rewrite import apply_findings

EXACT = 1e-9


def facts_of(network, box, *, phase=True):
    points = sample_points(box, 300, 32, 0)
    found = find_phases(network, box, seen_at(network, points), points, PhaseSettings(engine="branch"))
    return Facts(network, box, found.bounds.intervals, found.findings if phase else (), points)


@given(st.sampled_from(sorted(FUNCTIONS)), st.floats(-2, 1.9), st.floats(0.05, 2))
@settings(max_examples=150, deadline=None)
def test_the_minimax_line_has_no_better_neighbour(name, lower, width):
    function, upper = FUNCTIONS[name], lower + width
    line = minimax_line(function, lower, upper)
    x = np.linspace(lower, upper, 501)
    error = line_error(function, lower, upper, line)
    assert np.abs(function(x) - line.slope * x - line.intercept).max() <= error + 1e-15
    for slope in (-1e-2, 0, 1e-2):
        for shift in (-1e-2, 0, 1e-2):
            other = Line(line.slope + slope, line.intercept + shift)
            assert line_error(function, lower, upper, other) >= error - 1e-12


def test_a_line_with_the_slope_of_a_piece_is_taken_where_it_is_nearly_as_good():
    """On [-20, 1] a constant has error 1/2, the best line 10/21; on [-1, 1] they are 1/2 and 1/4."""
    one = unit_function(Activate("a", "z", relu(), (1,)), 0)
    assert spare_line(one, -20.0, 1.0) == Line(0.0, 0.5)
    assert spare_line(one, -1.0, 20.0) == Line(1.0, 0.5)
    assert spare_line(one, -1.0, 1.0) == minimax_line(one, -1.0, 1.0)


def test_lines_fit_the_range_that_ascent_finds_and_not_only_that_of_the_points():
    rng = np.random.default_rng(8)
    network, box = random_network(rng, (3, 8, 8, 2), relu()), random_box(rng, 3)
    facts = replace(facts_of(network, box), points=box.sample(3, rng))
    ranges = met_ranges(facts, facts.open_units())
    wide = seen_at(network, box.sample(20_000, rng))
    for unit, (low, high) in ranges.items():
        begin, end = (float(e[unit.index]) for e in facts.intervals[unit.node])
        assert begin - EXACT <= low <= high <= end + EXACT
    covered = [
        low <= wide[unit.node][0][unit.index] + 1e-3 and high >= wide[unit.node][1][unit.index] - 1e-3
        for unit, (low, high) in ranges.items()
    ]
    assert np.mean(covered) > 0.8


def test_the_line_of_a_relu_is_the_published_one():
    line = minimax_line(relu(), -1.0, 3.0)
    assert (line.slope, line.intercept) == (3 / 4, 3 / 8)
    assert line_error(relu(), -1.0, 3.0, line) == pytest.approx(3 / 8, rel=1e-12)


@given(generators, st.booleans(), st.floats(0.02, 1.0))
@settings(max_examples=25, deadline=None)
def test_relaxed_sets_stay_within_the_tolerance(rng, coarse, tolerance):
    network, box = random_network(rng, (2, 5, 4, 2), relu(), coarse=coarse), random_box(rng, 2, coarse=coarse)
    facts = facts_of(network, box)
    answer = find_relaxed(facts, np.full(2, tolerance))
    lined = apply_findings(network, (*facts.findings, *answer.findings))
    for point in grid(box.lower, box.upper, 6):
        ours, theirs = (exact_trace(net, point)[network.outputs[0].name] for net in (network, lined))
        assert all(float(abs(a - b)) <= tolerance for a, b in zip(ours, theirs, strict=True))


def test_a_generous_tolerance_removes_everything():
    rng = np.random.default_rng(0)
    network, box = random_network(rng, (2, 6, 6, 2), relu()), random_box(rng, 2)
    answer = find_relaxed(facts_of(network, box), np.full(2, 1e3))
    assert len(answer.findings) == len(facts_of(network, box).open_units()) > 0
    assert answer.queries == 1


@given(generators, st.booleans())
@settings(max_examples=60, deadline=None)
def test_forward_findings_change_no_output_at_all(rng, coarse):
    network, box = random_network(rng, (2, 5, 4, 2), relu(), coarse=coarse), random_box(rng, 2, coarse=coarse)
    facts = facts_of(network, box)
    answer = find_forward(facts)
    lined = apply_findings(network, (*facts.findings, *answer.findings))
    for point in grid(box.lower, box.upper, 6):
        assert exact_trace(network, point)[network.outputs[0].name] == exact_trace(lined, point)[lined.outputs[0].name]


def test_a_unit_that_matters_only_where_its_reader_sleeps_is_forward_redundant():
    # u = relu(x) is read by relu(u / 4 + relu(1/2 - x) - 5/8) only, which is active for x < -1/8 alone, where u is 0.
    first = (np.array([[1.0], [-1.0]]), np.array([0.0, 0.5]))
    second = (np.array([[0.25, 1.0]]), np.array([-0.625]))
    network = dense_network([first, second, (np.array([[1.0]]), np.zeros(1))], relu())
    box = Box([-1.0], [1.0])
    answer = find_forward(facts_of(network, box))
    assert [(f.unit.node, f.unit.index) for f in answer.findings] == [("y1", 0)]


def test_effects_of_the_last_layer_are_exact():
    rng = np.random.default_rng(1)
    network, box = random_network(rng, (2, 5, 4, 2), relu()), random_box(rng, 2)
    unit, line, points = Unit("y2", 1), Line(0.5, 0.25), box.sample(20, rng)
    lined = apply_findings(network, [Finding(unit, "relaxed", line, 0.0, Proved(Proof("", "")))])
    found = effects(network, points, {unit: line})[:, :, 0]
    assert np.allclose(found, lined.evaluate(points) - network.evaluate(points), atol=1e-12)


def test_guess_takes_everything_or_the_smallest_first():
    loads = np.array([[0.5, 0.2, 0.4]])
    assert guess(loads, lambda part: True, (1.0,), 3) == [0, 1, 2]
    assert guess(loads, lambda part: len(part) < 3, (1.0,), 3) == [1, 2]
    assert guess(loads, lambda part: len(part) < 2, (1.0,), 3) == [1]
    assert guess(loads, lambda part: False, (1.0,), 3) == []


@given(generators, st.sampled_from(["max", "min"]))
@settings(max_examples=15, deadline=None)
def test_decision_mode_keeps_every_clear_winner(rng, winner):
    network, box = random_network(rng, (2, 5, 4, 3), relu()), random_box(rng, 2)
    reduction = reduce(network, box, preserve="decision", winner=winner, samples=300, margin=1e-3)
    sign = 1.0 if winner == "max" else -1.0
    points = box.sample(3000, rng)
    before, after = sign * network.evaluate(points), sign * reduction.network.evaluate(points)
    rows = np.arange(len(points))
    best = before.argmax(axis=1)
    clear = before[rows, best][:, None] - before > 1e-3
    assert (np.where(clear, after, -np.inf).max(axis=1) <= after[rows, best] + EXACT).all()
    assert reduction.network.units <= network.units


@given(generators, st.floats(0.01, 0.5))
@settings(max_examples=15, deadline=None)
def test_tolerance_mode_bounds_the_written_network(rng, tolerance):
    network, box = random_network(rng, (2, 5, 4, 3), relu()), random_box(rng, 2)
    reduction = reduce(network, box, preserve="tolerance", tolerance=tolerance, samples=300)
    error = reduction.guarantee.error[network.outputs[0].name]
    points = box.sample(3000, rng)
    apart = np.abs(network.evaluate(points) - reduction.network.evaluate(points)).max(axis=0)
    assert (apart <= error + EXACT).all()
    assert (error <= tolerance).all()
    found, where = (
        values[network.outputs[0].name] for values in (reduction.guarantee.found, reduction.guarantee.points)
    )
    assert box.contains(where).all()
    apart = np.abs(network.evaluate(where) - reduction.network.evaluate(where)).diagonal()
    np.testing.assert_allclose(found, apart, atol=EXACT)
    assert (found <= error + EXACT).all()


def test_a_constant_decision_gives_a_constant_network():
    rng = np.random.default_rng(2)
    network = random_network(rng, (2, 6, 6, 3), relu())
    last = network.by_name[network.outputs[0].name]
    shifted = Affine(last.name, last.terms, last.bias + np.array([0.0, 1e3, 0.0]))
    network = Network(network.input, (*network.nodes[:-1], shifted), network.outputs)
    reduction = reduce(network, random_box(rng, 2), preserve="decision", samples=300)
    assert reduction.network.units == reduction.network.macs == 0
    assert reduction.network.evaluate(np.zeros((1, 2))).argmax() == 1
    # Linear bounds alone show it: no other step was asked.
    assert set(reduction.stats) == {"result"}
    error, points = reduction.guarantee.error[last.name], reduction.box.sample(3000, rng)
    apart = np.abs(network.evaluate(points) - reduction.network.evaluate(points)).max(axis=0)
    assert (apart <= error + EXACT).all()
    assert (error <= 2 * apart).all()
    assert "the largest output of the original stays the largest" in reduction.guarantee.statement


def test_with_many_inputs_one_linear_pass_bounds_the_difference_tightly():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        network, middle = random_network(rng, (20, 8, 8, 3), relu()), rng.normal(size=20)
        reduction = reduce(network, Box(middle - 0.02, middle + 0.02), samples=300)
        error, met = (
            values[network.outputs[0].name] for values in (reduction.guarantee.error, reduction.guarantee.found)
        )
        assert reduction.network.units < network.units
        assert (met <= error).all()
        assert error.max() < 10 * met.max()


def test_a_refit_makes_the_proved_error_smaller_or_is_not_taken():
    taken = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, box = random_network(rng, (2, 5, 4, 3), relu()), random_box(rng, 2)
        options = {"preserve": "tolerance", "tolerance": 0.5, "samples": 300}
        plain, fitted = reduce(network, box, **options), reduce(network, box, refit=True, **options)
        name = network.outputs[0].name
        points = box.sample(3000, rng)
        apart = np.abs(network.evaluate(points) - fitted.network.evaluate(points)).max(axis=0)
        assert (apart <= fitted.guarantee.error[name] + EXACT).all()
        assert (fitted.guarantee.error[name] <= 0.5).all()
        assert network_digest(replay(network, fitted)) == network_digest(fitted.network)
        smaller = fitted.guarantee.error[name].max() < plain.guarantee.error[name].max()
        assert smaller == bool(fitted.refit)
        taken += smaller
    assert taken > 0


def test_a_fit_for_the_largest_error_is_never_worse_and_finds_the_chebyshev_line():
    x = np.linspace(0, 1, 201)[:, None]
    columns, wanted = np.concatenate([x, np.ones_like(x)], axis=1), np.concatenate([x**2, 0 * x], axis=1)
    found = smallest_largest(columns, wanted)
    # The best line for x^2 on [0, 1] is x - 1/8, with error 1/8.
    assert np.abs(wanted[:, 0] - columns @ found[:, 0]).max() < 0.127
    assert found[:, 1].tolist() == [0, 0]


def test_relative_tolerances_name_their_reference():
    rng = np.random.default_rng(3)
    network, box = random_network(rng, (2, 5, 4, 3), relu()), random_box(rng, 2)
    reduction = reduce(network, box, preserve="tolerance", tolerance=0.05, relative_to="box", samples=300)
    assert "0.05 of the output's range met on the box" in reduction.guarantee.statement
    points = box.sample(3000, rng)
    values = network.evaluate(points)
    span = values.max(axis=0) - values.min(axis=0)
    assert (reduction.guarantee.error[network.outputs[0].name] <= 0.05 * span * 1.1).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"criteria": ("phase", "relaxed")}, "does not keep what"),
        ({"criteria": ("relaxed:0",), "preserve": "tolerance", "tolerance": 1.0}, "positive"),
        ({"criteria": ("relaxed:x",), "preserve": "tolerance", "tolerance": 1.0}, "not a number"),
        ({"relative_to": "box"}, "without a tolerance"),
        ({"refit": True}, "refit"),
        ({"preserve": "decision", "margin": -1.0}, "margin"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, text):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=text):
        reduce(random_network(rng, (2, 3, 2), relu()), random_box(rng, 2), **options)


def test_a_decision_needs_something_to_decide_between():
    node = Affine("z", (Term("x", Dense.of(np.ones((1, 2)))),), np.zeros(1))
    network = Network(Port("x", (2,)), (node,), (Port("z", (1,)),))
    with pytest.raises(InputError, match="decision"):
        reduce(network, Box([0.0, 0.0], [1.0, 1.0]), preserve="decision")
