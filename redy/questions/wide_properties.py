"""Properties of networks with many inputs that vary: attack, linear bounds, splits of unstable units, the solver.

The rows of the constraints become units behind the network, shifted so that a unit that is always active leaves its row
positive by a margin. A conjunction is closed if one of its rows is always positive; where it takes several rows
together, a mixed-integer program asks how negative one of them gets where the others are met.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from redy.bounds import activation_branching
from redy.bounds.linear import WORK as LINEAR_WORK
from redy.bounds.linear import form_bounds, linear_bounds
from redy.bounds.result import Bounds
from redy.errors import InputError, Unsupported
from redy.milp.encode import Encoding
from redy.milp.solver import Choice, solve
from redy.milp.tree import search
from redy.model import (
    Activate,
    Affine,
    Array,
    Box,
    Conjunction,
    Dense,
    Evidence,
    Limits,
    LinearBounds,
    Network,
    PhaseTree,
    Port,
    Proof,
    Property,
    Proved,
    Refuted,
    Term,
    Trusted,
    Unknown,
    Verdict,
)
from redy.model.functions import relu
from redy.questions.attack import attack
from redy.questions.by_milp import SLACK, at_least
from redy.questions.constraints import NAME, constrained
from redy.questions.situation import Situation
from redy.questions.witness import Witnesses

QUICK, LONG = range(2), range(2, 24)
"""Rounds of the attack before and after linear bounds."""
POINTS = 64
"""Points that splits and solvers start from."""
SPLIT_SHARE = 0.5
"""The part of the time that splits have; the solver has the rest."""
MARGIN = 1e-9
"""By how much a row must be positive, as a share of the size of its coefficients, where splits or programs show it."""
UNITS = 5_000
"""Units up to which mixed-integer programs are asked."""
_TREE = 2_000
"""Certified linear programs asked per conjunction."""


class WideSearch:
    """The search for the verdict on one property of a network with many inputs: `run` it once."""

    def __init__(self, claim: Property, situation: Situation, limits: Limits) -> None:
        self.claim, self.network, self.limits, self.engines = claim, situation.network, limits, situation.engines
        self.witnesses = Witnesses(situation.network, situation.run)
        self.evidence: list[Evidence] = []

    def run(self) -> Verdict:
        """Box by box."""
        reasons: list[str] = []
        for number, (box, group) in enumerate(boxes := self.claim.boxes().items()):
            verdict = self._box(box, group, self.limits.share(1 / (len(boxes) - number)))
            if isinstance(verdict, Refuted):
                return verdict
            if isinstance(verdict, Unknown):
                reasons.append(verdict.reason)
        if reasons:
            return Unknown(reasons[0])
        return Proved(Proof(str(self.claim), "linear", tuple(self.evidence)))

    def _box(self, box: Box, group: list[Conjunction], limits: Limits) -> Verdict:
        if (witness := self._attack(group, QUICK, limits)) is not None:
            return Refuted(witness)
        network, places = constrained(self.network, group)
        rows = np.eye(math.prod(network.outputs[0].shape))
        try:
            work = Limits(LINEAR_WORK, limits.deadline)
            bounds = linear_bounds(network, box, leave_unsupported=True, limits=work)
            low, high = form_bounds(network, bounds, NAME, rows)
        except Unsupported as error:
            witness = self._attack(group, LONG, limits)
            return Unknown(str(error)) if witness is None else Refuted(witness)
        self.evidence.append(LinearBounds(low, high))
        open_ = [k for k, own in enumerate(places) if not (low[own] > 0).any()]
        if open_ and (witness := self._attack([group[k] for k in open_], LONG, limits)) is not None:
            return Refuted(witness)
        if open_ and self.engines.engine != "linear" and not limits.expired():
            bounds, open_ = self._split(network, bounds, places, open_, limits.share(SPLIT_SHARE))
        if open_ and self.engines.engine in ("auto", "milp") and self.network.units <= UNITS:
            return self._solve(network, bounds, [group[k] for k in open_], [places[k] for k in open_], limits)
        return Unknown("budget or time limit") if open_ else Proved(Proof(str(self.claim), "linear"))

    def _attack(self, group: list[Conjunction], rounds: range, limits: Limits) -> Array | None:
        for conjunction in group:
            for points, values in attack(self.network, conjunction, rounds):
                if values[0] <= 0 and (found := self.witnesses.confirmed(conjunction, points[:3])) is not None:
                    return found
                if limits.expired():
                    return None
        return None

    def _split(
        self, network: Network, bounds: Bounds, places: list[NDArray[np.int64]], open_: list[int], limits: Limits
    ) -> tuple[Bounds, list[int]]:
        """Bounds after splits of unstable units, and the conjunctions still open."""
        asked = np.unique(np.concatenate([places[k] for k in open_]))
        behind = _as_units(network, asked)
        points = np.concatenate([bounds.box.sample(POINTS, np.random.default_rng(0)), bounds.box.center[None]])
        own = Limits(activation_branching.WORK, limits.deadline)
        found = activation_branching.branch(behind, bounds.box, linear_bounds(behind, bounds.box), points, own)
        low = np.full(asked.max() + 1, -np.inf)
        low[asked] = found.bounds.intervals[f"{NAME}: units"][0]
        self.evidence.append(PhaseTree(found.parts))
        inner = {name: ends for name, ends in found.bounds.intervals.items() if name in bounds.intervals}
        left = [k for k in open_ if not (low[places[k]] >= 0).any()]
        return Bounds(bounds.box, inner, "split", found.bounds.trusted), left

    def _solve(
        self,
        network: Network,
        bounds: Bounds,
        group: list[Conjunction],
        places: list[NDArray[np.int64]],
        limits: Limits,
    ) -> Verdict:
        """Mixed-integer programs for what is left."""
        encoding = Encoding(bounds.box)
        try:
            encoding.add(network, bounds, [NAME])
        except Unsupported as error:
            return Unknown(str(error))
        for conjunction, own in zip(group, places, strict=True):
            if limits.expired():
                return Unknown("time limit")
            verdict = self._program(encoding, conjunction, own, limits)
            if not isinstance(verdict, Proved):
                return verdict
        return Proved(Proof(str(self.claim), "milp"))

    def _program(self, encoding: Encoding, conjunction: Conjunction, own: NDArray[np.int64], limits: Limits) -> Verdict:
        """How negative the first row of a conjunction gets where the other rows are met."""
        if not own.size:
            return Unknown("no input of the network's float type lies in the box")
        program = encoding.program()
        for row in own[1:]:
            coefficients, constant = encoding.element(NAME, int(row), -1.0)
            program = at_least(program, coefficients, -constant)
        program = program.aimed_at(*encoding.element(NAME, int(own[0]), -1.0))
        target = -float(_margins(conjunction)[0])
        choice: Choice = self.engines.solver
        try:
            outcome = solve(program, limits.remaining(), choice)
        except InputError as error:
            return Unknown(str(error))
        if outcome.point is not None:
            point = encoding.box.clip(outcome.point[: encoding.box.size].reshape(1, *encoding.box.shape))
            if (witness := self.witnesses.confirmed(conjunction, point)) is not None:
                return Refuted(witness)
        tree = search(program, target, limits.remaining(), node_limit=_TREE)
        if tree.closed:
            self.evidence.append(tree.multipliers)
            return Proved(Proof(str(self.claim), "milp"))
        trust = self.engines.trust or self.engines.engine == "milp"
        if trust and (outcome.status == "infeasible" or (outcome.counts and outcome.bound + SLACK <= target)):
            self.evidence.append(Trusted(f"{outcome.solver} dual bound, slack {SLACK:g}"))
            return Proved(Proof(str(self.claim), "milp"))
        return Unknown("time limit" if outcome.status == "limit" else "no bound that can be re-derived")


def _margins(conjunction: Conjunction) -> Array:
    size = np.abs(conjunction.outputs).sum(axis=1) + np.abs(conjunction.inputs).sum(axis=1)
    return np.asarray(MARGIN * np.maximum(size + np.abs(conjunction.constants), 1e-30))


def _as_units(network: Network, asked: NDArray[np.int64]) -> Network:
    """The rows asked about as ReLUs behind the network, each shifted down by its margin."""
    node = network.nodes[-1]
    assert isinstance(node, Affine)
    terms = tuple(
        Term(term.source, Dense(term.operator.matrix()[asked], term.operator.in_shape, (asked.size,)))
        for term in node.terms
    )
    size = sum(np.abs(term.operator.matrix()).sum(axis=1) for term in terms) + np.abs(node.bias[asked])
    margin = MARGIN * np.maximum(size, 1e-30)
    rows = Affine(NAME, terms, node.bias[asked] - margin)
    units = Activate(f"{NAME}: units", NAME, relu(), rows.shape)
    return replace(network, nodes=(*network.nodes[:-1], rows, units), outputs=(Port(units.name, units.shape),))
