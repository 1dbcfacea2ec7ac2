from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawing import generators
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.errors import InputError
from redy.milp import gurobi, highs, scip, solver
from redy.milp.certify import certified_bound, sign_feasible
from redy.milp.outcome import SolverUnavailable
from redy.milp.program import Program, ProgramBuilder
from redy.milp.tree import closes, search

SOLVERS = [gurobi.solve, highs.solve, scip.solve]


@given(generators, st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_all_solvers_agree_on_small_programs(rng, binaries):
    program = random_program(rng, binaries)
    outcomes = [solve(program, 10.0) for solve in SOLVERS]
    for outcome in outcomes:
        assert outcome.status == "optimal"
        assert outcome.counts
        assert outcome.bound == pytest.approx(outcomes[0].bound, abs=1e-6)
        assert outcome.point is not None
        assert program.objective @ outcome.point + program.offset == pytest.approx(outcome.bound, abs=1e-6)
        rows = program.apply(outcome.point)
        assert (rows <= program.row_upper + 1e-6).all()
        assert (rows >= program.row_lower - 1e-6).all()
        assert (outcome.multipliers is None) == (binaries > 0)


@given(generators)
@settings(max_examples=60, deadline=None)
def test_certified_bounds_of_all_solvers_are_tight(rng):
    program = random_program(rng, 0)
    for solve in SOLVERS:
        outcome = solve(program, 10.0)
        assert outcome.multipliers is not None
        certified = certified_bound(program, outcome.multipliers)
        assert certified == pytest.approx(outcome.bound, abs=1e-7)


@given(generators, st.integers(0, 3), st.sampled_from([1.0, 1e-9, 1e12]))
@settings(max_examples=150, deadline=None)
def test_certified_bound_is_above_the_exact_bound_of_any_multipliers(rng, binaries, scale):
    program = random_program(rng, binaries)
    multipliers = rng.normal(size=program.rows) * scale
    exact = _exact_bound(program, sign_feasible(program, multipliers))
    found = Fraction(certified_bound(program, multipliers))
    assert found >= exact
    assert float(found - exact) <= 1e-10 * (1 + scale * 50)


def test_multipliers_on_infinite_ends_and_broken_ones_are_dropped():
    program = _small()
    kept = sign_feasible(program, np.array([1.0, -1.0, np.nan]))
    assert kept.tolist() == [1.0, 0.0, 0.0]
    assert certified_bound(program, np.full(3, np.inf)) == pytest.approx(6.0)
    assert certified_bound(program, np.zeros(2 + 1) + 1e308) == np.inf


def test_an_unbounded_variable_gives_no_bound():
    builder = ProgramBuilder()
    builder.variable(0.0, np.inf)
    builder.row(np.array([1.0]), {}, upper=1.0)
    program = builder.build().aimed_at(np.array([1.0]))
    assert certified_bound(program, np.zeros(1)) == np.inf


@pytest.mark.parametrize("solve", SOLVERS)
def test_infeasible_is_a_status_of_its_own_with_a_certificate(solve):
    builder = ProgramBuilder()
    for _ in range(3):
        builder.variable(0.0, 1.0)
    builder.row(np.ones(3), {}, lower=2.5)
    builder.row(np.array([0.0, 1.0, 1.0]), {}, upper=1.4)
    program = builder.build().aimed_at(np.array([1.0, 2.0, 3.0]))
    outcome = solve(program, 10.0)
    assert outcome.status == "infeasible"
    assert not outcome.counts
    assert outcome.multipliers is not None
    assert closes(program, outcome.multipliers, -1e9)
    assert not closes(program, -outcome.multipliers, -1e9)


@pytest.mark.parametrize("solve", SOLVERS)
def test_running_out_of_time_never_counts(solve):
    outcome = solve(_hard(), 0.02)
    assert outcome.status == "limit"
    assert not outcome.counts


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_linear_program_has_the_dual_bound_of_its_duals(solve):
    # HiGHS reports a MIP dual bound of 0 or infinity here; the true maximum is -1.
    builder = ProgramBuilder()
    builder.variable(-3.0, 5.0)
    builder.row(np.array([1.0]), {}, upper=-1.0)
    outcome = solve(builder.build().aimed_at(np.array([1.0])), 10.0)
    assert outcome.status == "optimal"
    assert outcome.bound == pytest.approx(-1.0)


def test_gurobi_stops_at_a_bound_and_both_at_a_point():
    program = _hard()
    assert gurobi.solve(program, 10.0, stop_bound=1e6).status == "stopped"
    for solve in SOLVERS:
        outcome = solve(program, 10.0, stop_value=1.0)
        assert outcome.status == "stopped"
        assert outcome.point is not None
        assert program.objective @ outcome.point >= 1.0


def test_beyond_the_bundled_licence_highs_answers(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise SolverUnavailable("gurobi: too large")

    monkeypatch.setattr(gurobi, "solve", refuse)
    assert solver.solve(_small(), 10.0, "auto").solver.startswith("highs")
    with pytest.raises(InputError, match="too large"):
        solver.solve(_small(), 10.0, "gurobi")


def test_large_programs_go_to_highs_where_the_licence_ends():
    builder = ProgramBuilder()
    for _ in range(2100):
        builder.variable(0.0, 1.0)
    builder.row(np.ones(2100), {}, upper=3.0)
    program = builder.build().aimed_at(np.ones(2100))
    outcome = solver.solve(program, 10.0)
    assert outcome.bound == pytest.approx(3.0)
    try:
        gurobi.solve(program, 10.0)
    except SolverUnavailable:
        assert outcome.solver.startswith("highs")


def test_gurobi_is_asked_first():
    name = solver.solve(_small(), 10.0).solver
    assert name.startswith("gurobi" if gurobi.available() else "highs")


@given(generators, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_closed_tree_is_right_and_every_leaf_can_be_checked(rng, binaries):
    program = random_program(rng, binaries)
    best = gurobi.solve(program, 10.0).bound
    tree = search(program, best + 1e-6, 10.0)
    assert tree.closed
    covered = Fraction(0)
    for leaf in tree.leaves:
        part = program.relaxed()
        for variable, value in leaf.fixed:
            part = part.fixed(variable, value)
        assert closes(part, leaf.multipliers, best + 1e-6)
        covered += Fraction(1, 2 ** len(leaf.fixed))
    assert covered == 1
    below = search(program, best - 1e-3, 10.0)
    assert not below.closed
    assert not search(program, best + 1e-6, 10.0, node_limit=0).closed


def test_solvers_give_the_same_answer_again():
    program = random_program(np.random.default_rng(7), 4)
    for solve in SOLVERS:
        first, second = solve(program, 10.0), solve(program, 10.0)
        assert first.bound == second.bound
        np.testing.assert_array_equal(first.point, second.point)


def random_program(rng: np.random.Generator, binaries: int) -> Program:
    """A feasible program: every row holds at a random point."""
    builder = ProgramBuilder()
    point = rng.uniform(-1, 1, 4)
    for value in point:
        builder.variable(value - rng.random(), value + rng.random())
    for _ in range(binaries):
        builder.variable(0.0, 1.0, binary=True)
    point = np.append(point, rng.integers(0, 2, binaries))
    for _ in range(6):
        form = np.where(rng.random(len(point)) < 0.3, 0.0, rng.normal(size=len(point)))
        ends = [form @ point - rng.random() * (rng.random() < 0.7), form @ point + rng.random() * (rng.random() < 0.7)]
        if rng.random() < 0.5:
            ends[0] = -np.inf
        elif rng.random() < 0.5:
            ends[1] = np.inf
        builder.row(form, {}, *ends)
    return builder.build().aimed_at(rng.normal(size=len(point)), float(rng.normal()))


def _exact_bound(program: Program, y: np.ndarray) -> Fraction:
    exact = [Fraction(float(v)) for v in y]
    reduced = [Fraction(float(c)) for c in program.objective]
    total = Fraction(program.offset)
    for row, column, value in zip(program.row_of, program.columns, program.values, strict=True):
        reduced[column] -= Fraction(float(value)) * exact[row]
    for v, low, high in zip(exact, program.row_lower, program.row_upper, strict=True):
        total += v * Fraction(float(high if v > 0 else low)) if v else 0
    for d, low, high in zip(reduced, program.lower, program.upper, strict=True):
        total += d * Fraction(float(high if d > 0 else low))
    return total


def _small() -> Program:
    builder = ProgramBuilder()
    for _ in range(3):
        builder.variable(0.0, 2.0)
    builder.row(np.array([1.0, 1.0, 1.0]), {}, upper=6.0)
    builder.row(np.array([1.0, 0.0, 0.0]), {}, upper=5.0)
    builder.row(np.array([0.0, 1.0, 0.0]), {}, lower=-1.0)
    return builder.build().aimed_at(np.ones(3))


def _hard() -> Program:
    """A knapsack-like program that no solver finishes in some hundredths of a second."""
    rng = np.random.default_rng(0)
    builder = ProgramBuilder()
    for _ in range(120):
        builder.variable(0.0, 1.0, binary=True)
    for _ in range(30):
        builder.row(rng.integers(10, 1000, 120).astype(float), {}, upper=20000.0)
    return builder.build().aimed_at(rng.integers(10, 1000, 120).astype(float))
