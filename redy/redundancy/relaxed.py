"""Relaxed redundancy: units become lines that are only near them, as many as a tolerance on the outputs allows.

Lahav and Katz, "Pruning and Slicing Neural Networks using Formal Verification" (FMCAD 2021), section IV, replace single
units and add up bounds. Here the whole set is found by a counterexample loop: guess a set on points with linearised
effects (`redy.questions.simulate`), verify it with one query on the joint condensed form, add the witness to the
points, guess again. The error of the set is thus its real joint error, not a sum of worst cases.

Lines are the best ones on the range that points and ascent show of the unit; whatever the line, the query decides, and
the error stated with a finding is its largest distance from the activation on the sound range.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from redy.condensed.form import Intervals
from redy.model import (
    Activate,
    Array,
    Box,
    Finding,
    Limits,
    Line,
    Network,
    PiecewiseLinear,
    Proof,
    Proved,
    Refuted,
    Unit,
    Verdict,
)
from redy.model.claims import Comparison, Within
from redy.questions.ask import ask
from redy.questions.query import Query, outputs, violation
from redy.questions.reached import reached
from redy.questions.simulate import ascend, effects, guess
from redy.questions.situation import Engines, Situation
from redy.redundancy.lines import line_error, spare_line, unit_function
from redy.rewrite import Refusal, apply_findings, is_channel
from redy.rewrite.dense import is_vector

WORK = 600_000_000
"""Work of the engine for one query of the loop: a few seconds."""
POINTS = 1024
"""Points on which a set is guessed, at most, besides witnesses."""
THRESHOLDS = (1.0, 0.7, 0.5, 0.35)
ROUNDS = 24
STARTS = 6
"""Points from which local search tries to refute a guess before a query is asked."""
_SHRINK = 0.8
"""After a query without an answer fewer units are tried, and this share of what was allowed before."""
_UNANSWERED = 6
"""Queries without an answer after which the search ends."""
_DEEPER = 3.0
"""How much harder to prove a unit is for each layer of activations behind it."""
_NEAR = 30
"""The largest proved set is looked for up to this part of all units."""

Asker = Callable[[Query], Verdict]
LineChoice = Callable[[PiecewiseLinear, float, float], Line]


@dataclass(slots=True)
class SetAnswer:
    """A set of units that may be replaced together.

    Attributes:
        findings: one per unit of the set; they hold together, not one by one.
        witnesses: points that refuted other sets.
        queries: questions asked.
        note: why the set is not larger, where a limit ended the search.
    """

    findings: tuple[Finding, ...] = ()
    witnesses: list[Array] = field(default_factory=list)
    queries: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is known before a set is searched.

    Attributes:
        network: the original.
        box: the inputs.
        intervals: sound pre-activation bounds of the original.
        findings: found before; they stay.
        points: points of the box (m, *input shape).
        budget: work of the engine for one query.
        deadline: `time.monotonic()` at which the search ends, or None.
        starts: points from which local search tries to refute a guess before a query is asked, at least 1.
        engines: who may answer queries.
    """

    network: Network
    box: Box
    intervals: Intervals
    findings: tuple[Finding, ...]
    points: Array
    budget: int = WORK
    deadline: float | None = None
    starts: int = STARTS
    engines: Engines = field(default_factory=Engines)

    def expired(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def open_units(self) -> list[Unit]:
        """Neurons without a finding whose activation can be replaced on its own, with known finite bounds."""
        done = {finding.unit for finding in self.findings}
        units: list[Unit] = []
        for node in self.network.activations:
            if not is_vector(node.shape) or node.name not in self.intervals:
                continue
            lower, upper = (end.ravel() for end in self.intervals[node.name])
            usable = np.flatnonzero(np.isfinite(lower) & np.isfinite(upper))
            units.extend(Unit(node.name, int(k)) for k in usable if Unit(node.name, int(k)) not in done)
        return units

    def ask(self, query: Query) -> Verdict:
        """The answer to a query within the limits."""
        limits = Limits(self.budget, math.inf if self.deadline is None else self.deadline)
        return ask(query.claim, self.situation(query), limits)

    def situation(self, query: Query) -> Situation:
        """Where a query starts from."""
        return Situation(query.original, query.box, query.reduced, query.known, pairs=query.pairs, engines=self.engines)


def find_relaxed(
    facts: Facts, tolerance: Array, asker: Asker | None = None, line: LineChoice = spare_line
) -> SetAnswer:
    """A large set of units that can become lines while every output element stays within its tolerance.

    Args:
        facts: network, box, bounds, earlier findings, limits.
        tolerance: one positive number per output element, flattened.
        asker: answers queries; `Facts.ask` by default.
        line: the line for a unit's function on a range.
    """
    units = facts.open_units()
    lines = {unit: line(_function(facts.network, unit), *reach) for unit, reach in met_ranges(facts, units).items()}
    search = SetSearch(facts, Within(tolerance), "relaxed", asker or facts.ask)
    return search.run(lines, lambda points: _loads(facts.network, points, lines, tolerance))


def _loads(network: Network, points: Array, lines: Mapping[Unit, Line], tolerance: Array) -> Array:
    """Shares of the tolerance that each line uses up at each point and output, in both directions."""
    shares = effects(network, points, lines) / np.maximum(tolerance, 1e-300)[:, None]
    flat = shares.reshape(-1, shares.shape[2])
    return np.concatenate([flat, -flat])


def _function(network: Network, unit: Unit) -> PiecewiseLinear:
    node = network.by_name[unit.node]
    assert isinstance(node, Activate)
    return unit_function(node, unit.index)


def met_ranges(facts: Facts, units: Sequence[Unit]) -> dict[Unit, tuple[float, float]]:
    """The smallest and largest pre-activation of units met at points and by ascent; the real range is wider.

    A line that fits the points alone can be far off in a corner that no point reaches: its error there is large, and
    samples do not show it.
    """
    values = facts.network.trace(facts.points[:POINTS])
    ranges = {}
    for unit in units:
        node = facts.network.by_name[unit.node]
        assert isinstance(node, Activate)
        z = values[node.source].reshape(len(values[node.source]), -1)[:, unit.index]
        ranges[unit] = float(z.min()), float(z.max())
    for unit, (low, high) in reached(facts.network, facts.box, facts.intervals).items():
        if unit in ranges:
            begin, end = ranges[unit]
            ranges[unit] = min(begin, low), max(end, high)
    return ranges


def with_lines(facts: Facts, units: Sequence[Unit], lines: Mapping[Unit, Line]) -> Network:
    """The network with the findings made before and these units as lines.

    Findings about channels, which hold for the network as it is, are left out: only neurons are replaced on their own.
    """
    proof = Proved(Proof("guessed", "simulation"))
    guessed = [Finding(unit, "guessed", lines[unit], 0.0, proof) for unit in units]
    before = [finding for finding in facts.findings if not is_channel(facts.network, finding)]
    lined = apply_findings(facts.network, [*before, *guessed])
    assert not isinstance(lined, Refusal)
    return lined


def finding_of(facts: Facts, kind: str, unit: Unit, line: Line, proof: Proof) -> Finding:
    """A unit of a proved set, with the largest distance of its line from the activation."""
    node = facts.network.by_name[unit.node]
    assert isinstance(node, Activate)
    lower, upper = (float(end.ravel()[unit.index]) for end in facts.intervals[unit.node])
    return Finding(unit, kind, line, line_error(unit_function(node, unit.index), lower, upper, line), Proved(proof))


class SetSearch:
    """The counterexample loop, for any claim about the network with a set of lines in place."""

    def __init__(self, facts: Facts, claim: Comparison, kind: str, asker: Asker) -> None:
        self.facts, self.claim, self.kind, self.asker = facts, claim, kind, asker
        self.points = facts.points[-POINTS:] if len(facts.points) > POINTS else facts.points

    def run(self, lines: Mapping[Unit, Line], loads: Callable[[Array], Array]) -> SetAnswer:
        """Guess, ask, learn from the witness; halve the set where no answer comes, then look for the largest proved."""
        answer, share = SetAnswer(), 1.0
        units = list(lines)
        cost = self._costs(units)
        most, failed, unanswered = len(units), len(units) + 1, 0
        shares = loads(self.points) if units else np.zeros((0, 0))
        for _ in range(ROUNDS):
            if self.facts.expired():
                answer.note = "time limit"
                return answer
            chosen = guess(shares / share, partial(self._works, units, lines, share), THRESHOLDS, most, cost)
            if len(chosen) <= len(answer.findings):
                return answer
            picked = [units[k] for k in chosen]
            reduced = with_lines(self.facts, picked, lines)
            if (attacked := self._attack(reduced)) is not None:
                self.points = np.concatenate([self.points, attacked])
                shares = np.concatenate([shares, loads(attacked)])
                continue
            answer.queries += 1
            verdict = self.asker(Query(self.facts.network, reduced, self.facts.box, self.claim, self.facts.intervals))
            if isinstance(verdict, Proved):
                answer.findings = tuple(
                    finding_of(self.facts, self.kind, unit, lines[unit], verdict.proof) for unit in picked
                )
                if failed - len(picked) <= 1 + len(units) // _NEAR or not unanswered:
                    return answer
                most = (len(picked) + failed) // 2
            elif isinstance(verdict, Refuted):
                fresh = self._near(verdict.witness, reduced)
                answer.witnesses.append(verdict.witness)
                self.points = np.concatenate([self.points, fresh])
                shares = np.concatenate([shares, loads(fresh)])
                share *= 0.97
            else:
                failed, share = min(failed, len(picked)), share * _SHRINK
                most, unanswered = (len(answer.findings) + failed) // 2, unanswered + 1
                answer.note = verdict.reason
                if unanswered == _UNANSWERED:
                    return answer
        answer.note = "the budget of queries is spent"
        return answer

    def _costs(self, units: Sequence[Unit]) -> Array:
        """How hard to prove a unit is: a change grows looser with every layer of activations that it passes."""
        network = self.facts.network
        depth: dict[str, int] = {}
        for node in reversed(network.nodes):
            behind = max((depth[reader.name] for reader in network.readers[node.name]), default=0)
            depth[node.name] = behind + isinstance(node, Activate)
        return np.array([_DEEPER ** depth[unit.node] for unit in units])

    def _works(self, units: Sequence[Unit], lines: Mapping[Unit, Line], share: float, part: Sequence[int]) -> bool:
        """Whether no point refutes the set, evaluated for what it is, with `share` of what is allowed."""
        query = Query(
            self.facts.network, with_lines(self.facts, [units[k] for k in part], lines), self.facts.box, self.claim
        )
        if isinstance(self.claim, Within):
            query = Query(query.original, query.reduced, query.box, Within(self.claim.tolerance * share))
        return bool(violation(query, self.points).max(initial=-np.inf) <= 0)

    def _attack(self, reduced: Network) -> Array | None:
        """Points near the most different ones where the claim fails, if local search finds any."""
        apart = np.abs(outputs(self.facts.network, self.points) - outputs(reduced, self.points)).max(axis=1)
        starts = self.points[np.argsort(-apart, kind="stable")[: self.facts.starts]]
        found = ascend(self.facts.network, reduced, self.facts.box, starts)
        broken = violation(Query(self.facts.network, reduced, self.facts.box, self.claim), found) > 0
        return found[broken] if broken.any() else None

    def _near(self, witness: Array, reduced: Network) -> Array:
        """The witness, and the worst point found by ascent from it."""
        return np.concatenate([witness[None], ascend(self.facts.network, reduced, self.facts.box, witness[None])])
