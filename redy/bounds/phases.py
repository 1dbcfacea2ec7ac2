"""Phase questions by condensed branching with iterative deepening: the default engine for networks with few inputs."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redy.bounds.branch import LOWER, UPPER, Clause, Found, Rows, Search
from redy.bounds.condensed import Walk, condense
from redy.model import Array, Box, Network, PiecewiseLinear

CAPS = (200_000, 1_000_000, 5_000_000, 20_000_000, 80_000_000)
"""How much work a question may cost per pass (see `descent`); then it is set aside for the next pass."""

Samples = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Phases:
    """Bounds of every pre-activation after the search, and how they were found.

    Attributes:
        intervals: Activate name -> (lower, upper), sound over the box in real arithmetic.
        seen: Activate name -> (smallest, largest) pre-activation met at concrete points.
        undecided: units that no point shows in two pieces and no proof shows in one, as (Activate name, element).
        boxes: sub-boxes bounded.
        passes: evidence per pass: what was known before, the tree of cuts, the rows proved.
        complete: False when the budget or the time limit ended the search.
    """

    intervals: dict[str, tuple[Array, Array]]
    seen: dict[str, tuple[Array, Array]]
    undecided: list[tuple[str, int]]
    boxes: int
    passes: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True


def root_bounds(network: Network, box: Box, known: Mapping[str, tuple[Array, Array]], rounds: int = 2) -> Walk:
    """Condense, bound every variable on the whole box by the kernel, and condense again with what became stable."""
    intervals = dict(known)
    walk = condense(network, box, intervals)
    for _ in range(rounds):
        before = len(walk.condensed.variables)
        if before == 0:
            break
        rows = Rows.of(walk.condensed)
        zlo, zhi = rows.zlo.copy(), rows.zhi.copy()
        rows.bound(rows.lower, rows.upper, zlo, zhi, np.zeros((1, rows.count), dtype=np.int8))
        intervals = tightened(network, walk, zlo[0], zhi[0])
        walk = condense(network, box, intervals)
        if len(walk.condensed.variables) > 0.9 * before:
            break
    return walk


def tightened(network: Network, walk: Walk, lower: Array, upper: Array) -> dict[str, tuple[Array, Array]]:
    """The walk's intervals, tightened by bounds (variables,) of its variables' rows."""
    intervals = {name: (low.copy(), high.copy()) for name, (low, high) in walk.intervals.items()}
    functions = {node.name: node.function.broadcast_to(node.shape) for node in network.activations}
    for i, variable in enumerate(walk.condensed.variables):
        low, high = intervals[variable.node]
        shift = functions[variable.node].breakpoints[variable.breakpoint].ravel()[variable.element]
        below, above = float(lower[i] + shift), float(upper[i] + shift)
        if shift != 0:
            # Exact at zero: "z - t has a sign" must stay "z has reached t" after the shift back.
            below = float(shift) if lower[i] == 0 else math.nextafter(below, -math.inf)
            above = float(shift) if upper[i] == 0 else math.nextafter(above, math.inf)
        low.ravel()[variable.element] = max(low.ravel()[variable.element], below)
        high.ravel()[variable.element] = min(high.ravel()[variable.element], above)
    return intervals


def phases(
    network: Network,
    box: Box,
    *,
    known: Mapping[str, tuple[Array, Array]] | None = None,
    seen: Samples | None = None,
    budget: int = 300_000_000,
    time_limit: float | None = None,
) -> Phases:
    """Bounds of all pre-activations, by branching until every unit is proved stable, seen in two pieces, or given up.

    Args:
        network: affine and piecewise-linear nodes only, few inputs.
        box: the input box.
        known: sound pre-activation bounds to start from.
        seen: per Activate the smallest and largest pre-activation at points of the box.
        budget: work, at most (deterministic; see `descent`): 10^9 is a few seconds.
        time_limit: seconds, at most.

    Raises:
        Unsupported: the network holds a node that cannot be condensed.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    ranges = {name: (low.copy(), high.copy()) for name, (low, high) in (seen or {}).items()}
    walk = root_bounds(network, box, known or {})
    result = Phases({}, ranges, [], 0)
    boxes, work, passes, complete = 0, 0, result.passes, True
    functions = {node.name: node.function.broadcast_to(node.shape) for node in network.activations}
    for cap, node in itertools.product(CAPS, network.activations):
        questions = _questions(functions, walk, ranges, node.name)
        if not questions:
            continue
        # Rows of later layers are not needed to answer, so they are neither folded nor bounded.
        first = min(i for i, v in enumerate(walk.condensed.variables) if v.node == node.name)
        asked = walk.condensed.stacked()[[i for i, _ in questions]]
        asked.M = asked.M[:, :first]
        rows = Rows.of(walk.condensed, asked, first=first)
        clauses = [Clause(((first + k, side),)) for k, (_, side) in enumerate(questions)]
        found = Search(rows, clauses, cap=cap, budget=budget - work, deadline=deadline).run()
        boxes, work = boxes + found.boxes, work + found.work
        _remember(functions, walk, found, [i for i, _ in questions], ranges)
        lower, upper = np.array(walk.condensed.lower), np.array(walk.condensed.upper)
        lower[:first], upper[:first] = found.lower, found.upper
        for c in found.proved:
            i, side = questions[c]
            lower[i], upper[i] = (0.0, upper[i]) if side == LOWER else (lower[i], 0.0)
        if found.proved:
            passes.append({"node": node.name, "cap": cap, "boxes": found.boxes, "tree": found.tree, "proved": [questions[c] for c in found.proved]})
            walk = root_bounds(network, box, tightened(network, walk, lower, upper), rounds=1)
        if work >= budget or (deadline is not None and time.monotonic() > deadline):
            complete = False
            break
    undecided = sorted(
        {(v.node, v.element) for node in network.activations for i, _ in _questions(functions, walk, ranges, node.name) for v in [walk.condensed.variables[i]]}
    )
    return Phases(walk.intervals, ranges, undecided, boxes, passes, complete)


Functions = Mapping[str, PiecewiseLinear]


def _questions(functions: Functions, walk: Walk, seen: Samples, node: str) -> list[tuple[int, int]]:
    """The variables of an activation that no point has shown on both sides of their breakpoint, and the side to prove."""
    found: list[tuple[int, int]] = []
    for i, variable in enumerate(walk.condensed.variables):
        if variable.node != node:
            continue
        shift = functions[node].breakpoints[variable.breakpoint].ravel()[variable.element]
        low, high = (a.ravel()[variable.element] for a in seen[node]) if node in seen else (math.inf, -math.inf)
        if not low < shift < high:
            found.append((i, LOWER if low >= shift and high > shift else UPPER))
    return found


def _remember(functions: Functions, walk: Walk, found: Found, asked: list[int], seen: dict[str, tuple[Array, Array]]) -> None:
    """Widen the seen ranges by the points the search evaluated."""
    first = len(found.lower)
    for row, i in enumerate([*range(first), *asked]):
        variable = walk.condensed.variables[i]
        shift = functions[variable.node].breakpoints[variable.breakpoint].ravel()[variable.element]
        if variable.node not in seen:
            shape = functions[variable.node].shape
            seen[variable.node] = (np.full(shape, np.inf), np.full(shape, -np.inf))
        low, high = (a.ravel() for a in seen[variable.node])
        low[variable.element] = min(low[variable.element], found.row_range[0, row] + shift)
        high[variable.element] = max(high[variable.element], found.row_range[1, row] + shift)
