"""How far the network as written is from the original: the difference engine on both, tightened by branching."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.condensed.climb import Met
from redy.condensed.joint import Pairs, bounded, join
from redy.condensed.maximise import BOXES, RATIO, WORK, Largest, largest
from redy.condensed.search import Rows
from redy.errors import Unsupported
from redy.model import Array, Network, Proved
from redy.questions.query import Query, ask, outputs
from redy.questions.situation import few_inputs
from redy.reduction.problem import Known, Problem
from redy.reduction.steps import decision_claim, tolerances
from redy.rewrite import Shrunk

FEW_BOXES = 64
"""How much is cut where cutting the box of inputs hardly helps because there are many."""
MACS = 1_000_000
"""Multiply-adds up to which two networks with many inputs are compared where no unit was relaxed."""
ROUNDING_WORK = 300_000_000
"""Work on thresholds where outputs are preserved: what is bounded is what folding and rounding the weights changes."""
DECISION_BOXES, DECISION_WORK = 500, 50_000_000
"""How much is cut where the decision alone is promised: by how much the outputs move is beside the point."""
WINNER_WORK = 2_000_000_000
"""Work on the question whether the written network keeps the decision."""
START_POINTS = 512
"""Points from which large differences are looked for where there are many inputs; all points where there are few."""

Errors = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Tight:
    """How far the written network is from the original on the box, per output element.

    Attributes:
        bound: of |written - original|, sound.
        found: the largest difference met.
        points: where it was met: per output (*its shape, *input shape).
        complete: whether the bound is within 5% of the largest difference met, or what rounding alone may be.
    """

    bound: Errors
    found: Errors
    points: Errors
    complete: bool


def tight_error(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Tight | None:
    """A bound of the error of the written network, tightened until it is within 5% of the largest difference met.

    None where nothing was changed, where a large network has many inputs and no relaxed units, and where a node can
    neither be condensed nor left out; looser where the budget or the time ends first.
    """
    kinds, few = {finding.kind for finding in known.findings}, few_inputs(problem.box)
    if small is problem.network or not (few or "relaxed" in kinds or problem.network.macs <= MACS):
        return None
    likely, limits = None, (BOXES, ROUNDING_WORK) if few else (0, 0)
    if "relaxed" in kinds:
        likely, limits = tolerances(problem), (BOXES, WORK) if few else (FEW_BOXES, 0)
    elif "result" in kinds and few:
        limits = DECISION_BOXES, DECISION_WORK
    pairs = _pairs(problem.network, shrunk)
    found = _compare(problem, known, problem.network, small, pairs, known=likely, limits=limits)
    if found is None:
        return None
    points = problem.box.clip(found.points.reshape(-1, *problem.box.shape))
    # The value in the networks themselves, not in their condensed form.
    at = np.arange(len(points))
    met = np.abs(outputs(problem.network, points) - outputs(small, points))[at, at]
    network = problem.network
    return Tight(
        _by_port(network, found.bound), _by_port(network, met), _by_port(network, points), complete=found.complete
    )


def keeps_decision(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> bool:
    """Whether the network as written keeps the decision.

    Asked of that network itself where inputs are few; else rounding must take less than what was left of the lead.
    """
    claim = decision_claim(problem)
    if not small.units and all(not node.sources for node in small.nodes if node.name == small.outputs[0].name):
        return _constant_wins(problem, small, claim.winner)
    if few_inputs(problem.box):
        intervals = known.bounds.intervals if known.bounds is not None else {}
        pairs = _pairs(problem.network, shrunk)
        query = Query(problem.network, small, problem.box, replace(claim, ahead=0.0), intervals, pairs)
        return isinstance(ask(query, budget=WINNER_WORK, deadline=problem.deadline), Proved)
    pairs = _pairs(shrunk.lined, shrunk)
    found = _compare(problem, known, shrunk.lined, small, pairs, enough=claim.ahead / 2, limits=(FEW_BOXES, 0))
    return found is not None and bool(2 * found.bound.max(initial=0.0) <= claim.ahead)


def _constant_wins(problem: Problem, small: Network, winner: str) -> bool:
    """For a constant network: its numbers as written have the winner that the original has at the centre."""
    center = problem.box.center[None]
    sign = 1.0 if winner == "max" else -1.0
    before, after = (sign * outputs(network, center)[0] for network in (problem.network, small))
    rest = np.delete(after, before.argmax())
    return bool((after[before.argmax()] > rest).all())


def _compare(
    problem: Problem,
    facts: Known,
    first: Network,
    second: Network,
    pairs: Pairs,
    *,
    known: Array | None = None,
    enough: float = 0.0,
    limits: tuple[int, int],
) -> Largest | None:
    """`redy.condensed.maximise.largest` of the difference within limits (sub-boxes, work); without any, one bound."""
    intervals = facts.bounds.intervals if facts.bounds is not None and first is problem.network else {}
    try:
        joint = join(first, second, problem.box, intervals, pairs)
    except Unsupported as error:
        facts.notes.append(str(error))
        return None
    rows = Rows.of(joint.condensed, joint.apart)
    if not (np.isfinite(rows.e).all() and np.isfinite(rows.base).all()):
        facts.notes.append("error bound: values on the box are too large to tighten it; the analytic bound is stated")
        return None
    points = (problem.points if few_inputs(problem.box) else problem.points[-START_POINTS:]).reshape(
        -1, problem.box.size
    )
    boxes, work = limits
    if not boxes:
        bound = np.maximum(*map(np.abs, bounded(joint.condensed, joint.apart)))
        met = Met(rows)
        met.see(points)
        return Largest(bound, met.values, met.points, 1, bool((bound <= RATIO * met.values).all()))
    return largest(rows, points, known=known, enough=enough, boxes=boxes, work=work, deadline=problem.deadline)


def _pairs(first: Network, shrunk: Shrunk) -> dict[str, NDArray[np.int64]]:
    """Which units of the original stand in the written network, as the difference engine counts them."""
    starts, start = {}, 0
    for node in first.activations:
        starts[node.name] = start
        start += math.prod(node.shape)
    return {
        node.name: starts[node.name] + np.asarray(shrunk.units[node.name])
        if node.name in starts and node.name in shrunk.units and len(shrunk.units[node.name]) == math.prod(node.shape)
        else np.full(math.prod(node.shape), -1)
        for node in shrunk.network.activations
    }


def _by_port(network: Network, flat: Array) -> Errors:
    """Rows, one per output element of all outputs, by output."""
    result, start = {}, 0
    for port in network.outputs:
        size = math.prod(port.shape)
        result[port.name] = flat[start : start + size].reshape(*port.shape, *flat.shape[1:])
        start += size
    return result
