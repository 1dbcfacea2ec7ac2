"""Trees of sub-boxes: a statement holds on the box if it holds at every leaf.

A tree is a string of bytes in pre-order: `LEAF`, or the number of an input, counted among those that are not fixed, at
whose middle the sub-box is cut in two. The cut is the float64 l + (h - l) / 2, whatever it is: both parts are closed
and share it, so nothing between them is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import backward
from .errors import Rejected
from .space import Array, Flags, Ints, Rows, Space

LEAF = 255
NUMBERS = 2**22
"""Coefficients in one array, which decides how many leaves are bounded at once."""


@dataclass(frozen=True)
class Question:
    """At every point of the box every clause has a row that is >= 0, or > 0 where the row is strict.

    Attributes:
        space: of the rows (r,).
        strict: (r,).
        clauses: (c, k) numbers of rows; -1 fills up.
    """

    space: Space
    rows: Rows
    strict: Flags
    clauses: Ints

    def open(self, values: Array) -> Flags:
        """(B, c) which clauses lower bounds (B, r) do not close."""
        good = np.where(self.strict, values > 0, values >= 0)
        filled = np.append(good, np.zeros((len(values), 1), bool), axis=1)
        return np.asarray(~filled[:, self.clauses].any(axis=2))

    def bounded(self, low: Array, high: Array, fits: int) -> tuple[Array, Array, tuple[Array, Array]]:
        """Lower bounds (B, r) of the rows at sub-boxes, fitted where a clause is open; coefficients; `forward`."""
        at, up, lines = backward.forward(self.space, low, high)
        values, acc = backward.lower(self.space, self.rows, lines, low, high)
        box, clause = np.nonzero(self.open(values))
        wanted = np.zeros((len(low), len(self.rows.e) + 1), bool)
        wanted[box[:, None], self.clauses[clause]] = True
        start = np.where(wanted[:, :-1], values, 0.0)
        raised = backward.fitted(self.space, self.rows, lines, (low, high), start, fits)
        return np.where(wanted[:, :-1], raised, values), acc, (at, up)

    @property
    def at_once(self) -> int:
        """How many sub-boxes are bounded at once."""
        rows = max([len(self.rows.e), *(2 * len(block.lower) for block in self.space.blocks)])
        return max(1, min(96, NUMBERS // (rows * len(self.space.reach))))


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


def corners(cells: list[Cell]) -> tuple[Array, Array]:
    """Lower and upper corners (B, n)."""
    return np.array([cell.low for cell in cells]), np.array([cell.high for cell in cells])


def seconds(tree: bytes) -> list[int]:
    """Per node the number of its second child; the tree must be complete."""
    found, ends = [0] * len(tree), []
    for node in range(len(tree) - 1, -1, -1):
        if tree[node] == LEAF:
            ends.append(node + 1)
        else:
            found[node] = ends.pop()  # the second child's end stays: it is this node's end
    return found


Again = Callable[[Cell, Array, Array], tuple[Question, "Again"]]
"""A sub-box, bounds of the rows of all variables there -> the question anew, and what asks it anew inside that."""


def check(question: Question, again: Again, fold: int, tree: bytes, fits: int) -> None:
    """Raise Rejected at the first leaf that leaves a clause open.

    At every node whose depth is a positive multiple of `fold` (`LEAF`: at none) networks are condensed again there.
    """
    second, axes = seconds(tree), np.flatnonzero(question.space.high > question.space.low)
    if any(byte != LEAF and byte >= len(axes) for byte in tree):
        raise Rejected("a tree cuts an input that is fixed or does not exist")
    pending = [(question, again, Cell(0, question.space.low, question.space.high))]
    while pending:
        question, again, top = pending.pop()
        leaves, below, stack = list[Cell](), list[Cell](), [(top, 0)]
        while stack:
            cell, depth = stack.pop()
            if tree[cell.node] == LEAF:
                leaves.append(cell)
            elif depth == fold != LEAF:
                below.append(cell)
            else:
                parts = cell.cut(int(axes[tree[cell.node]]), second[cell.node])
                stack.extend((part, depth + 1) for part in parts[::-1])
        for begin in range(0, len(leaves), question.at_once):
            part = leaves[begin : begin + question.at_once]
            bad = question.open(question.bounded(*corners(part), fits)[0]).any(axis=1)
            if bad.any():
                raise Rejected(f"node {part[int(bad.argmax())].node} of a tree does not prove what is claimed")
        for begin in range(0, len(below), question.at_once):
            part = below[begin : begin + question.at_once]
            lower, upper, _ = backward.forward(question.space, *corners(part))
            pending += [(*again(cell, lower[k], upper[k]), cell) for k, cell in enumerate(part)]
