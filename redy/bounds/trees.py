"""Trees of splits, one for each row of a layer: what a search knows about every part. Nothing here is a proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redy.bounds.layers import Optimised, Places, Single

MEMORY = 1 << 29
"""Bytes that the parts of all trees may hold together."""


class Trees:
    """The parts of every row's box: the splits that make each, its bound, and the slopes and multipliers of that bound.

    Attributes:
        elements, signs: (rows,) the rows: sign * z of an element of a layer.
        first: (rows,) the bound on the whole box.
        planted: rows whose whole box was bounded.
        count: parts so far; the arrays below hold at least as many.
        row, bound, choice: (parts,) the row, its bound there, and the column to split next (-1: none is left).
        split, slopes, multipliers: (parts, columns) see `redy.bounds.layers.Linearised`.
    """

    def __init__(self, elements: Places, signs: Single, columns: int) -> None:
        rows = len(elements)
        self.elements, self.signs = elements, signs
        self.first = np.full(rows, np.inf, np.float32)
        self.planted = np.zeros(0, np.int64)
        self.most = max(2 * rows, MEMORY // (9 * columns + 16))
        self.count = 0
        self._grown: set[int] = set()
        self.row, self.choice = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.bound = np.zeros(rows, np.float32)
        self.split = np.zeros((rows, columns), np.int8)
        self.slopes, self.multipliers = (np.zeros((rows, columns), np.float32) for _ in range(2))

    @property
    def full(self) -> bool:
        """Whether there is no memory for more parts."""
        return self.count >= self.most

    def plant(self, rows: Places, found: Optimised) -> None:
        """Begin the trees of some rows."""
        self.planted = np.concatenate([self.planted, rows])
        self.first[rows] = found.upper
        self._put(self._new(len(rows)), rows, np.zeros_like(found.slopes), found)

    def worst(self) -> Places:
        """The part with the largest bound of every row."""
        order = np.lexsort((self.bound[: self.count], self.row[: self.count]))
        rows = self.row[order]
        return order[np.append(rows[1:] != rows[:-1], True)] if order.size else order

    def children(self, parts: Places) -> tuple[Places, Single, Single, Single, Single]:
        """Both halves of some parts, the active ones first: elements, signs, splits, slopes and multipliers."""
        split = np.tile(self.split[parts].astype(np.float32), (2, 1))
        count, at = len(parts), self.choice[parts]
        split[np.arange(count), at] = 1.0
        split[count + np.arange(count), at] = -1.0
        rows = np.tile(self.row[parts], 2)
        slopes, multipliers = (np.tile(array[parts], (2, 1)) for array in (self.slopes, self.multipliers))
        return self.elements[rows], self.signs[rows], split, slopes, multipliers

    def grow(self, parts: Places, split: Single, found: Optimised) -> None:
        """Replace parts by their halves, as `children` gave them."""
        rows, bound = self.row[parts], np.tile(self.bound[parts], 2)
        self._grown.update(rows.tolist())
        where = np.concatenate([parts, self._new(len(parts))])
        self._put(where, np.tile(rows, 2), split, found)
        self.bound[where] = np.minimum(self.bound[where], bound)

    def grown(self) -> Places:
        """The rows that were split since the last call."""
        rows = np.array(sorted(self._grown), dtype=np.int64)
        self._grown.clear()
        return rows

    def _put(self, where: Places, rows: Places, split: Single, found: Optimised) -> None:
        self.row[where], self.bound[where] = rows, found.upper
        self.split[where], self.slopes[where], self.multipliers[where] = split, found.slopes, found.multipliers
        best = found.cost.argmax(axis=1)
        self.choice[where] = np.where(found.cost[np.arange(len(best)), best] > 0, best, -1)

    def _new(self, count: int) -> NDArray[np.int64]:
        first, self.count = self.count, self.count + count
        if self.count > len(self.row):
            for name in ("row", "bound", "choice", "split", "slopes", "multipliers"):
                old = getattr(self, name)
                new = np.zeros((2 * self.count, *old.shape[1:]), old.dtype)
                new[:first] = old[:first]
                setattr(self, name, new)
        return np.arange(first, self.count)
