"""In which pieces of their activations do elements stay on the whole box? Every engine in turn, as far as allowed.

Linear bounds first; then branching on the input box where few inputs vary and on unstable ReLUs where many do; then a
solver per element for what is left open. Points that show an element in two pieces end its question before anything is
asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.bounds import activation_branching
from redy.bounds.linear import WORK as LINEAR_WORK
from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds
from redy.condensed import phases as branching
from redy.condensed.form import Intervals
from redy.errors import CheckFailed, InputError, Unsupported
from redy.milp import phase as milp
from redy.milp.outcome import SolverUnavailable
from redy.milp.solver import Choice, answering
from redy.model import (
    Activate,
    Array,
    Box,
    BoxTree,
    Evidence,
    Limits,
    LinearBounds,
    Network,
    Phase,
    PhaseTree,
    Proof,
    Proved,
    Trusted,
)
from redy.questions.seen import Seen, seen_at
from redy.questions.situation import Engine, few_inputs

SPLIT_SHARE = 0.7
"""Which share of the time splits of ReLUs may take, where time is limited."""
SOLVER_SECONDS = {"after branching": 1.0, "alone": 30.0}
"""What `auto` gives the solver at most: what branching leaves open is rarely decided by a solver in short time."""
SOLVER_UNITS = 5_000
"""Up to this number of units `auto` asks a solver: larger programs take longer to build than they have time."""


LINEAR_SHARE = 0.6
"""Which share of the time linear bounds may take, where time is limited."""
BRANCHING_WORK = 1_800_000_000
"""Work of branching on the inputs by default, some seconds."""


@dataclass(frozen=True, slots=True)
class PhaseSettings:
    """How phases are searched.

    Attributes:
        engine: "linear", "branch" (linear, then branching on inputs or on ReLUs), "milp" (the published
            pipeline, which trusts the solver), or "auto" (linear, branching, then the solver for what is left, its
            answers re-derived).
        solver: which solver.
        trust: count a solver's dual bound although redy did not re-derive it.
        budget: work that branching may do, in its own units; None: what it takes by default.
        deadline: `time.monotonic()` at which the search ends, or None.
    """

    engine: Engine = "auto"
    solver: Choice = "auto"
    trust: bool = False
    budget: int | None = None
    deadline: float | None = None

    def remaining(self, most: float | None = None) -> float | None:
        """Seconds left, at most `most`; None where nothing limits them."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        return left if most is None else most if left is None else min(left, most)


@dataclass(frozen=True, slots=True)
class ElementPhases:
    """What is known about the phases of all elements.

    Attributes:
        bounds: sound bounds of every pre-activation.
        proofs: Activate name -> element (flattened) -> the piece in which it stays, and why.
        moving: Activate name -> (elements,) which elements points show in two pieces.
        notes: what kept a method from answering, in words.
        stats: per method what it did (elements proved, sub-boxes, questions, seconds).
    """

    bounds: Bounds
    proofs: Mapping[str, Mapping[int, tuple[int, Proof]]]
    moving: Mapping[str, NDArray[np.bool_]]
    notes: list[str] = field(default_factory=list)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)


def decide_phases(network: Network, box: Box, seen: Seen, points: Array, settings: PhaseSettings) -> ElementPhases:
    """Prove as many elements as the settings allow to stay in one piece on the box.

    Args:
        network: the network.
        box: its shape is the input's.
        seen: what points show (`redy.questions.seen`).
        points: the points themselves (n, *input shape), for solvers.
        settings: engine, solver, limits.

    Raises:
        CheckFailed: a proof contradicts a point; nothing may be built on it.
        InputError: the engine or the solver that was asked for by name cannot work on this network.
    """
    search = _Search(network, seen, settings)
    search.linear(box)
    if settings.engine in ("auto", "branch") and search.open_units():
        if few_inputs(box):
            search.branch(box)
        else:
            search.branch_on_activations(box, points)
    solves = network.units <= SOLVER_UNITS and search.open_units()
    if settings.engine == "milp" or (settings.engine == "auto" and solves):
        search.solve(box, points)
    return search.answer()


