"""Result-preserving redundancy: the decision stays, the outputs need not.

Lahav and Katz, "Pruning and Slicing Neural Networks using Formal Verification" (FMCAD 2021), section IV. First the
cheap question whether the decision is constant on the box: then every unit becomes a constant, and so does the
network. Otherwise units become one of their own pieces. Near the border between two decisions hardly anything may
change, so the piece is the one in which points of the border lie, and units that leave it there are not candidates;
away from the border there is room. The set is found by `redy.redundancy.leaving`, which asks only about points where
units leave their pieces; where a solver answers, by the counterexample loop of `redy.redundancy.relaxed`. What holds at
ties is said in `redy.model.claims`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redy.model import Activate, Array, Finding, Line, Proof, Proved, Unit
from redy.model.claims import SameWinner
from redy.questions.ask import asks_solver
from redy.questions.leaving import never_winning
from redy.questions.query import Query, constant_winner, outputs
from redy.questions.simulate import borders, effects
from redy.redundancy.leaving import LeavingSearch
from redy.redundancy.lines import exact_intercept, line_error, unit_function
from redy.redundancy.relaxed import Asker, Facts, SetAnswer, SetSearch
from redy.rewrite.dense import is_vector

_BORDER = 1000
"""Pairs of points between which a border is looked for."""
POINTS = 400
"""Points of the border, at most about, on which sets are guessed."""
NEVER = 4
"""The part of the work on one query that goes into outputs that seem not to win."""
_MORE = 20_000
"""Points drawn where those at hand show one winner only, although the decision was not proved constant."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A decision that is constant on the box.

    Attributes:
        winner: the output that wins everywhere.
        findings: a constant for every neuron.
    """

    winner: int
    findings: tuple[Finding, ...]


def find_constant(facts: Facts, claim: SameWinner) -> Constant | None:
    """A constant for every neuron where the decision is constant on the box; None where that is not proved.

    The constants are the values at the centre of the box, where the winner leads like everywhere else.
    """
    units = all_neurons(facts)
    sign = 1.0 if claim.winner == "max" else -1.0
    values = sign * outputs(facts.network, facts.points)
    if not units or len(set(values.argmax(axis=1).tolist())) > 1:
        return None
    best = constant_winner(
        facts.network, facts.box, claim, facts.intervals, budget=facts.budget, deadline=facts.deadline
    )
    if best is None:
        return None
    proof = Proof(
        f"output {best} wins by at least {claim.margin / 2:.3g} on the whole box",
        "branch" if facts.budget else "linear",
    )
    trace = facts.network.trace(facts.box.center[None])
    found = []
    for unit in units:
        line = Line(0.0, float(trace[unit.node].ravel()[unit.index]))
        found.append(Finding(unit, "result", line, _error(facts, unit, line), Proved(proof)))
    return Constant(best, tuple(found))


def all_neurons(facts: Facts) -> list[Unit]:
    """Every neuron; empty where no layer of neurons is left on some way to an output (constants would not reach it)."""
    nodes = [node for node in facts.network.activations if is_vector(node.shape)]
    constant = {node.name for node in nodes}
    for node in facts.network.nodes:
        if node.name not in constant and node.sources and all(source in constant for source in node.sources):
            constant.add(node.name)
    if not all(port.name in constant for port in facts.network.outputs):
        return []
    return [Unit(node.name, k) for node in nodes for k in range(math.prod(node.shape))]


def find_result(facts: Facts, claim: SameWinner, asker: Asker | None = None) -> SetAnswer:
    """A set of units that can become one of their pieces while the decision stays.

    Args:
        facts: network, box, bounds, earlier findings, limits.
        claim: which decision, and what counts as a tie.
        asker: answers queries; `Facts.ask` by default.
    """
    sign = 1.0 if claim.winner == "max" else -1.0
    points, winners = facts.points, (sign * outputs(facts.network, facts.points)).argmax(axis=1)
    if len(set(winners.tolist())) == 1:
        more = facts.box.sample(_MORE, np.random.default_rng(1))
        others = (sign * outputs(facts.network, more)).argmax(axis=1)
        rare = np.flatnonzero(others != winners[0])[:_BORDER]
        points, winners = np.concatenate([points, more[rare]]), np.concatenate([winners, others[rare]])
    border = borders(facts.network, points, winners, sign, _BORDER, seed=0)
    if not len(border):
        return SetAnswer(note="no border between decisions was found")
    pieces = _pieces_at(facts, border)
    query = Query(facts.network, facts.network, facts.box, claim, facts.intervals)
    exact = all(finding.kind == "phase" and not finding.error for finding in facts.findings)
    if asker is None and exact and not asks_solver(facts.situation(query)):
        met = set(winners.tolist())
        suspects = [o for o in range(sum(math.prod(port.shape) for port in facts.network.outputs)) if o not in met]
        never = never_winning(query, suspects, budget=facts.budget // NEVER, deadline=facts.deadline)
        return LeavingSearch(facts, claim, pieces, never).run()
    lines = {unit: line for unit, (_, line) in pieces.items()}
    search = SetSearch(facts, claim, "result", asker or facts.ask)
    search.points = np.concatenate([search.points, border[:: max(1, len(border) // POINTS)]])

    def loads(points: Array) -> Array:
        y = sign * outputs(facts.network, points)
        at = np.arange(len(y)), y.argmax(axis=1)
        room = np.maximum(y[at][:, None] - y, claim.margin)
        change = sign * effects(facts.network, points, lines)
        loss = (change - change[at][:, None]) / room[:, :, None]
        return np.asarray(loss.reshape(-1, loss.shape[2]))

    return search.run(lines, loads)


def _pieces_at(facts: Facts, border: Array) -> dict[Unit, tuple[int, Line]]:
    """Per open unit that lies in one piece at all points of the border: the piece and its line, if that is exact."""
    trace = facts.network.trace(border)
    found = {}
    for unit in facts.open_units():
        node = facts.network.by_name[unit.node]
        assert isinstance(node, Activate)
        z = trace[node.source].reshape(len(border), -1)[:, unit.index]
        function = unit_function(node, unit.index)
        piece = int(function.stuck(np.array(z.min()), np.array(z.max())))
        if piece >= 0:
            intercept = exact_intercept(function, piece)
            if float(intercept) == intercept:
                found[unit] = piece, Line(float(function.slopes[piece]), float(intercept))
    return found


def _error(facts: Facts, unit: Unit, line: Line) -> float:
    node = facts.network.by_name[unit.node]
    assert isinstance(node, Activate)
    if unit.node not in facts.intervals:
        return math.inf
    lower, upper = (float(end.ravel()[unit.index]) for end in facts.intervals[unit.node])
    return line_error(unit_function(node, unit.index), lower, upper, line)
