"""How far the network as written is from the original: the difference engine on both, tightened by branching."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.bounds.branch import Rows
from redy.bounds.difference import Pairs, join
from redy.bounds.maximise import Largest, largest
from redy.errors import Unsupported
from redy.model import Array, Network
from redy.reduction.problem import Known, Problem
from redy.reduction.steps import BRANCHING_INPUTS, decision_claim, tolerances
from redy.redundancy.query import outputs
from redy.rewrite import Shrunk

FEW_BOXES, FEW_WORK = 64, 0
"""How much is cut where cutting the box of inputs hardly helps because there are many."""
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
    """

    bound: Errors
    found: Errors
    points: Errors


def tight_error(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Tight | None:
    """A bound of the error of the written network, tightened until it is within 5% of the largest difference met.

    None where a node can neither be condensed nor left out; looser where the budget or the time ends first.
    """
    relaxed = any(finding.kind == "relaxed" for finding in known.findings)
    likely = tolerances(problem) if relaxed else None
    found = _compare(problem, known, problem.network, small, _pairs(problem.network, shrunk), known=likely)
    if found is None:
        return None
    points = problem.box.clip(found.points.reshape(-1, *problem.box.shape))
    # The value in the networks themselves, not in their condensed form.
    at = np.arange(len(points))
    met = np.abs(outputs(problem.network, points) - outputs(small, points))[at, at]
    network = problem.network
    return Tight(_by_port(network, found.bound), _by_port(network, met), _by_port(network, points))


def keeps_decision(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> bool:
    """Whether rounding the folded weights takes less than what was left of the winner's lead."""
    claim = decision_claim(problem)
    if not small.units and all(not node.sources for node in small.nodes if node.name == small.outputs[0].name):
        return _constant_wins(problem, small, claim.winner)
    found = _compare(problem, known, shrunk.lined, small, _pairs(shrunk.lined, shrunk), enough=claim.ahead / 2)
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
) -> Largest | None:
    few = int((problem.box.width > 0).sum()) <= BRANCHING_INPUTS
    intervals = facts.bounds.intervals if facts.bounds is not None and first is problem.network else {}
    try:
        joint = join(first, second, problem.box, intervals, pairs)
    except Unsupported as error:
        facts.notes.append(str(error))
        return None
    rows = Rows.of(joint.condensed, joint.apart)
    points = (problem.points if few else problem.points[-START_POINTS:]).reshape(-1, problem.box.size)
    limits = {} if few else {"boxes": FEW_BOXES, "work": FEW_WORK}
    return largest(rows, points, known=known, enough=enough, deadline=problem.deadline, **limits)


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
