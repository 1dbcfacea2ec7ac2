"""Branch and bound on the binaries in which only certified bounds count: a solver proposes, redy's arithmetic
disposes.

Every leaf of the search tree is closed by multipliers of its linear relaxation (or by a certificate that it is
empty), evaluated with bounded rounding (`redy.milp.certify`). So a tree that closes proves its claim without trust
in any solver.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from redy.milp.certify import certified_bound
from redy.milp.program import Program
from redy.milp.solver import Choice, solve
from redy.model import Array, Multipliers

INTEGRAL = 1e-6
"""A binary this close to 0 or 1 is not worth branching on."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A closed part of the search: which binaries are fixed, and the multipliers that close it."""

    fixed: tuple[tuple[int, float], ...]
    multipliers: Array


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """What a search found.

    Attributes:
        closed: whether the maximum of the program is proven to be at most the target.
        leaves: the closed parts; they cover the program if `closed`.
        point: a point (n,) of the relaxation whose binaries are integral and whose value is above the target, if met.
        questions: linear programs solved.
    """

    closed: bool
    leaves: tuple[Leaf, ...]
    point: Array | None
    questions: int

    @property
    def multipliers(self) -> Multipliers:
        """The leaves as evidence."""
        return Multipliers(tuple(leaf.fixed for leaf in self.leaves), tuple(leaf.multipliers for leaf in self.leaves))


def search(
    program: Program, target: float, time_limit: float, *, node_limit: int = 1000, choice: Choice = "auto"
) -> Tree:
    """Try to prove that the program's maximum is at most `target`.

    Depth first, branching on the binary that is nearest to 1/2. It gives up at a limit, at an answer that is no proof,
    and at an integral point above the target.
    """
    deadline = time.perf_counter() + time_limit
    stack: list[tuple[Program, tuple[tuple[int, float], ...]]] = [(program.relaxed(), ())]
    leaves: list[Leaf] = []
    questions = 0
    while stack:
        part, fixed = stack.pop()
        remaining = deadline - time.perf_counter()
        if questions >= node_limit or remaining <= 0:
            return Tree(False, tuple(leaves), None, questions)
        outcome = solve(part, remaining, choice)
        questions += 1
        if outcome.multipliers is not None and closes(part, outcome.multipliers, target):
            leaves.append(Leaf(fixed, outcome.multipliers))
            continue
        if outcome.status != "optimal" or outcome.point is None:
            return Tree(False, tuple(leaves), None, questions)
        away = np.where(program.binary & (part.lower < part.upper), np.abs(outcome.point - 0.5), np.inf)
        variable = int(away.argmin())
        if away[variable] >= 0.5 - INTEGRAL:
            return Tree(False, tuple(leaves), outcome.point, questions)
        near = float(round(outcome.point[variable]))
        stack.extend((part.fixed(variable, value), (*fixed, (variable, value))) for value in (1 - near, near))
    return Tree(True, tuple(leaves), None, questions)


def closes(program: Program, multipliers: Array, target: float) -> bool:
    """Whether multipliers prove that a linear program's maximum is at most `target`, or that it has no point at all."""
    if certified_bound(program, multipliers) <= target:
        return True
    return certified_bound(program.aimed_at(np.zeros(program.variables)), multipliers) < 0
