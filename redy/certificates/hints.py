"""Hints for a certificate: phases and partners seen at points, and trees found by bisection with the checker's bounds.

The bounds allow for `CAUTION` times the rounding that the checker allows for, so that a certificate is accepted where
sums are taken in another order, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.certify import encoding, tree
from redy.certify.networks import ACTIVE, INACTIVE
from redy.certify.space import Array, Ints, Rows, Space

CAUTION = 4.0


@dataclass
class Search:
    """Makes the hints that the walk through both networks asks for, and writes them down.

    Attributes:
        space: of the walk.
        points: (m, n) inputs in the box.
        nodes: how many sub-boxes one tree may have.
        fits: slope fits at a leaf.
        deadline: `time.monotonic` at which the search gives up.
    """

    space: Space
    points: Array
    nodes: int
    fits: int
    deadline: float
    body: bytearray = field(default_factory=bytearray)
    seen: list[Array] = field(default_factory=list)

    def values(self, rows: Rows) -> Array:
        """(m, r) rows at the points."""
        n = self.space.n
        columns = np.ones((len(self.points), len(self.space.reach)))
        columns[:, :n] = self.points
        for block in self.space.blocks:
            z = columns[:, : block.rows.T.shape[1]] @ block.rows.T.T
            v = np.maximum(z, 0)
            if block.partner is not None:
                p = columns[:, : block.partner.rows.T.shape[1]] @ block.partner.rows.T.T
                v = np.maximum(p + z, 0) - np.maximum(p, 0)
            columns[:, n + 1 + block.first : n + 1 + block.stop] = v
        return np.asarray(columns[:, : rows.T.shape[1]] @ rows.T.T)

    def phases(self, rows: Rows, lower_: Array, upper: Array) -> NDArray[np.uint8]:
        """Claim the phases that all points show, the root bounds leave open, and a tree proves."""
        z = self.values(rows)
        self.seen.append(z)
        open_ = ~((lower_ >= 0) | (upper <= 0))
        codes = np.where(open_ & (z > 0).all(axis=0), ACTIVE, np.where(open_ & (z < 0).all(axis=0), INACTIVE, 0))
        claimed, found = np.flatnonzero(codes), b""
        if len(claimed):
            sign = np.where(codes == ACTIVE, 1.0, -1.0)[claimed]
            part = Rows(rows.T[claimed] * sign[:, None], rows.e[claimed])
            question = tree.Question(part, np.zeros(len(claimed), bool), np.arange(len(claimed))[:, None])
            found, dropped = self.search(question)
            codes[claimed[dropped]] = 0
        self.body += encoding.write_phases(codes.astype(np.uint8))
        if codes.any():
            self.body += found
        return codes.astype(np.uint8)

    def prove(self, space: Space, rows: Rows) -> bool:  # noqa: ARG002 - `phases` has proved them
        """True: only what a tree proves is claimed."""
        return True

    def partners(self, rows: Rows) -> Ints:
        """The unit of the first network that is nearest at the points, or -1 where none is near."""
        ours, theirs = np.concatenate([np.zeros((len(self.points), 0)), *self.seen], axis=1), self.values(rows)
        found = np.full(theirs.shape[1], -1)
        for k in range(theirs.shape[1] if ours.shape[1] else 0):
            distance = np.abs(ours - theirs[:, [k]]).max(axis=0)
            best = int(distance.argmin())
            if distance[best] <= np.abs(theirs[:, k]).max() / 2:
                found[k] = best
        self.body += encoding.write_partners(found)
        return found

    def search(self, question: tree.Question) -> tuple[bytes, NDArray[np.bool_]]:
        """A tree, and which clauses it leaves open because the search ended."""
        cells = [tree.Cell(0, self.space.low, self.space.high)]
        axes = np.flatnonzero(self.space.high > self.space.low)
        kids: dict[int, tuple[int, int, int]] = {}
        dropped, todo, step = np.zeros(len(question.clauses), bool), [0], tree.at_once(self.space, question)
        while todo:
            now, todo = todo[:step], todo[step:]
            low, high = tree.boxes([cells[i] for i in now])
            values, _, acc = tree.bounded(self.space, question, low, high, self.fits)
            open_ = question.open(values) & ~dropped
            over = len(cells) >= self.nodes or time.monotonic() > self.deadline or not 0 < len(axes) < tree.LEAF
            for k in np.flatnonzero(open_.any(axis=1)):
                parts = (
                    None if over else self._cut(cells[now[k]], axes, self._smear(acc[k], values[k], low[k], high[k]))
                )
                if parts is None:
                    dropped |= open_[k]
                    continue
                kids[now[k]] = (parts[0], len(cells), len(cells) + 1)
                todo += [len(cells), len(cells) + 1]
                cells += parts[1]
        return _preorder(kids), dropped

    def _smear(self, acc: Array, values: Array, low: Array, high: Array) -> Array:
        """(n,) how much each input's width contributes to open rows, those of variables included."""
        n, width = self.space.n, high - low
        weight = np.abs(acc[values < 0]) if (values < 0).any() else np.abs(acc)
        total = weight[:, :n].sum(axis=0) * width
        for block in self.space.blocks:
            share = np.abs(block.rows.T[:, :n]) * width
            share /= share.sum(axis=1, keepdims=True) + 1e-300
            gap = np.maximum(np.minimum(-block.lower, block.upper), 0)
            total += (weight[:, n + 1 + block.first : n + 1 + block.stop].sum(axis=0) * gap) @ share
        return np.asarray(total)

    def _cut(self, cell: tree.Cell, axes: Ints, smear: Array) -> tuple[int, list[tree.Cell]] | None:
        middle = cell.low + (cell.high - cell.low) / 2
        fit = (cell.low < middle) & (middle < cell.high)
        if not fit.any():
            return None
        axis = int(np.where(fit, smear, -1).argmax())
        return int(np.flatnonzero(axes == axis)[0]), list(cell.cut(axis, 0))


def _preorder(kids: dict[int, tuple[int, int, int]]) -> bytes:
    out, stack = bytearray(), [0]
    while stack:
        node = stack.pop()
        if node not in kids:
            out.append(tree.LEAF)
            continue
        axis, first, second = kids[node]
        out.append(axis)
        stack += [second, first]
    return bytes(out)