@dataclass(frozen=True, slots=True)
class Ranges:
    """Sound bounds of pre-activations, and how far the search for them went.

    Attributes:
        intervals: Activate name -> (lower, upper).
        boxes: sub-boxes bounded.
        complete: False where the budget or the time ended the search.
        undecided: elements neither proved to stay in one piece nor seen in two.
    """

    intervals: Intervals
    boxes: int = 0
    complete: bool = True
    undecided: int = 0


def ranges(network: Network, box: Box, seen: Seen, *, budget: int, time_limit: float | None = None) -> Ranges:
    """Bounds of all pre-activations: by branching on the box where few inputs vary, else by linear bounds alone.

    Args:
        network: affine and piecewise-linear nodes only.
        box: the inputs.
        seen: what points show; it ends questions early.
        budget: work of the search, at most.
        time_limit: seconds, at most.
    """
    if not few_inputs(box):
        return Ranges(dict(linear_bounds(network, box).intervals))
    found = branching.phases(network, box, seen=seen, budget=budget, time_limit=time_limit)
    return Ranges(found.intervals, found.boxes, found.complete, len(found.undecided))


class _Search:
    """The proofs found so far, element by element."""

    def __init__(self, network: Network, seen: Seen, settings: PhaseSettings) -> None:
        self.network = network
        self.settings = settings
        self.seen: dict[str, tuple[Array, Array]] = dict(seen)
        self.proofs: dict[str, dict[int, tuple[int, Proof]]] = {node.name: {} for node in network.activations}
        self.notes: list[str] = []
        self.stats: dict[str, dict[str, Any]] = {}

    def linear(self, box: Box) -> None:
        """Interval and linear bounds."""
        begin = time.perf_counter()
        limits = Limits(LINEAR_WORK, Limits.within(self.settings.remaining()).share(LINEAR_SHARE).deadline)
        self.bounds = linear_bounds(self.network, box, leave_unsupported=True, limits=limits)
        self._note("linear", begin, self._record(self.bounds, "linear"))

    def branch(self, box: Box) -> None:
        """Condensed branching on the input box."""
        begin = time.perf_counter()
        try:
            found = branching.phases(
                self.network,
                box,
                known=self.bounds.intervals,
                seen={name: (low.copy(), high.copy()) for name, (low, high) in self.seen.items()},
                time_limit=self.settings.remaining(),
                budget=BRANCHING_WORK if self.settings.budget is None else self.settings.budget,
            )
        except Unsupported as error:
            if self.settings.engine == "branch":
                raise
            self.notes.append(str(error))
            return
        self.bounds = Bounds(box, {**self.bounds.intervals, **found.intervals}, "branch").tighten(self.bounds)
        for name, (low, high) in found.seen.items():
            if name in self.seen:
                before = self.seen[name]
                self.seen[name] = np.minimum(before[0], low), np.maximum(before[1], high)
        trees = tuple(BoxTree(step.tree, box) for step in found.passes)
        proved = self._record(self.bounds, "branch", trees)
        if not found.complete:
            self.notes.append("branching ended at its budget or time limit")
        self._note("branch", begin, proved, boxes=found.boxes)

    def branch_on_activations(self, box: Box, points: Array) -> None:
        """Optimised slopes and branching on unstable ReLUs."""
        factor = 1.0 if self.settings.budget is None else self.settings.budget / BRANCHING_WORK
        time_left = Limits.within(self.settings.remaining()).share(SPLIT_SHARE)
        limits = Limits(int(factor * activation_branching.WORK), time_left.deadline)
        if limits.expired():
            self.notes.append("no time was left for splits of ReLUs")
            return
        begin = time.perf_counter()
        found = activation_branching.branch(self.network, box, self.bounds, points, limits)
        self.bounds = found.bounds
        self._see(found.witnesses)
        self._note(
            "activation branching",
            begin,
            self._record(self.bounds, "split", (PhaseTree(found.parts),)),
            parts=found.parts,
        )

    def solve(self, box: Box, points: Array) -> None:
        """Linear and mixed-integer programs per unit."""
        published = self.settings.engine == "milp"
        usual = SOLVER_SECONDS["after branching" if "branch" in self.stats else "alone"]
        limit = self.settings.remaining(None if published else usual)
        if limit is not None and limit <= 0:
            return
        begin = time.perf_counter()
        trust = self.settings.trust or published
        settings = milp.Settings(
            solver=self.settings.solver,
            time_limit=math.inf if limit is None else limit,
            unit_limit=10.0 if published else 2.0,
            trust=trust,
        )
        try:
            found = milp.phases(self.network, box, self.bounds, points, settings)
        except (SolverUnavailable, InputError) as error:
            if published or self.settings.solver != "auto":
                raise
            self.notes.append(str(error))
            return
        proved = 0
        for unit, element in found.elements.items():
            known = self.proofs[unit.node]
            if not isinstance(element.verdict, Proved) or element.piece < 0 or unit.index in known:
                continue
            if trust or not element.verdict.proof.trusted:
                known[unit.index] = element.piece, element.verdict.proof
                proved += 1
        self.bounds = self.bounds.tighten(found.bounds) if trust or not found.bounds.trusted else self.bounds
        self._see(found.witnesses)
        self._note("milp", begin, proved, questions=found.questions, solver=answering(self.settings.solver))

    def _see(self, witnesses: Array) -> None:
        if len(witnesses):
            for name, (low, high) in seen_at(self.network, witnesses).items():
                before = self.seen.get(name, (low, high))
                self.seen[name] = np.minimum(before[0], low), np.maximum(before[1], high)

    def _record(self, bounds: Bounds, method: str, evidence: tuple[Evidence, ...] = ()) -> int:
        """A proof for every element that the bounds show stuck and that had none; their number."""
        count = 0
        for name, pieces in bounds.pieces(self.network).items():
            known = self.proofs[name]
            flat = pieces.ravel()
            lower, upper = (end.ravel() for end in bounds.intervals[name])
            for index in np.flatnonzero(flat >= 0):
                if int(index) not in known:
                    claim = str(Phase(name, int(index), int(flat[index])))
                    ends = LinearBounds(lower[[index]], upper[[index]])
                    known[int(index)] = (
                        int(flat[index]),
                        Proof(claim, method, (*evidence, ends, *map(Trusted, bounds.trusted))),
                    )
                    count += 1
        return count

    def _note(self, method: str, begin: float, proved: int, **facts: object) -> None:
        self.stats[method] = {"elements": proved, "seconds": time.perf_counter() - begin, **facts}

    def open_units(self) -> bool:
        """True if some element is neither proved nor seen in two pieces."""
        return any(
            index not in self.proofs[node.name]
            for node in self.network.activations
            for index in np.flatnonzero(~self._moves(node))
        )

    def _moves(self, node: Activate) -> NDArray[np.bool_]:
        """The elements (flattened) that points show in two pieces."""
        if node.name not in self.seen:
            return np.zeros(math.prod(node.shape), dtype=bool)
        low, high = self.seen[node.name]
        inside = (node.function.broadcast_to(node.shape).breakpoints > low) & (
            node.function.broadcast_to(node.shape).breakpoints < high
        )
        return np.asarray(inside.any(axis=0).ravel())

    def answer(self) -> ElementPhases:
        """What is known, after the check against every point."""
        moving = {}
        for node in self.network.activations:
            pieces = np.full(math.prod(node.shape), -1)
            for index, (piece, _) in self.proofs[node.name].items():
                pieces[index] = piece
            self._check(node, pieces)
            moving[node.name] = self._moves(node)
        return ElementPhases(self.bounds, self.proofs, moving, self.notes, self.stats)

    def _check(self, node: Activate, pieces: NDArray[np.int64]) -> None:
        """No element that was seen outside its piece may be called stuck in it."""
        if node.name not in self.seen:
            return
        low, high = (end.ravel() for end in self.seen[node.name])
        breaks = node.function.broadcast_to(node.shape).breakpoints.reshape(node.function.pieces - 1, -1)
        ends = np.concatenate([np.full((1, low.size), -np.inf), breaks, np.full((1, low.size), np.inf)])
        element = np.arange(low.size)
        # Where nothing is certain because of rounding, low > high: such an element was not seen anywhere.
        outside = (low < ends[pieces, element]) | (high > ends[pieces + 1, element])
        wrong = np.flatnonzero((pieces >= 0) & outside & (low <= high))
        if wrong.size:
            raise CheckFailed(
                f"{node.name}[{wrong[0]}]: was proved to stay in piece {pieces[wrong[0]]}, but a point leaves it; "
                "this is a bug in redy, nothing was written"
            )
