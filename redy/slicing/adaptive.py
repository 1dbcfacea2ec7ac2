"""Adaptive slicing: a k-d tree that is cut where a cut removes most.

Of all leaves the one is cut next whose best cut lowers the mean multiply-adds over the box most: volume times (cost
before minus the volume-weighted cost of the halves). The cost of a part is that of the shared form with the units that
points of the part show alive; points only steer the cuts, what is removed in a slice is proved afterwards. A leaf
without gain (the network is one affine function there, as far as the points show) is not cut.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.model import Affine, Array, Box, Network
from redy.rewrite import fuse
from redy.slicing.cuts import Cut, TreeCut
from redy.slicing.work import SliceRecord

POINTS = 512
PARTS = (0.25, 0.5, 0.75)
"""Where a side may be cut."""


@dataclass(frozen=True, slots=True)
class _Split:
    """The best cut of a leaf: how much it lowers the mean cost over the leaf, and where."""

    gain: float
    axis: int
    face: float


def adaptive_cut(network: Network, box: Box, slices: int, *, seed: int = 0) -> TreeCut:
    """A tree with at most `slices` leaves."""
    search = _Search(fuse(network), seed)
    cells = {0: (box.lower.ravel().copy(), box.upper.ravel().copy())}
    volume, nodes = {0: 1.0}, dict[int, tuple[int, float, int, int]]()
    heap: list[tuple[float, int, _Split]] = []

    def offer(leaf: int) -> None:
        split = search.best(*cells[leaf], box.shape, leaf)
        if split is not None:
            heapq.heappush(heap, (-split.gain * volume[leaf], leaf, split))

    offer(0)
    count = 1
    while heap and count < slices:
        _, leaf, split = heapq.heappop(heap)
        lower, upper = cells.pop(leaf)
        left, right = 2 * count - 1, 2 * count
        share = (split.face - lower[split.axis]) / (upper[split.axis] - lower[split.axis])
        for child, end, part in ((left, upper, share), (right, lower, 1 - share)):
            faced = end.copy()
            faced[split.axis] = split.face
            cells[child] = (lower, faced) if child == left else (faced, upper)
            volume[child] = volume[leaf] * part
            offer(child)
        nodes[leaf] = (split.axis, split.face, left, right)
        count += 1
    return _tree(box, nodes)


class _Search:
    """The cost of parts of the box, by points."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.seed = network, seed
        self.sources = [node.source for node in network.activations]

    def best(self, lower: Array, upper: Array, shape: tuple[int, ...], leaf: int) -> _Split | None:
        """The cut of a leaf that gains most, if any does."""
        rng = np.random.default_rng([self.seed, leaf])
        box = Box(lower.reshape(shape), upper.reshape(shape))
        x = box.sample(POINTS, rng)
        values = self.network.trace(x, keep=self.sources)
        alive = [values[source].reshape(POINTS, -1) > 0 for source in self.sources]
        flat, found = x.reshape(POINTS, -1), _Split(0.0, -1, 0.0)
        before = self._cost(alive)
        for axis in np.flatnonzero(upper > lower).tolist():
            for part in PARTS:
                face = float(lower[axis] + part * (upper[axis] - lower[axis]))
                side = flat[:, axis] >= face
                if not (lower[axis] < face < upper[axis] and side.any() and not side.all()):
                    continue
                below, above = (self._cost([layer[half] for layer in alive]) for half in (~side, side))
                gain = before - (part * below + (1 - part) * above)
                if gain > found.gain:
                    found = _Split(gain, axis, face)
        return found if found.gain > 0 else None

    def _cost(self, alive: Sequence[NDArray[np.bool_]]) -> float:
        """Multiply-adds of the shared form with the units that are alive at some point, (points, units) a layer."""
        counts = {
            node.name: int(np.count_nonzero(layer.any(axis=0)))
            for node, layer in zip(self.network.activations, alive, strict=True)
        }
        total = 0.0
        for node in self.network.nodes:
            if not isinstance(node, Affine):
                continue
            readers = [reader.name for reader in self.network.readers[node.name] if reader.name in counts]
            rows = counts[readers[0]] if readers else node.bias.size
            for term in node.terms:
                total += rows * counts.get(term.source, int(term.operator.matrix().shape[1]))
        return total


def _tree(box: Box, nodes: dict[int, tuple[int, float, int, int]]) -> TreeCut:
    """Nodes numbered in the order of their cuts, leaves from the left."""
    number = {name: k for k, name in enumerate(nodes)}
    axis, face, children, leaves = [], [], [], 0
    order: dict[int, int] = {}
    stack = [0]
    while stack:
        name = stack.pop()
        if name in nodes:
            stack += [nodes[name][3], nodes[name][2]]
        else:
            order[name], leaves = leaves, leaves + 1
    for at, value, left, right in nodes.values():
        axis.append(at)
        face.append(value)
        children.append([number[c] if c in number else ~order[c] for c in (left, right)])
    table = np.array(children, dtype=np.int64).reshape(-1, 2)
    return TreeCut(box, np.array(axis, dtype=np.int64), np.array(face, dtype=np.float64), table)


def merged(cut: Cut, records: list[SliceRecord]) -> tuple[Cut, list[SliceRecord]]:
    """The cut with neighbours joined that hang on one node of the tree and have the same mask; a grid stays as it is.

    What holds on both halves holds on the whole.
    """
    if not isinstance(cut, TreeCut) or not len(cut.axis):
        return cut, records
    kept: dict[int, tuple[int, float, int, int]] = {}
    leaf: dict[int, SliceRecord] = {~record.index: record for record in records}
    for node in _leaves_first(cut):
        below, above = (int(child) for child in cut.children[node])
        if below in leaf and above in leaf and leaf[below].mask == leaf[above].mask:
            leaf[node] = _joined(leaf[below], leaf[above])
        else:
            kept[node] = (int(cut.axis[node]), float(cut.face[node]), below, above)
    nodes = {node: kept[node] for node in sorted(kept)}
    tree = _tree(cut.box, nodes)
    return tree, _in_order(nodes, leaf)


def _leaves_first(cut: TreeCut) -> list[int]:
    """Inner nodes, children before parents."""
    order, stack = list[int](), [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [int(child) for child in cut.children[node] if child >= 0]
    return order[::-1]


def _in_order(nodes: dict[int, tuple[int, float, int, int]], leaf: dict[int, SliceRecord]) -> list[SliceRecord]:
    records, stack = list[SliceRecord](), [0]
    while stack:
        node = stack.pop()
        if node in nodes:
            stack += [nodes[node][3], nodes[node][2]]
        else:
            records.append(replace(leaf[node], index=len(records)))
    return records


def _joined(below: SliceRecord, above: SliceRecord) -> SliceRecord:
    return replace(
        below,
        undecided=max(below.undecided, above.undecided),
        complete=below.complete and above.complete,
        boxes=below.boxes + above.boxes,
        seconds=below.seconds + above.seconds,
    )
