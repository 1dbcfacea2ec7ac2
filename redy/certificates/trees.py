"""Trees found by bisection with the checker's own bounds."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from redy.certify import tree
from redy.certify.space import Array, Flags

FOLD, PLAIN = 8, 2000
"""At which depths of large trees networks are condensed again; which trees are large, in nodes."""


@dataclass(slots=True)
class Budget:
    """How long a search may go on.

    Attributes:
        nodes: sub-boxes of one tree.
        work: what is left, in about microseconds of CPU time, but counted, so that equal searches end alike.
        fits: slope fits at a leaf.
        deadline: `time.monotonic` at which it gives up whatever is left.
    """

    nodes: int
    work: float
    fits: int
    deadline: float = math.inf

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.work <= 0 or time.monotonic() > self.deadline

    def spend(self, question: tree.Question, boxes: int) -> None:
        """Count what it costs to bound a question on so many sub-boxes; 0: to condense the networks again."""
        space = question.space
        if not boxes:
            self.work -= 300.0 * (len(space.blocks) + 4)
            return
        rows = len(question.rows.e) + 2 * space.count
        self.work -= 300.0 * (len(space.blocks) + 1) + boxes * rows * len(space.reach) ** 2 / 8000.0


class Growing:
    """A tree that grows, the worst leaf first, until nothing is open or the budget ends.

    Attributes:
        cells: the nodes in the order in which they were made.
        values: per node lower bounds (r,) of the rows there.
    """

    def __init__(self, question: tree.Question, budget: Budget, fold: int, again: tree.Again) -> None:
        self.question, self.budget, self.fold = question, budget, fold
        space = question.space
        self.axes = np.flatnonzero(space.high > space.low)
        self.cells, self.depth = [tree.Cell(0, space.low, space.high)], [0]
        self.asked: list[tuple[tree.Question, tree.Again]] = [(question, again)]
        self.values: list[Array] = []
        self.kids: dict[int, tuple[int, int, int]] = {}
        self.ends: dict[int, tuple[Array, Array]] = {}
        self.smears: list[Array] = []
        self.order, self.questions = [0], 0

    def grow(self, need: Callable[[Array], float]) -> None:
        """Cut the leaves whose values give a positive need, the largest first; of equal ones those met last."""
        self._bound([0])
        heap = [(-need(self.values[0]), 0, 0)]
        while heap and heap[0][0] < 0 and not self.budget.over and len(self.cells) < self.budget.nodes:
            worst, first = list[int](), heap[0]
            while heap and heap[0][0] < 0 and len(worst) < self.asked[first[2]][0].at_once // 2 + 1:
                if heap[0][0] == first[0] and heap[0][1] != first[1]:
                    break  # equal needs: one question at a time
                worst.append(heapq.heappop(heap)[2])
            made = [child for node in worst for child in self._cut(node)]
            if not made:
                return
            self._bound(made)
            for child in made:
                heapq.heappush(heap, (-need(self.values[child]), -self.order[child], child))

    def leaves(self) -> Array:
        """(leaves, r) the values."""
        return np.array([v for k, v in enumerate(self.values) if k not in self.kids])

    def bytes(self, rows: Flags | None = None) -> bytes:
        """The fold period and the tree in pre-order, cut off where these rows are closed already."""
        out, stack = bytearray([self.fold]), [0]
        while stack:
            node = stack.pop()
            if node not in self.kids or (rows is not None and bool((self.values[node][rows] >= 0).all())):
                out.append(tree.LEAF)
                continue
            axis, first, second = self.kids[node]
            out.append(axis)
            stack += [second, first]
        return bytes(out)

    def _bound(self, nodes: list[int]) -> None:
        """Values of new nodes, the last ones; those of one question at once."""
        self.values += [np.empty(0)] * len(nodes)
        self.smears += [np.empty(0)] * len(nodes)
        groups: dict[int, list[int]] = {}
        for node in nodes:
            groups.setdefault(id(self.asked[node][0]), []).append(node)
        for group in groups.values():
            question = self.asked[group[0]][0]
            low, high = tree.corners([self.cells[node] for node in group])
            values, acc, ends = question.bounded(low, high, self.budget.fits)
            self.budget.spend(question, len(group))
            for k, node in enumerate(group):
                self.values[node] = values[k]
                if self._folds(node):
                    self.ends[node] = ends[0][k], ends[1][k]
                self.smears[node] = smear(question, acc[k], values[k], high[k] - low[k])

    def _folds(self, node: int) -> bool:
        return self.fold != tree.LEAF and self.depth[node] > 0 and self.depth[node] % self.fold == 0

    def _cut(self, node: int) -> list[int]:
        cell = self.cells[node]
        middle = cell.low + (cell.high - cell.low) / 2
        fit = (cell.low < middle) & (middle < cell.high)
        if not fit.any():
            return []
        (question, again), number = self.asked[node], self.order[node]
        if self._folds(node):
            question, again = again(cell, *self.ends.pop(node))
            self.budget.spend(question, 0)
            self.questions += 1
            number = self.questions
        axis = int(np.where(fit, self.smears[node], -1).argmax())
        first = len(self.cells)
        self.kids[node] = int(np.flatnonzero(self.axes == axis)[0]), first, first + 1
        self.cells += cell.cut(axis, 0)
        self.depth += [self.depth[node] + 1] * 2
        self.asked += [(question, again)] * 2
        self.order += [number] * 2
        return [first, first + 1]


def smear(question: tree.Question, acc: Array, values: Array, width: Array) -> Array:
    """(n,) how much each input's width contributes to open rows, those of variables included."""
    space, n = question.space, question.space.n
    weight = np.abs(acc[values < 0]) if (values < 0).any() else np.abs(acc)
    total = weight[:, :n].sum(axis=0) * width
    for block in space.blocks:
        share = np.abs(block.rows.T[:, :n]) * width
        share /= share.sum(axis=1, keepdims=True) + 1e-300
        gap = np.maximum(np.minimum(-block.lower, block.upper), 0)
        total += (weight[:, n + 1 + block.first : n + 1 + block.stop].sum(axis=0) * gap) @ share
    return np.asarray(total)


def grown(question: tree.Question, again: tree.Again, budget: Budget, need: Callable[[Array], float]) -> Growing:
    """A small tree that is never condensed again, if it does; else one that is, or what came nearer."""
    plain = Growing(question, replace(budget, nodes=min(budget.nodes, PLAIN)), tree.LEAF, again)
    plain.grow(need)
    budget.work = plain.budget.work
    if max(map(need, plain.leaves())) <= 0 or budget.over or budget.nodes <= PLAIN:
        return plain
    folded = Growing(question, budget, FOLD, again)
    folded.grow(need)
    return min((plain, folded), key=lambda growing: sum(map(need, growing.leaves())))


def closed(question: tree.Question, again: tree.Again, budget: Budget) -> tuple[bytes, Flags]:
    """A tree for a question of single rows, and which of them it closes; others stay open because the budget ended."""
    growing = grown(question, again, budget, lambda values: float((values < 0).any()))
    good: Flags = np.all(growing.leaves() >= 0, axis=0)
    return growing.bytes(good), good
