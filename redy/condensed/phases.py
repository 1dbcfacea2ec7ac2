"""Phase questions by condensed branching with iterative deepening: the default engine for networks with few inputs."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.interval import interval_bounds
from redy.condensed.ascent import smallest
from redy.condensed.form import Variable, Walk, condense
from redy.condensed.search import LOWER, UPPER, Clause, Found, Rows, Search
from redy.errors import Unsupported
from redy.model import Array, Box, Limits, Network, PiecewiseLinear

FIRST = 1_000_000
"""How much work a question may cost in the first pass (see `descent`); then it is set aside for the next pass."""

PASSES, SHARE = 3, 3
"""In later passes a question gets this part of what is left of the budget: a pass costs a few such caps, and proves
nothing where it does not come to its end.
"""

CONDENSING = 20
"""Work of condensing, for every number of the forms."""
COVER = 6
"""Bisections of the whole box before the first question: ranges over its 2^6 parts are tighter than over the box."""

Samples = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One search of the condensed form that the passes before it gave.

    Attributes:
        tree: in pre-order, the input at which each sub-box was bisected, -1 for a leaf (see `Found`).
        proved: the variables proved to have a sign, with the side; none where only ranges were tightened.
    """

    tree: NDArray[np.int16]
    proved: tuple[tuple[Variable, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Phases:
    """Bounds of every pre-activation after the search, and how they were found.

    Attributes:
        intervals: Activate name -> (lower, upper), sound over the box in real arithmetic.
        seen: Activate name -> (smallest, largest) pre-activation met at concrete points.
        undecided: units that no point shows in two pieces and no proof shows in one, as (Activate name, element).
        boxes: sub-boxes bounded.
        passes: evidence per pass.
        complete: False when the budget or the time limit ended the search.
    """

    intervals: dict[str, tuple[Array, Array]]
    seen: dict[str, tuple[Array, Array]]
    undecided: list[tuple[str, int]]
    boxes: int
    passes: list[Pass] = field(default_factory=list)
    complete: bool = True


def root_bounds(
    network: Network,
    box: Box,
    known: Mapping[str, tuple[Array, Array]],
    rounds: int = 2,
    limits: Limits | None = None,
) -> Walk:
    """Condense, bound every variable on the whole box by the kernel, and condense again with what became stable.

    Raises:
        Unsupported: see `condense`; a deadline ends the rounds, or comes before the network is condensed once.
    """
    intervals = dict(known)
    walk = condense(network, box, intervals, limits=limits)
    for _ in range(rounds):
        before = len(walk.condensed.variables)
        if before == 0 or (limits is not None and limits.expired()):
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
    budget: int = 1_800_000_000,
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
    limits = Limits(budget, math.inf if deadline is None else deadline)
    try:
        walk = root_bounds(network, box, known or {}, limits=limits)
    except Unsupported:
        if limits.remaining() > 0:
            raise
        intervals = {**interval_bounds(network, box).intervals, **(known or {})}
        return Phases(intervals, dict(seen or {}), [], 0, complete=False)
    state = _State(network, box, walk, seen or {}, budget, deadline)
    state.cover()
    for number, node in itertools.product(range(PASSES), network.activations):
        if state.spent():
            break
        left = (budget - state.work) // SHARE
        state.ask(node.name, left if number > 0 else min(FIRST, left), attack=number == 1)
    open_ = [variable for node in network.activations for variable in state.open_variables(node.name)]
    undecided = sorted({(variable.node, variable.element) for variable in open_})
    return Phases(state.walk.intervals, state.seen, undecided, state.boxes, state.passes, not state.spent())


class _State:
    """What the search for phases knows so far; each step folds what it proved before the next one begins."""

    def __init__(
        self, network: Network, box: Box, walk: Walk, seen: Samples, budget: int, deadline: float | None
    ) -> None:
        self.network, self.box, self.walk, self.budget, self.deadline = network, box, walk, budget, deadline
        self.seen = {name: (low.copy(), high.copy()) for name, (low, high) in seen.items()}
        self.functions = {node.name: node.function.broadcast_to(node.shape) for node in network.activations}
        self.boxes = self.work = 0
        self.passes: list[Pass] = []

    def spent(self) -> bool:
        """True when the budget of work or the time has run out."""
        return self.work >= self.budget or (self.deadline is not None and time.monotonic() > self.deadline)

    def cover(self) -> None:
        """Tighten all ranges by bounding the parts of a first subdivision of the box."""
        if self.walk.condensed.variables:
            rows = Rows.of(self.walk.condensed)
            found = Search(rows, [], cap=0, cover=COVER, budget=self.budget, deadline=self.deadline).run()
            self._account(found, list(range(rows.variables)))
            self.passes.append(Pass(found.tree))
            self._fold(found.lower, found.upper)

    def ask(self, node: str, cap: int, *, attack: bool) -> None:
        """Ask for the phase of every open unit of an activation, with at most `cap` work for each.

        With `attack`, the gradient looks for witnesses first.
        """
        questions = _questions(self.functions, self.walk, self.seen, node)
        if questions and attack:
            self._attack(questions, *self._rows(questions))
            questions = _questions(self.functions, self.walk, self.seen, node)
        if not questions:
            return
        rows, clauses = self._rows(questions)
        found = Search(rows, clauses, cap=cap, budget=self.budget - self.work, deadline=self.deadline).run()
        first, condensed = rows.variables, self.walk.condensed
        self._account(found, [*range(first), *(i for i, _ in questions)])
        # A clause that stays open although points come near to violating it is often violated a little further on.
        self._attack([questions[c] for c in found.open], rows, [clauses[c] for c in found.open], [*found.open.values()])
        if not found.proved:
            return
        lower, upper = np.array(condensed.lower), np.array(condensed.upper)
        lower[:first], upper[:first] = found.lower, found.upper
        for c in found.proved:
            i, side = questions[c]
            lower[i], upper[i] = (0.0, upper[i]) if side == LOWER else (lower[i], 0.0)
        proved = tuple((condensed.variables[i], side) for i, side in (questions[c] for c in found.proved))
        self.passes.append(Pass(found.tree, proved))
        self._fold(lower, upper)

    def open_variables(self, node: str) -> list[Variable]:
        """The variables of an activation that are neither proved to have a sign nor seen with both."""
        questions = _questions(self.functions, self.walk, self.seen, node)
        return [self.walk.condensed.variables[i] for i, _ in questions]

    def _rows(self, questions: list[tuple[int, int]]) -> tuple[Rows, list[Clause]]:
        """The rows asked about, all of one activation, and one clause for each.

        Rows of later layers are not needed to answer, so they are neither folded nor bounded.
        """
        condensed = self.walk.condensed
        node = condensed.variables[questions[0][0]].node
        first = min(i for i, variable in enumerate(condensed.variables) if variable.node == node)
        asked = condensed.stacked()[[i for i, _ in questions]]
        asked.M = asked.M[:, :first]
        clauses = [Clause(((first + k, side),)) for k, (_, side) in enumerate(questions)]
        return Rows.of(condensed, asked, first=first), clauses

    def _attack(
        self,
        questions: list[tuple[int, int]],
        rows: Rows,
        clauses: list[Clause],
        starts: list[Array] | None = None,
    ) -> None:
        """Look for witnesses by gradient; what is refuted is not asked again."""
        literals = [clause.literals[0] for clause in clauses]
        for (i, _), (row, _), value in zip(questions, literals, smallest(rows, literals, starts), strict=True):
            if abs(value) > rows.doubt[row]:
                self._see(i, value, value)

    def _fold(self, lower: Array, upper: Array) -> None:
        known = tightened(self.network, self.walk, lower, upper)
        if self.spent():
            self.walk = Walk(self.walk.condensed, self.walk.forms, known)
            return
        self.work += (
            CONDENSING
            * sum(math.prod(node.shape) for node in self.network.nodes)
            * (self.box.size + len(self.walk.condensed.variables))
        )
        self.walk = root_bounds(self.network, self.box, known, rounds=1)

    def _account(self, found: Found, variables: list[int]) -> None:
        """Count the cost; widen the seen ranges by the values that the `variables`, row by row, took at points."""
        self.boxes, self.work = self.boxes + found.boxes, self.work + found.work
        for row, i in enumerate(variables):
            self._see(i, found.row_range[0, row], found.row_range[1, row])

    def _see(self, i: int, low: float, high: float) -> None:
        """Widen the seen range of the i-th variable's unit by values of the variable's row."""
        variable = self.walk.condensed.variables[i]
        function = self.functions[variable.node]
        shift = function.breakpoints[variable.breakpoint].ravel()[variable.element]
        if variable.node not in self.seen:
            self.seen[variable.node] = (np.full(function.shape, np.inf), np.full(function.shape, -np.inf))
        lowest, highest = (a.ravel() for a in self.seen[variable.node])
        lowest[variable.element] = min(lowest[variable.element], low + shift)
        highest[variable.element] = max(highest[variable.element], high + shift)


Functions = Mapping[str, PiecewiseLinear]


def _questions(functions: Functions, walk: Walk, seen: Samples, node: str) -> list[tuple[int, int]]:
    """The variables of an activation that no point shows on both sides of their breakpoint; the side to prove."""
    found: list[tuple[int, int]] = []
    for i, variable in enumerate(walk.condensed.variables):
        if variable.node != node:
            continue
        shift = functions[node].breakpoints[variable.breakpoint].ravel()[variable.element]
        below, above = (float(end.ravel()[variable.element]) for end in walk.intervals[node])
        if below >= shift or above <= shift:
            continue  # proved after the network was condensed last
        low, high = (a.ravel()[variable.element] for a in seen[node]) if node in seen else (math.inf, -math.inf)
        if not low < shift < high:
            found.append((i, LOWER if low >= shift and high > shift else UPPER))
    return found
