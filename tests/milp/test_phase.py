from __future__ import annotations

import numpy as np
import pytest
from drawing import functions, generators, random_box, random_network
from exact import exact_ranges
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.bounds.linear import linear_bounds
from redy.milp import phase
from redy.milp.outcome import Outcome
from redy.milp.phase import Settings, phases
from redy.model import Box, Proved, Refuted, Unit, Unknown
from redy.model.functions import relu


@given(generators, functions, st.booleans(), st.sampled_from(["auto", "highs", "scip"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_verdicts_agree_with_exact_ranges(rng, function, coarse, solver, trust):
    network = random_network(rng, (2, 4, 3, 1), function, coarse=coarse)
    box = random_box(rng, 2, coarse=coarse)
    truth = exact_ranges(network, box.lower, box.upper)
    found = phases(network, box, settings=Settings(solver=solver, trust=trust))
    for node in network.activations:
        for place, (low, high) in enumerate(truth[node.name]):
            element = found.elements[Unit(node.name, place)]
            lower, upper = float(low), float(high)
            breaks = np.append(np.append(-np.inf, node.function.breakpoints), np.inf)
            inside = [breaks[p] <= lower and upper <= breaks[p + 1] for p in range(len(breaks) - 1)]
            if isinstance(element.verdict, Proved):
                assert inside[element.piece]
                assert low >= element.lower - 1e-6
                assert high <= element.upper + 1e-6
            elif isinstance(element.verdict, Refuted):
                assert not any(inside)
            else:
                # Undecided only where the range ends at a breakpoint, within the slack.
                distance = min(abs(end - t) for end in (lower, upper) for t in node.function.breakpoints)
                assert distance <= 1e-5 * (1 + abs(lower) + abs(upper))


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
@pytest.mark.parametrize("solver", ["gurobi", "highs", "scip"])
def test_no_hostile_network_gets_a_wrong_proof_without_trust(case, solver):
    found = phases(case.network, case.box, settings=Settings(solver=solver))
    for unit, true_phases in case.phases().items():
        verdict = found.elements[unit].verdict
        if isinstance(verdict, Proved):
            assert verdict.proof.trusted, f"{unit} is in pieces {sorted(true_phases)}"


@pytest.mark.parametrize("solver", ["gurobi", "highs", "scip"])
def test_a_wrong_proof_of_a_solver_says_what_it_trusts_and_auto_would_not_count_it(solver):
    wrong = set()
    for case in HOSTILE:
        samples = np.array([[float(v) for v in case.points[0]]])
        trusting = Settings(solver=solver, trust=True, tree_limit=0)
        for settings_ in (trusting, Settings(solver=solver)):
            found = phases(case.network, case.box, samples=samples, settings=settings_)
            for unit in case.phases():
                verdict = found.elements[unit].verdict
                if isinstance(verdict, Proved):
                    wrong.add(case.name)
                    assert any(solver in name and "slack" in name for name in verdict.proof.trusted)
            assert settings_.trust or not found.bounds.trusted
    if solver == "highs":
        # HiGHS drops coefficients below 1e-9 and so proves what is not true.
        assert any("grown back" in name for name in wrong)


def test_samples_end_questions_before_a_solver_is_asked(monkeypatch):
    network = random_network(np.random.default_rng(0), (2, 4, 1), relu())
    box = Box(-3 * np.ones(2), 3 * np.ones(2))
    asked = []
    original = phase.solve

    def counting(program, *args, **kwargs):
        asked.append(program.is_linear)
        return original(program, *args, **kwargs)

    monkeypatch.setattr(phase, "solve", counting)
    found = phases(network, box)
    assert all(isinstance(element.verdict, Refuted) for element in found.elements.values())
    assert asked.count(False) == 0


def test_a_witness_of_a_solver_is_confirmed_and_returned():
    # Only a corner of the box activates the unit, and the one sample given is not there.
    network = random_network(np.random.default_rng(3), (2, 6, 6, 1), relu())
    box = Box(-np.ones(2), np.ones(2))
    found = phases(network, box, samples=box.center[None])
    refuted = {unit: e.verdict for unit, e in found.elements.items() if isinstance(e.verdict, Refuted)}
    assert len(found.witnesses) > 0
    for unit, verdict in refuted.items():
        assert box.contains(verdict.witness[None])[0]
        node = network.by_name[unit.node]
        values = network.trace(np.stack([box.center, verdict.witness]))[node.source][:, unit.index]
        assert found.elements[unit].piece == -1
        assert values.min() <= 0 < values.max() or len(found.witnesses) > 1


def test_lp_proofs_need_no_trust_and_milp_proofs_are_rederived():
    network = random_network(np.random.default_rng(0), (3, 14, 14, 14, 1), relu())
    box = Box(-0.3 * np.ones(3), 0.3 * np.ones(3))
    found = phases(network, box)
    methods = [e.verdict.proof.method for e in found.elements.values() if isinstance(e.verdict, Proved)]
    assert {"linear", "lp", "milp"} <= set(methods)
    for element in found.elements.values():
        if isinstance(element.verdict, Proved):
            assert not element.verdict.proof.trusted
    assert not found.bounds.trusted
    trusting = phases(network, box, settings=Settings(trust=True, tree_limit=0))
    assert trusting.bounds.trusted
    assert any("dual bound, slack" in name for name in trusting.bounds.trusted)
    for unit, element in trusting.elements.items():
        assert type(element.verdict) is type(found.elements[unit].verdict)


def test_better_bounds_than_linear_ones():
    network = random_network(np.random.default_rng(8), (2, 10, 10, 10, 1), relu())
    box = Box(-0.5 * np.ones(2), 0.5 * np.ones(2))
    linear = linear_bounds(network, box).intervals
    values = network.trace(box.sample(5000, np.random.default_rng(0)))
    for name, (lower, upper) in phases(network, box).bounds.intervals.items():
        assert (lower >= linear[name][0]).all()
        assert (upper <= linear[name][1]).all()
        z = values[network.by_name[name].source]
        assert (z >= lower).all()
        assert (z <= upper).all()


def test_no_time_leaves_everything_open_unknown():
    network = random_network(np.random.default_rng(8), (2, 10, 10, 10, 1), relu())
    box = Box(-0.5 * np.ones(2), 0.5 * np.ones(2))
    found = phases(network, box, settings=Settings(time_limit=0.0))
    assert found.questions == 0
    reasons = {e.verdict.reason for e in found.elements.values() if isinstance(e.verdict, Unknown)}
    assert reasons == {"time limit"}


@pytest.mark.parametrize(
    ("status", "reason"), [("limit", "time limit"), ("infeasible", "infeasible"), ("trouble", "numerical difficulties")]
)
def test_an_answer_that_is_no_answer_never_proves(monkeypatch, status, reason):
    def answer(_program, *_args, **_kwargs):
        return Outcome(status, -1e9, None, None, 0.0, "some solver 1.0")

    monkeypatch.setattr(phase, "solve", answer)
    network = random_network(np.random.default_rng(8), (2, 10, 10, 10, 1), relu())
    box = Box(-0.5 * np.ones(2), 0.5 * np.ones(2))
    before = linear_bounds(network, box)
    found = phases(network, box, settings=Settings(trust=True))
    for node in network.activations:
        open_ = np.flatnonzero(before.pieces(network)[node.name] < 0)
        for place in open_:
            assert not isinstance(found.elements[Unit(node.name, int(place))].verdict, Proved)
    assert any(reason in e.verdict.reason for e in found.elements.values() if isinstance(e.verdict, Unknown))
