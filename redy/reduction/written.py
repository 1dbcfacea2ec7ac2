"""How far the network as written is from the original: the difference engine on both, tightened by branching."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from redy.bounds.branch import Rows
from redy.bounds.difference import Pairs, join
from redy.bounds.maximise import Largest, largest
from redy.errors import Unsupported
from redy.model import Array, Network
from redy.reduction.problem import Known, Problem
from redy.reduction.steps import BRANCHING_INPUTS, decision_claim
from redy.redundancy.query import outputs
from redy.rewrite import Shrunk

BOXES = 20_000
"""Sub-boxes for tightening the error bound."""
FEW_BOXES = 64
"""The same where cutting the box of inputs hardly helps because there are many."""
START_POINTS = 512

Errors = dict[str, Array]


def tight_error(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> tuple[Errors, Errors] | None:
    """Per output a bound of |written - original| on the box and the largest difference met; None where it has none.

    The bound is tightened until it is within 5% of the largest difference met, or the budget ends.
    """
    found = _compare(problem, known, problem.network, small, _pairs(problem.network, shrunk))
    if found is None:
        return None
    return _by_port(problem.network, found.bound), _by_port(problem.network, found.found)


def keeps_decision(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> bool:
    """Whether rounding the folded weights takes less than what was left of the winner's lead."""
    claim = decision_claim(problem)
    if not small.units and all(not node.sources for node in small.nodes if node.name == small.outputs[0].name):
        return _constant_wins(problem, small, claim.winner)
    found = _compare(problem, known, shrunk.lined, small, _pairs(shrunk.lined, shrunk))
    return found is not None and bool(2 * found.bound.max(initial=0.0) <= claim.ahead)


def _constant_wins(problem: Problem, small: Network, winner: str) -> bool:
    """For a constant network: its numbers as written have the winner that the original has at the centre."""
    center = problem.box.center[None]
    sign = 1.0 if winner == "max" else -1.0
    before, after = (sign * outputs(network, center)[0] for network in (problem.network, small))
    rest = np.delete(after, before.argmax())
    return bool((after[before.argmax()] > rest).all())


def _compare(problem: Problem, known: Known, first: Network, second: Network, pairs: Pairs) -> Largest | None:
    few = int((problem.box.width > 0).sum()) <= BRANCHING_INPUTS
    intervals = known.bounds.intervals if known.bounds is not None and first is problem.network else {}
    try:
        joint = join(first, second, problem.box, intervals, pairs)
    except Unsupported as error:
        known.notes.append(str(error))
        return None
    rows = Rows.of(joint.condensed, joint.apart)
    points = problem.points[-START_POINTS:].reshape(-1, problem.box.size)
    return largest(rows, points, budget=BOXES if few else FEW_BOXES, deadline=problem.deadline)


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
    result, start = {}, 0
    for port in network.outputs:
        size = math.prod(port.shape)
        result[port.name] = flat[start : start + size].reshape(port.shape)
        start += size
    return result
