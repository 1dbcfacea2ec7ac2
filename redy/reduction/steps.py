"""The criteria behind phase redundancy as steps of the pipeline."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from redy.bounds.linear import linear_bounds
from redy.errors import InputError
from redy.model import Array, Box, Network
from redy.model.claims import SameWinner
from redy.questions.query import WORK, outputs
from redy.questions.seen import sample_points
from redy.questions.situation import Engines
from redy.reduction.problem import Known, Problem
from redy.redundancy.forward import find_forward
from redy.redundancy.relaxed import Facts, SetAnswer, find_relaxed
from redy.redundancy.result import Constant, find_constant, find_result

MARGIN = 1e-5
"""Outputs closer than this share of the largest output are tied, by default."""
LEFT = 1e-3
"""The share of a tolerance that is left for rounding the folded weights."""
REFERENCE_POINTS = 20_000


def forward_criterion(problem: Problem, known: Known) -> None:
    """Forward redundancy: outputs stay exactly equal (`redy.redundancy.forward`)."""
    answer = find_forward(_facts(problem, known, "forward"))
    _take(known, "forward", answer)


def decided_at_once(problem: Problem, known: Known) -> bool:
    """The cheap question before all others: linear bounds show one decision on the whole box, so no unit is needed."""
    options = problem.options
    if options.preserve != "decision" or "result" not in options.criteria or options.engine == "milp":
        return False
    facts = replace(_facts(problem, known, "result"), budget=0)
    return _take_constant(known, find_constant(facts, decision_claim(problem)))


def result_criterion(problem: Problem, known: Known) -> None:
    """Result-preserving redundancy (`redy.redundancy.result`)."""
    facts = _facts(problem, known, "result")
    claim = decision_claim(problem)
    if _take_constant(known, find_constant(facts, claim)):
        return
    answer = find_result(facts, claim)
    _take(known, "result", answer, constant=False)


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
    facts = _facts(problem, known, "relaxed")
    allowed = tolerances(problem)
    answer = find_relaxed(facts, (1 - LEFT) * allowed)
    _take(known, "relaxed", answer, tolerance=allowed.tolist())


def decision_claim(problem: Problem) -> SameWinner:
    """What "the decision" means for the problem.

    Raises:
        InputError: the network has several outputs, or fewer than two elements to decide between.
    """
    network, options = problem.network, problem.options
    if len(network.outputs) != 1 or math.prod(network.outputs[0].shape) < 2:
        raise InputError("a decision is between the elements of one output; the network has none such")
    margin = options.margin
    if margin is None:
        margin = MARGIN * max(float(np.abs(outputs(network, problem.points)).max(initial=0.0)), 1e-30)
    return SameWinner(options.winner, margin, margin / 2)


def tolerances(problem: Problem) -> Array:
    """The tolerance of every output element, flattened: absolute, or a share of its range."""
    options = problem.options
    assert options.tolerance is not None
    if options.relative_to is None:
        return np.full(sum(math.prod(port.shape) for port in problem.network.outputs), options.tolerance)
    box = problem.box if options.relative_to == "box" else options.relative_to
    return options.tolerance * output_range(problem.network, box, options.seed)


def output_range(network: Network, box: Box, seed: int) -> Array:
    """The range of every output element met at points of a box: at most the real range, so never a laxer tolerance."""
    count = min(REFERENCE_POINTS, max(200, 2_000_000_000 // max(1, network.macs)))
    found = outputs(network, sample_points(box, count, 1024, seed))
    return np.asarray(found.max(axis=0) - found.min(axis=0))


def _facts(problem: Problem, known: Known, name: str) -> Facts:
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


def _take(known: Known, name: str, answer: SetAnswer, **facts: object) -> None:
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
