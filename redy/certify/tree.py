"""Trees of sub-boxes: a statement holds on the box if it holds at every leaf.

A tree is a string of bytes in pre-order: `LEAF`, or the number of an input, counted among those that are not fixed, at
whose middle the sub-box is cut in two. The cut is the float64 l + (h - l) / 2, whatever it is: both parts are closed
and share it, so nothing between them is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import backward
from .errors import Rejected
from .fold import Folded
from .lines import Lines
from .space import Array, Ints, Rows, Space

LEAF = 255
NUMBERS = 2**22
"""Coefficients in one array, which decides how many leaves are bounded at once."""


@dataclass(frozen=True)
class Question:
    """At every point of the box every clause has a row that is >= 0, or > 0 where the row is strict.

    Attributes:
        rows: (r,).
        strict: (r,).
        clauses: (c, k) numbers of rows; -1 fills up.
    """

    rows: Rows
    strict: NDArray[np.bool_]
    clauses: Ints

    def open(self, values: Array) -> NDArray[np.bool_]:
        """(B, c) which clauses lower bounds (B, r) do not close."""
        good = np.where(self.strict, values > 0, values >= 0)
        filled = np.append(good, np.zeros((len(values), 1), bool), axis=1)
        return np.asarray(~filled[:, self.clauses].any(axis=2))


@dataclass(frozen=True)
class Cell:
    """A node of a tree and its sub-box."""

    node: int
    low: Array
    high: Array

    def cut(self, axis: int, second: int) -> tuple[Cell, Cell]:
        """Both halves; the first is the next node, `second` the number of the other."""
        middle = self.low[axis] + (self.high[axis] - self.low[axis]) / 2
        if not self.low[axis] < middle < self.high[axis]:
            raise Rejected(f"node {self.node} of a tree cuts a sub-box that is too thin")
        high, low = self.high.copy(), self.low.copy()
        high[axis] = low[axis] = middle
        return Cell(self.node + 1, self.low, high), Cell(second, low, self.high)


def seconds(tree: bytes) -> list[int]:
    """Per node the number of its second child; the tree must be complete."""
    found, ends = [0] * len(tree), []
    for node in range(len(tree) - 1, -1, -1):
        if tree[node] == LEAF:
            ends.append(node + 1)
        else:
            found[node] = ends.pop()  # the second child's end stays: it is this node's end
    return found


def bounded(space: Space, question: Question, low: Array, high: Array, fits: int) -> tuple[Array, list[Lines], Array]:
    """Lower bounds (B, r) of the rows at sub-boxes, fitted where a clause is open; also lines and coefficients."""
    _, _, lines = backward.forward(space, low, high)
    slack = space.slack(question.rows)
    values, acc = backward.lower(space, question.rows, slack, lines, low, high)
    box, clause = np.nonzero(question.open(values)) if fits and lines else (np.zeros(0, int), np.zeros(0, int))
    wanted = np.zeros((len(low), len(slack) + 1), bool)
    wanted[box[:, None], question.clauses[clause]] = True
    b, r = np.nonzero(wanted[:, :-1] & (values < 0))
    step = max(1, backward.PAIRS // max(1, space.count))
    for begin in range(0, len(b), step):
        at, row = b[begin : begin + step], r[begin : begin + step]
        own = [line.at(at) for line in lines]
        values[at, row] = backward.fit(space, question.rows[row], own, (low[at], high[at]), values[at, row], fits)
    return values, lines, acc


def check(space: Space, question: Question, tree: bytes, fold: int, fits: int) -> None:
    """Raise Rejected at the first leaf that leaves a clause open.

    At every node whose depth is a positive multiple of `fold` the space is folded again.
    """
    after, axes = seconds(tree), np.flatnonzero(space.high > space.low)
    if any(byte != LEAF and byte >= len(axes) for byte in tree):
        raise Rejected("a tree cuts an input that is fixed or does not exist")
    pending = [(space, question, Cell(0, space.low, space.high))]
    while pending:
        space, question, top = pending.pop()
        leaves, below, stack = list[Cell](), list[Cell](), [(top, 0)]
        while stack:
            cell, depth = stack.pop()
            if tree[cell.node] == LEAF:
                leaves.append(cell)
            elif depth == fold:
                below.append(cell)
            else:
                stack.extend((part, depth + 1) for part in cell.cut(int(axes[tree[cell.node]]), after[cell.node])[::-1])
        step = at_once(space, question)
        for begin in range(0, len(leaves), step):
            part = leaves[begin : begin + step]
            values = bounded(space, question, *boxes(part), fits)[0]
            bad = np.flatnonzero(question.open(values).any(axis=1))
            if len(bad):
                raise Rejected(f"node {part[bad[0]].node} of a tree does not prove what is claimed")
        for begin in range(0, len(below), step):
            pending.extend(folded(space, question, below[begin : begin + step]))


def at_once(space: Space, question: Question) -> int:
    """How many sub-boxes are bounded at once."""
    rows = max([len(question.rows.e), *(2 * len(block.lower) for block in space.blocks)])
    return max(1, min(96, NUMBERS // (rows * len(space.reach))))


def boxes(cells: list[Cell]) -> tuple[Array, Array]:
    """Lower and upper corners (B, n)."""
    return np.array([cell.low for cell in cells]), np.array([cell.high for cell in cells])


def folded(space: Space, question: Question, cells: list[Cell]) -> list[tuple[Space, Question, Cell]]:
    """The space and the question folded in each of the sub-boxes."""
    low, high = boxes(cells)
    lower, upper, _ = backward.forward(space, low, high)
    result = []
    for k, cell in enumerate(cells):
        inside = Folded(space, cell.low, cell.high, lower[k], upper[k])
        rows = inside.rows(question.rows)
        result.append((inside.space, Question(rows, question.strict, question.clauses), cell))
    return result
