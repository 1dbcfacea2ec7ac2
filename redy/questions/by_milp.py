"""The other answer to a query: mixed-integer programs on a network and its duplicate, the part before them shared.

The published way (Lahav and Katz, FMCAD 2021, section IV, with a solver in place of Marabou). One program per output
and direction, or per pair of outputs. A point that a solver proposes counts only if evaluation confirms it; its dual
bound counts where certified linear programs re-derive it (`redy.milp.tree`), or where the caller trusts the solver.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds
from redy.milp.encode import Encoding
from redy.milp.program import Program
from redy.milp.solver import Choice, solve
from redy.milp.tree import search
from redy.model import Array, Evidence, Network, Proof, Proved, Refuted, SameWinner, Trusted, Unknown, Verdict, Within
from redy.questions.query import Query, all_pairs, violation

SLACK = 1e-6
"""What a trusted dual bound must leave, relative to the size of what is compared."""
_TREE = 500
"""Certified linear programs asked per question."""
_COPY = "copy of "


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """The maximum of a program is at most `most` (scaled by `size`)."""

    program: Program
    most: float
    size: float


def ask_milp(query: Query, *, time_limit: float, solver: Choice = "auto", trust: bool = False) -> Verdict:
    """The solver's answer to a query.

    Args:
        query: the question.
        time_limit: seconds for everything.
        solver: which one.
        trust: count a dual bound that redy did not re-derive; the proof then names it.

    Raises:
        InputError: the solver that was chosen by name cannot answer.
        Unsupported: a node cannot be encoded.
    """
    deadline = time.monotonic() + time_limit
    evidence: list[Evidence] = []
    for question in _questions(query):
        left = deadline - time.monotonic()
        if left <= 0:
            return Unknown("time limit")
        outcome = solve(question.program, left, solver)
        if outcome.point is not None:
            witness = query.box.clip(outcome.point[: query.box.size].reshape(1, *query.box.shape))
            if violation(query, witness)[0] > 0:
                return Refuted(witness[0])
        tree = search(question.program, question.most, max(0.0, deadline - time.monotonic()), node_limit=_TREE)
        if tree.closed:
            evidence.append(tree.multipliers)
            continue
        empty = outcome.status == "infeasible" and isinstance(query.claim, SameWinner)
        if not (trust and (empty or (outcome.counts and outcome.bound + SLACK * question.size <= question.most))):
            return Unknown("time limit" if outcome.status == "limit" else "no bound that can be re-derived")
        evidence.append(Trusted(f"{outcome.solver} dual bound, slack {SLACK:g}"))
    return Proved(Proof(str(query.claim), "milp", tuple(evidence)))


def _questions(query: Query) -> Iterator[_Question]:
    encoding = Encoding(query.box)
    known = Bounds(query.box, dict(query.known), "known")
    encoding.add(query.original, linear_bounds(query.original, query.box, known))
    encoding.add(query.reduced, linear_bounds(query.reduced, query.box), prefix=_COPY, shared=query.original)
    count = sum(math.prod(port.shape) for port in query.original.outputs)
    if isinstance(query.claim, Within):
        size = max(float(query.claim.tolerance.max(initial=0.0)), 1e-30)
        for place in range(count):
            for sign in (1.0, -1.0):
                weights = np.zeros(count)
                weights[place] = sign
                goal = encoding.objective(_merged(_weights(encoding, query, weights, -weights)))
                yield _Question(encoding.program().aimed_at(*goal), float(query.claim.tolerance[place]), size)
        return
    yield from _decisions(query, encoding, query.claim, count)


def _decisions(query: Query, encoding: Encoding, claim: SameWinner, count: int) -> Iterator[_Question]:
    """Per pair (i, o): the largest lead of o over i in the copy where i wins in the original and beats o clearly."""
    sign = 1.0 if claim.winner == "max" else -1.0
    for winner in range(count):
        for other in (int(o) for i, o in all_pairs(count) if i == winner):
            program = encoding.program()
            for beaten in range(count):
                if beaten != winner:
                    lead = np.zeros(count)
                    lead[winner], lead[beaten] = sign, -sign
                    row, constant = encoding.objective(_merged(_weights(encoding, query, lead, None)))
                    program = at_least(program, row, (claim.margin if beaten == other else 0.0) - constant)
            lead = np.zeros(count)
            lead[winner], lead[other] = -sign, sign
            goal = encoding.objective(_merged(_weights(encoding, query, None, lead)))
            yield _Question(program.aimed_at(*goal), -claim.ahead, claim.margin)


def at_least(program: Program, row: Array, lower: float) -> Program:
    """The program with one more row: row . v >= lower, rounded so that no point is lost."""
    columns = np.flatnonzero(row)
    return replace(
        program,
        starts=np.append(program.starts, program.starts[-1] + columns.size),
        columns=np.append(program.columns, columns),
        values=np.append(program.values, row[columns]),
        row_lower=np.append(program.row_lower, math.nextafter(lower, -math.inf)),
        row_upper=np.append(program.row_upper, math.inf),
    )


def _weights(encoding: Encoding, query: Query, first: Array | None, second: Array | None) -> list[tuple[str, Array]]:
    """The outputs of both networks with their weights, by key of the encoding."""
    result: list[tuple[str, Array]] = []
    for network, weights, prefix in ((query.original, first, ""), (query.reduced, second, _COPY)):
        if weights is not None:
            result += _split(network, weights, prefix, encoding)
    return result


def _split(network: Network, weights: Array, prefix: str, encoding: Encoding) -> Iterator[tuple[str, Array]]:
    start = 0
    for port in network.outputs:
        size = math.prod(port.shape)
        # A node that both networks share is encoded once, without the prefix.
        key = prefix + port.name if prefix + port.name in encoding.forms else port.name
        yield key, weights[start : start + size].reshape(port.shape)
        start += size


def _merged(parts: list[tuple[str, Array]]) -> Mapping[str, Array]:
    total: dict[str, Array] = {}
    for key, weights in parts:
        total[key] = total[key] + weights if key in total else weights
    return total
