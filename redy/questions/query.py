"""One question about two networks on a box, and the branching engine's answer; `by_milp` gives the other.

`Within`: every output of the second network is near that of the first. `SameWinner`: the second network keeps the
decision. Both are clauses of the branching engine (`redy.condensed.search`) on the joint condensed form
(`redy.condensed.joint`); time-outs are `Unknown`.
What holds at ties is said in `redy.model.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from redy.bounds.linear import form_bounds
from redy.bounds.result import Bounds
from redy.condensed.climb import climb
from redy.condensed.form import Intervals, condense
from redy.condensed.joint import Joint, Pairs, join, stack
from redy.condensed.search import LOWER, UPPER, Clause, Found, Rows, Search
from redy.model import (
    Array,
    Box,
    BoxTree,
    Comparison,
    Network,
    Proof,
    Proved,
    Refuted,
    SameWinner,
    Unknown,
    Verdict,
    Within,
)
from redy.questions.situation import few_inputs

WORK = 300_000_000
"""Work of the engine for one question (see `redy.condensed.kernels.descent`), a few seconds."""
TRIED = 3
"""Points near a violation from which local search starts, at most."""
NOISE = 2.0**-40
"""What evaluation in float64 may add to a difference, relative to the outputs: less is no violation."""
GLANCE = 10
"""A tenth of the work is tried first: it often shows a point that refutes."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Does a claim about two networks hold on a box?

    Attributes:
        original: the network that the claim starts from.
        reduced: the other one; same inputs and outputs.
        box: the inputs.
        claim: what is asked.
        known: sound pre-activation bounds of the original, may be empty.
        pairs: partners of the reduced network's units (see `redy.condensed.joint`); by name and place by default.
    """

    original: Network
    reduced: Network
    box: Box
    claim: Comparison
    known: Intervals = field(default_factory=dict)
    pairs: Pairs | None = None


def violation(query: Query, points: Array) -> Array:
    """(m,) how far the claim is broken at points (m, *input shape), in float64: positive where it fails.

    For `Within` the largest |y - y'| - tolerance, less what evaluation may add; for `SameWinner` the largest amount by
    which a beaten output wins.
    """
    return broken(query.claim, outputs(query.original, points), outputs(query.reduced, points))


def broken(claim: Comparison, y: Array, z: Array) -> Array:
    """`violation` for the outputs (m, outputs) of both networks."""
    if isinstance(claim, Within):
        noise = NOISE * np.abs(y).max(axis=1, initial=0.0)
        return np.asarray((np.abs(y - z) - claim.tolerance).max(axis=1) - noise)
    sign = 1.0 if claim.winner == "max" else -1.0
    y, z = sign * y, sign * z
    best = y.max(axis=1, keepdims=True)
    beaten = best - y > claim.margin
    # At a tie every tied output is a winner, and the one that does worst in the other network counts.
    kept = np.where(y == best, z, np.inf).min(axis=1, keepdims=True)
    return np.asarray(np.where(beaten, z - kept + claim.ahead, -np.inf).max(axis=1))


def outputs(network: Network, points: Array) -> Array:
    """All outputs flattened, one after the other, as (m, outputs)."""
    shaped = points.reshape(len(points), *network.input.shape)
    values = network.trace(shaped, keep=[port.name for port in network.outputs])
    return np.concatenate([values[port.name].reshape(len(points), -1) for port in network.outputs], axis=1)


def ask(query: Query, *, budget: int = WORK, deadline: float | None = None) -> Verdict:
    """The branching engine's answer.

    Args:
        query: the question.
        budget: work, at most (deterministic).
        deadline: `time.monotonic()` at which the search ends.

    Raises:
        Unsupported: a node of either network cannot be condensed.
        InputError: the networks do not fit together.
    """
    joint = join(query.original, query.reduced, query.box, query.known, query.pairs)
    verdict: Verdict = Unknown("nothing was asked")
    for work in (max(1, budget // GLANCE), budget):
        if isinstance(query.claim, Within):
            found = _within(joint, query.claim, work, deadline)
        else:
            found = _same_winner(joint, query.claim, work, deadline)
        verdict = _judged(query, found)
        # A search goes on with the other clauses after one was refuted, which is all that is asked here.
        if found.refuted or not isinstance(verdict, Unknown):
            break
    return verdict


def _judged(query: Query, found: Found) -> Verdict:
    points = _shaped(query, found.refuted.values())
    if not len(points) and found.open:
        near = _shaped(query, found.open.values())
        best = np.argsort(-violation(query, near), kind="stable")[:TRIED]
        lower, upper = query.box.lower.ravel(), query.box.upper.ravel()
        # Where nothing is beaten the violation is minus infinity, which has no slope.
        with np.errstate(invalid="ignore"):
            risen = [climb(partial(violation, query), lower, upper, near[k].ravel()) for k in best]
        points = _shaped(query, [point for point in risen if violation(query, point[None])[0] > 0])
    if len(points):
        worst = violation(query, points)
        if worst.max() > 0:
            return Refuted(points[int(worst.argmax())])
        return Unknown("a point within rounding, or within half the margin, of breaking the claim")
    if found.open:
        return Unknown("budget or time limit")
    evidence = BoxTree(found.tree, query.box)
    return Proved(Proof(str(query.claim), "branch", (evidence,)))


def _shaped(query: Query, points: Iterable[Array]) -> Array:
    """Points (n,) as points of the box, (m, *input shape)."""
    flat = [point.reshape(query.box.shape) for point in points]
    return query.box.clip(np.stack(flat)) if flat else np.zeros((0, *query.box.shape))


def _within(joint: Joint, claim: Within, budget: int, deadline: float | None) -> Found:
    apart = joint.apart
    rows = stack([joint.shifted(apart, sign * claim.tolerance) for sign in (1.0, -1.0)], len(joint.condensed.variables))
    laid = Rows.of(joint.condensed, rows)
    count = len(apart.b)
    clauses = [Clause(((laid.variables + k, LOWER if k < count else UPPER),)) for k in range(2 * count)]
    return Search(laid, clauses, cap=budget, budget=budget, deadline=deadline).run()


def _same_winner(joint: Joint, claim: SameWinner, budget: int, deadline: float | None) -> Found:
    laid, kept = decision_rows(joint, claim)
    clauses = [Clause(literals) for literals in kept.values()]
    return Search(laid, clauses, cap=budget, budget=budget, deadline=deadline).run()


def decision_rows(joint: Joint, claim: SameWinner) -> tuple[Rows, dict[tuple[int, int], tuple[tuple[int, int], ...]]]:
    """Rows, and per pair (i, o) the clause: o is not beaten by more than the margin, i does not win, or i stays ahead.

    "Wins" and "beaten" are about the first network, "stays ahead of o" about the second: either its lead is bounded, or
    by how much the lead drifts from that of the first network.
    """
    outputs = len(joint.first.b)
    pairs = all_pairs(outputs)
    winners, others = pairs.T
    if claim.winner == "min":
        winners, others = others, winners
    margin = claim.margin
    blocks = [
        joint.lead(True, winners, others, -claim.ahead),
        joint.drift(winners, others, claim.ahead - margin),
        joint.lead(False, winners, others, -margin),
        joint.lead(False, winners, others, -margin / 2),
    ]
    laid = Rows.of(joint.condensed, stack(blocks, len(joint.condensed.variables)))
    number = {(int(i), int(o)): k for k, (i, o) in enumerate(pairs)}
    base, size = laid.variables, len(pairs)
    literals = {}
    for (i, o), k in number.items():
        beaten = [(base + 3 * size + number[other, i], LOWER) for other in range(outputs) if other not in {i, o}]
        literals[i, o] = (base + k, LOWER), (base + size + k, UPPER), (base + 2 * size + k, UPPER), *beaten
    return laid, literals


def all_pairs(count: int) -> NDArray[np.int64]:
    """All ordered pairs (i, o) of different numbers below `count`, as (pairs, 2)."""
    return np.array([(i, o) for i in range(count) for o in range(count) if i != o], dtype=np.int64).reshape(-1, 2)


def constant_winner(
    network: Network,
    box: Box,
    claim: SameWinner,
    known: Intervals,
    *,
    budget: int = WORK,
    deadline: float | None = None,
) -> int | None:
    """The output that leads by at least half the margin on the whole box; None if there is none or it is not proved.

    Without a budget, and where many inputs vary, linear bounds alone are asked.

    Raises:
        Unsupported: a node of the network cannot be condensed.
    """
    sign = 1.0 if claim.winner == "max" else -1.0
    best = int((sign * outputs(network, box.center[None])[0]).argmax())
    count = sum(math.prod(port.shape) for port in network.outputs)
    others = np.array([o for o in range(count) if o != best], dtype=np.int64)
    if _leads_linearly(network, box, known, sign, best, others, claim.margin / 2):
        return best
    if not budget or not few_inputs(box):
        return None
    walk = condense(network, box, known)
    form = stack([walk.forms[port.name] for port in network.outputs], len(walk.condensed.variables))
    if not others.size:
        return best
    lead = form[np.full(others.size, best)].plus(form[others], -1.0, condensed=walk.condensed)
    ones = np.ones(others.size)
    lead = lead.scaled(sign * ones, -claim.margin / 2 * ones, condensed=walk.condensed)
    rows = Rows.of(walk.condensed, lead)
    clauses = [Clause(((rows.variables + k, LOWER),)) for k in range(others.size)]
    found = Search(rows, clauses, cap=budget, budget=budget, deadline=deadline).run()
    return best if len(found.proved) == len(clauses) else None


def _leads_linearly(
    network: Network, box: Box, known: Intervals, sign: float, best: int, others: NDArray[np.int64], margin: float
) -> bool:
    """Whether linear bounds of the leads alone show them, which need no condensed form."""
    forms = np.zeros((others.size, len(others) + 1))
    forms[:, best] = sign
    forms[np.arange(others.size), others] = -sign
    port = network.outputs[0]
    lower, _ = form_bounds(network, Bounds(box, dict(known), "known"), port.name, forms.reshape(-1, *port.shape))
    return bool((lower >= margin).all())
