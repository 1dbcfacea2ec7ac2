"""How a box is cut into cells, and which cell a point belongs to.

Both kinds of cut answer with comparisons `x >= face`, so a point on an inner face belongs to the cell above it and to
no other; the upper faces of the box itself belong to the last cells. Neighbours share the very same float64 face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redy.model import Array, Box
from redy.model.box import GridOfBoxes

Index = NDArray[np.int64]


class Cut(Protocol):
    """A partition of a box into cells, numbered from 0."""

    @property
    def box(self) -> Box:
        """What is cut."""

    def __len__(self) -> int:
        """The number of cells."""

    def cell(self, index: int) -> Box:
        """The closed box of one cell; its faces belong to it or to a neighbour."""

    def locate(self, points: NDArray[Any]) -> Index:
        """For points (n, inputs), flattened, the cell of each, as (n,); a point outside counts to the nearest cell."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What a file holds of it; `read_cut` makes it again."""


@dataclass(frozen=True, eq=False)
class GridCut:
    """Cells of equal width, `splits` per input, in C order (last input fastest)."""

    grid: GridOfBoxes

    @classmethod
    def of(cls, box: Box, splits: tuple[int, ...]) -> GridCut:
        """The regular grid over a box; `splits` has one number per input."""
        return cls(box.grid(splits))

    @property
    def box(self) -> Box:
        """What is cut."""
        return self.grid.box

    def __len__(self) -> int:
        return len(self.grid)

    def cell(self, index: int) -> Box:
        """One cell."""
        return self.grid[index]

    @cached_property
    def faces(self) -> list[Array]:
        """Per input the inner faces, ascending."""
        return [self.grid.edges(axis)[1:-1] for axis in range(self.box.size)]

    def locate(self, points: NDArray[Any]) -> Index:
        """Per input the number of inner faces at or below the point, combined in C order."""
        places = [np.searchsorted(face, points[:, axis], side="right") for axis, face in enumerate(self.faces)]
        return np.asarray(np.ravel_multi_index(places, self.grid.splits), dtype=np.int64)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Box and splits."""
        return {"lower": self.box.lower, "upper": self.box.upper, "splits": np.array(self.grid.splits)}


@dataclass(frozen=True, eq=False)
class TreeCut:
    """A k-d tree: node k sends x to `children[k, x[axis[k]] >= face[k]]`; a child c < 0 is the leaf ~c.

    Node 0 is the root; without nodes there is one leaf, the whole box.
    """

    box: Box
    axis: Index
    face: Array
    children: Index

    def __len__(self) -> int:
        return len(self.axis) + 1

    @property
    def depth(self) -> int:
        """The largest number of comparisons for a point."""
        level, count = np.zeros(min(1, len(self.axis)), dtype=np.int64), 0
        while level.size:
            level, count = self.children[level].ravel(), count + 1
            level = level[level >= 0]
        return count

    @cached_property
    def _cells(self) -> list[Box]:
        cells: dict[int, tuple[Array, Array]] = {}
        stack = [(0 if len(self.axis) else ~0, self.box.lower.ravel(), self.box.upper.ravel())]
        while stack:
            node, lower, upper = stack.pop()
            if node < 0:
                cells[~node] = (lower, upper)
                continue
            below, above = upper.copy(), lower.copy()
            below[self.axis[node]] = above[self.axis[node]] = self.face[node]
            stack.append((int(self.children[node, 0]), lower, below))
            stack.append((int(self.children[node, 1]), above, upper))
        shape = self.box.shape
        return [Box(cells[i][0].reshape(shape), cells[i][1].reshape(shape)) for i in range(len(self))]

    def cell(self, index: int) -> Box:
        """One leaf."""
        return self._cells[index]

    def locate(self, points: NDArray[Any]) -> Index:
        """All points go down the tree together."""
        node = np.full(len(points), 0 if len(self.axis) else ~0, dtype=np.int64)
        while (inner := np.flatnonzero(node >= 0)).size:
            at = node[inner]
            above = points[inner, self.axis[at]] >= self.face[at]
            node[inner] = self.children[at, above.astype(np.int64)]
        return ~node

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Box and nodes."""
        return {"lower": self.box.lower, "upper": self.box.upper, "axis": self.axis, "face": self.face,
                "children": self.children}  # fmt: skip


Nodes = dict[int, tuple[int, float, int, int]]
"""A tree in the making, its root named 0: inner node -> axis, face, and the names of the children below and above."""


def tree_of(box: Box, nodes: Nodes) -> TreeCut:
    """Inner nodes numbered in the order of `nodes`, leaves from the left."""
    number = {name: k for k, name in enumerate(nodes)}
    order = {name: k for k, name in enumerate(leaves_of(nodes))}
    children = [[number[c] if c in number else ~order[c] for c in node[2:]] for node in nodes.values()]
    axis, face = ([node[k] for node in nodes.values()] for k in (0, 1))
    table = np.array(children, dtype=np.int64).reshape(-1, 2)
    return TreeCut(box, np.array(axis, dtype=np.int64), np.array(face, dtype=np.float64), table)


def leaves_of(nodes: Nodes) -> list[int]:
    """The names of the leaves from the left."""
    leaves, stack = list[int](), [0]
    while stack:
        name = stack.pop()
        if name in nodes:
            stack += [nodes[name][3], nodes[name][2]]
        else:
            leaves.append(name)
    return leaves


def read_cut(arrays: Mapping[str, NDArray[Any]]) -> Cut:
    """The cut that `arrays` came from.

    Raises:
        KeyError, ValueError: they are not those of a cut.
    """
    box = Box(arrays["lower"], arrays["upper"])
    if "splits" in arrays:
        return GridCut.of(box, tuple(int(n) for n in arrays["splits"]))
    return TreeCut(box, arrays["axis"].astype(np.int64), arrays["face"], arrays["children"].astype(np.int64))
