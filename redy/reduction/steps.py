"""The criteria behind phase redundancy as steps of the pipeline."""

from __future__ import annotations

import time
from dataclasses import replace

from redy.bounds.linear import linear_bounds
from redy.questions.query import WORK
from redy.questions.situation import Engines
from redy.reduction.problem import Known, Problem
from redy.reduction.promise import Decision, Tolerance
from redy.redundancy.forward import find_forward
from redy.redundancy.relaxed import Facts, SetAnswer, find_relaxed
from redy.redundancy.result import Constant, find_constant, find_result

LEFT = 1e-3
"""The share of a tolerance that is left for rounding the folded weights."""


def forward_criterion(problem: Problem, known: Known) -> None:
    """Forward redundancy: outputs stay exactly equal (`redy.redundancy.forward`)."""
    answer = find_forward(facts_of(problem, known, "forward"))
    take(known, "forward", answer)


def decided_at_once(problem: Problem, known: Known) -> bool:
    """The cheap question before all others: linear bounds show one decision on the whole box, so no unit is needed."""
    options, promise = problem.options, problem.promise
    if not isinstance(promise, Decision) or "result" not in options.criteria or options.engine == "milp":
        return False
    facts = replace(facts_of(problem, known, "result"), budget=0)
    return _take_constant(known, find_constant(facts, promise.claim))


def result_criterion(problem: Problem, known: Known) -> None:
    """Result-preserving redundancy (`redy.redundancy.result`)."""
    facts = facts_of(problem, known, "result")
    assert isinstance(problem.promise, Decision)
    claim = problem.promise.claim
    if _take_constant(known, find_constant(facts, claim)):
        return
    answer = find_result(facts, claim)
    take(known, "result", answer, constant=False)


def _take_constant(known: Known, found: Constant | None) -> bool:
    if found is None:
        return False
    known.findings.extend(found.findings)
    known.undecided.clear()
    known.stats["result"] = {"elements": len(found.findings), "constant decision": True}
    known.winner = found.winner
    return True


def relaxed_criterion(problem: Problem, known: Known) -> None:
    """Relaxed redundancy within the tolerance (`redy.redundancy.relaxed`)."""
    facts = facts_of(problem, known, "relaxed")
    assert isinstance(problem.promise, Tolerance)
    allowed = problem.promise.allowed
    answer = find_relaxed(facts, (1 - LEFT) * allowed)
    take(known, "relaxed", answer, tolerance=allowed.tolist())


def facts_of(problem: Problem, known: Known, name: str) -> Facts:
    """What the criteria start from; the time that the step has."""
    bounds = known.bounds or linear_bounds(problem.network, problem.box, leave_unsupported=True)
    known.bounds = bounds
    limits = [] if problem.deadline is None else [problem.deadline]
    if name in problem.options.seconds:
        limits.append(time.monotonic() + problem.options.seconds[name])
    return Facts(
        problem.network,
        problem.box,
        bounds.intervals,
        tuple(known.findings),
        problem.points,
        budget=int(problem.work * WORK),
        deadline=min(limits) if limits else None,
        engines=Engines(problem.options.engine, problem.options.solver, problem.options.trust),
    )


def take(known: Known, name: str, answer: SetAnswer, **facts: object) -> None:
    """Add what a criterion proved, and what it did, to what is known."""
    done = {finding.unit for finding in answer.findings}
    known.findings.extend(answer.findings)
    known.undecided[:] = [unit for unit in known.undecided if unit not in done]
    known.stats[name] = {
        "elements": len(answer.findings),
        "queries": answer.queries,
        "witnesses": len(answer.witnesses),
        **facts,
    }
    if answer.note:
        known.notes.append(f"{name}: {answer.note}")
