"""Is a unit in one phase? The published pipeline: linear bounds, then LP, then MILP per unit, layer by layer.

Tjeng, Xiao and Tedrake (ICLR 2019), section 4.1 (progressive bounds tightening); Lahav and Katz, "Pruning and
Slicing Neural Networks using Formal Verification" (FMCAD 2021), section IV (phase redundancy). A sample that shows
two pieces ends the question for its unit before any solver is asked. Every tighter bound enters the linear bounds
and the big-Ms of the layers behind it. LP bounds are certified from their multipliers and need no trust. The dual
bound of a MILP counts by itself only for those who trust the solver; a small search tree of certified LPs tries to
show the same without trust.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds, Range
from redy.bounds.shown import Shown
from redy.errors import Unsupported
from redy.milp.certify import certified_bound
from redy.milp.encode import Encoding
from redy.milp.outcome import Outcome
from redy.milp.program import Program
from redy.milp.solver import Choice, solve
from redy.milp.tree import search
from redy.model import (
    Activate,
    Array,
    Box,
    Evidence,
    LinearBounds,
    Network,
    Phase,
    Proof,
    Proved,
    Refuted,
    Trusted,
    Unit,
    Unknown,
    Verdict,
)

SLACK = 1e-6
"""What a dual bound must leave, in units of the objective, which is scaled to the range of the pre-activation."""


@dataclass(frozen=True, slots=True, eq=False)
class ElementPhase:
    """The answer for one element of an activation.

    Attributes:
        lower: sound lower bound of its pre-activation (given what the verdict trusts).
        upper: sound upper bound.
        piece: the piece in question: the one all samples lie in, or that the bounds leave; -1 if samples show several.
        verdict: whether the element never leaves that piece on the box.
    """

    lower: float
    upper: float
    piece: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """The answers for all elements.

    Attributes:
        bounds: the bounds reached; `bounds.trusted` names what they believe.
        elements: per element (activation node, index in C order; the unit itself in a dense layer).
        witnesses: inputs (n, *input shape) that solvers found and that show a piece no sample had shown.
        questions: programs solved.
        seconds: wall time.
    """

    bounds: Bounds
    elements: dict[Unit, ElementPhase]
    witnesses: Array
    questions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """How solvers are asked.

    Attributes:
        solver: which one.
        time_limit: seconds for everything.
        unit_limit: seconds for one program.
        trust: whether dual bounds of MILPs tighten the bounds that later questions rest on (`bounds.trusted` then says
            so, and so does every proof behind).
        tree_limit: linear programs that the search without trust may ask per claim; 0 leaves it out.
        tighten: whether elements that samples show in several pieces get LP bounds too, for the big-Ms of what follows.
    """

    solver: Choice = "auto"
    time_limit: float = 60.0
    unit_limit: float = 10.0
    trust: bool = False
    tree_limit: int = 200
    tighten: bool = True


def phases(
    network: Network,
    box: Box,
    bounds: Bounds | None = None,
    samples: Array | None = None,
    settings: Settings | None = None,
) -> Phases:
    """Ask for every element of every piecewise-linear activation whether it is in one piece on the whole box.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        bounds: sound bounds to start from (linear bounds are computed and intersected).
        samples: inputs (n, *input shape) of the box, 1,000 uniform ones by default.
        settings: solver and limits.

    Raises:
        Unsupported: a pre-activation depends on a node that cannot be bounded; the text names the node.
        InputError: the solver that was chosen by name cannot answer.
    """
    points = box.sample(1000, np.random.default_rng(0)) if samples is None else samples
    pipeline = _Pipeline(network, box, settings or Settings(), linear_bounds(network, box, bounds))
    return pipeline.run(points)


@dataclass
class _Pipeline:
    network: Network
    box: Box
    settings: Settings
    bounds: Bounds
    verdicts: dict[Unit, Verdict] = field(default_factory=dict)
    witnesses: list[Array] = field(default_factory=list)
    trusted: tuple[str, ...] = ()
    questions: int = 0
    obstacle: str = ""

    def __post_init__(self) -> None:
        self.shown = Shown(self.network)

    def run(self, points: Array) -> Phases:
        self.begin = time.perf_counter()
        self.trusted = self.bounds.trusted
        self.shown.see(points)
        try:
            self._layers()
        except Unsupported as error:
            self.obstacle = str(error)
        elements = {
            Unit(node.name, place): self._answer(node, place)
            for node in self.network.activations
            for place in range(math.prod(node.shape))
        }
        witnesses = np.array(self.witnesses).reshape(-1, *self.box.shape)
        return Phases(self.bounds, elements, witnesses, self.questions, time.perf_counter() - self.begin)

    def _layers(self) -> None:
        encoding = Encoding(self.box)
        names = encoding.begin(self.network)
        for node in self.network.nodes:
            names[node.name] = node.name
            if isinstance(node, Activate):
                if not self._any_open():
                    return
                encoding.tighten(node.source, self.bounds.intervals[node.name])
                self._layer(node, encoding)
                encoding.tighten(node.source, self.bounds.intervals[node.name])
            encoding.encode(node, names)

    def _layer(self, node: Activate, encoding: Encoding) -> None:
        """Tighten every open element of a layer by LPs, then decide those that samples leave possible."""
        known = node.function.stuck(*self.bounds.intervals[node.name])
        self._record(node, np.flatnonzero(known >= 0), "linear")
        open_ = np.flatnonzero(known < 0)
        if not open_.size or self._remaining() <= 0:
            return
        program = encoding.program()
        lower, upper = (end.copy() for end in self.bounds.intervals[node.name])
        for place in open_ if self.settings.tighten else open_[self.shown.pieces(node.name).flat[open_] >= 0]:
            upper.flat[place] = min(upper.flat[place], self._linear(program, encoding, node, int(place), 1.0))
            lower.flat[place] = max(lower.flat[place], -self._linear(program, encoding, node, int(place), -1.0))
        self._keep(node, (lower, upper))
        known = node.function.stuck(lower, upper)
        self._record(node, open_[known.flat[open_] >= 0], "lp")
        for place in open_[known.flat[open_] < 0]:
            unit = Unit(node.name, int(place))
            if self._piece(unit) >= 0:
                self.verdicts[unit] = self._decide(program, encoding, node, unit)
        self.bounds = linear_bounds(self.network, self.box, self.bounds)

    def _any_open(self) -> bool:
        """Whether any element of any layer is still without an answer that points or bounds give."""
        return any(
            (node.function.stuck(*self.bounds.intervals[node.name]).flat[place] < 0)
            and Unit(node.name, int(place)) not in self.verdicts
            for node in self.network.activations
            for place in np.flatnonzero(self.shown.pieces(node.name) >= 0)
        )

    def _record(self, node: Activate, places: NDArray[np.int64], method: str) -> None:
        """Note that the bounds now show some elements stuck, and what they trust so far."""
        lower, upper = self.bounds.intervals[node.name]
        known = node.function.stuck(lower, upper)
        for place in places:
            unit = Unit(node.name, int(place))
            proof = _ranged(unit, int(known.flat[place]), method, (lower.flat[place], upper.flat[place]), self.trusted)
            self.verdicts[unit] = Proved(proof)

    def _linear(self, program: Program, encoding: Encoding, node: Activate, place: int, sign: float) -> float:
        """A certified upper bound of sign * z from the linear relaxation."""
        remaining = self._remaining()
        if remaining <= 0:
            return np.inf
        scale = self._scale(node, place)
        aimed = program.relaxed().aimed_at(*encoding.element(node.source, place, sign / scale))
        outcome = self._ask(aimed, min(remaining, self.settings.unit_limit))
        if outcome.status != "optimal" or outcome.multipliers is None:
            return np.inf
        return certified_bound(aimed, outcome.multipliers) * scale

    def _decide(self, program: Program, encoding: Encoding, node: Activate, unit: Unit) -> Verdict:
        """Whether an element stays in the piece that all samples show, by MILP in the directions that are open."""
        piece = self._piece(unit)
        trusted = self.trusted
        evidence: list[Evidence] = []
        for sign, end in self._ends(node, unit, piece):
            lower, upper = (float(bound.flat[unit.index]) for bound in self.bounds.intervals[node.name])
            if (upper if sign > 0 else -lower) <= end:
                continue
            remaining = min(self._remaining(), self.settings.unit_limit)
            if remaining <= 0:
                return Unknown("time limit")
            scale = self._scale(node, unit.index)
            aimed = program.aimed_at(*encoding.element(node.source, unit.index, sign / scale))
            outcome = self._ask(aimed, remaining, end / scale)
            found = self._judge(outcome, unit, end / scale)
            if found is not None:
                return found
            if not self._rederive(aimed, end / scale, evidence):
                trusted = (*trusted, f"{outcome.solver} dual bound, slack {SLACK:g}")
                if not self.settings.trust:
                    continue
                self.trusted = tuple(dict.fromkeys(trusted))
            self._close(node, unit, sign, end)
        evidence += map(Trusted, dict.fromkeys(trusted))
        return Proved(Proof(claim(unit, piece), "milp", tuple(evidence)))

    def _judge(self, outcome: Outcome, unit: Unit, end: float) -> Verdict | None:
        """What a MILP's answer refutes or leaves open; None where its dual bound is below `end` by the slack."""
        if outcome.point is not None:
            witness = self.box.clip(outcome.point[: self.box.size].reshape(1, *self.box.shape))
            self.shown.see(witness)
            if self._piece(unit) < 0:
                self.witnesses.append(witness[0])
                return Refuted(witness[0])
        if outcome.counts and outcome.bound + SLACK <= end:
            return None
        reasons = {
            "limit": "time limit",
            "infeasible": f"{outcome.solver} reports an infeasible encoding, which contradicts the evaluated points",
            "trouble": f"{outcome.solver} reported numerical difficulties",
        }
        return Unknown(
            reasons.get(outcome.status, f"the dual bound of {outcome.solver} is within its slack of the breakpoint")
        )

    def _rederive(self, program: Program, end: float, evidence: list[Evidence]) -> bool:
        """Try to show by certified linear programs alone what the solver says."""
        limit = min(self._remaining(), self.settings.unit_limit)
        if self.settings.tree_limit <= 0 or limit <= 0:
            return False
        tree = search(program, end, limit, node_limit=self.settings.tree_limit, choice=self.settings.solver)
        self.questions += tree.questions
        if tree.closed:
            evidence.append(tree.multipliers)
        return tree.closed

    def _ask(self, program: Program, limit: float, end: float | None = None) -> Outcome:
        self.questions += 1
        if end is None:
            return solve(program, limit, self.settings.solver)
        return solve(program, limit, self.settings.solver, stop_bound=end - SLACK, stop_value=end + 1e-3)

    def _close(self, node: Activate, unit: Unit, sign: float, end: float) -> None:
        lower, upper = (bound.copy() for bound in self.bounds.intervals[node.name])
        if sign > 0:
            upper.flat[unit.index] = min(upper.flat[unit.index], end)
        else:
            lower.flat[unit.index] = max(lower.flat[unit.index], -end)
        self._keep(node, (lower, upper))

    def _keep(self, node: Activate, found: Range) -> None:
        intervals = {**self.bounds.intervals, node.name: found}
        self.bounds = Bounds(self.box, intervals, "milp", self.trusted)

    def _piece(self, unit: Unit) -> int:
        """The piece that all points so far share, -1 if they show several."""
        return int(self.shown.pieces(unit.node).flat[unit.index])

    def _ends(self, node: Activate, unit: Unit, piece: int) -> Iterator[tuple[float, float]]:
        """(sign, e) such that sign * z <= e says z stays on that side of the piece."""
        breaks = node.function.broadcast_to(node.shape).breakpoints.reshape(node.function.pieces - 1, -1)[:, unit.index]
        if piece < len(breaks):
            yield 1.0, float(breaks[piece])
        if piece > 0:
            yield -1.0, -float(breaks[piece - 1])

    def _scale(self, node: Activate, place: int) -> float:
        """The power of two at the range of an element: dividing by it rounds nothing."""
        lower, upper = self.bounds.intervals[node.name]
        size = max(abs(lower.flat[place]), abs(upper.flat[place]))
        return float(2.0 ** np.clip(np.floor(np.log2(size)), -900, 900)) if 0 < size < np.inf else 1.0

    def _remaining(self) -> float:
        return self.settings.time_limit - (time.perf_counter() - self.begin)

    def _answer(self, node: Activate, place: int) -> ElementPhase:
        unit = Unit(node.name, place)
        lower, upper = self.bounds.intervals[node.name]
        ends = float(lower.flat[place]), float(upper.flat[place])
        stuck = int(node.function.stuck(lower, upper).flat[place])
        shown = self._piece(unit)
        if unit in self.verdicts:
            return ElementPhase(*ends, stuck if stuck >= 0 else shown, self.verdicts[unit])
        if stuck >= 0:
            return ElementPhase(*ends, stuck, Proved(_ranged(unit, stuck, "linear", ends, self.trusted)))
        if shown < 0:
            return ElementPhase(*ends, -1, Refuted(self.shown.witness(node.name, place)))
        return ElementPhase(*ends, shown, Unknown(self.obstacle or "time limit"))


def _ranged(unit: Unit, piece: int, method: str, ends: tuple[float, float], trusted: tuple[str, ...]) -> Proof:
    """The proof of a phase from the range of its element."""
    ranges = LinearBounds(np.array([ends[0]]), np.array([ends[1]]))
    return Proof(claim(unit, piece), method, (ranges, *map(Trusted, trusted)))


def claim(unit: Unit, piece: int) -> str:
    """The claim of a phase proof."""
    return str(Phase(unit.node, unit.index, piece))
