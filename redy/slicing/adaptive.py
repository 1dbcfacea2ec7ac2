"""Adaptive slicing: a k-d tree that is cut where a cut removes most, searched, and cut back to the slices that pay.

As in CART (Breiman, Friedman, Olshen and Stone, 1984) a tree is grown larger than wanted and then pruned:

1. Grown by points. Of all leaves the one is cut next whose best cut lowers the mean multiply-adds over the box most.
   The cost of a part is that of the shared form with the units that points of the part show alive. Points only choose
   the cuts; what is removed is proved afterwards. Where only the decision counts, parts where points show one winner
   cost less. A leaf where points show one affine function, or one winner, is not cut if linear bounds prove what the
   points show; one affine function that they do not prove is cut when no other cut gains.
2. Searched: every leaf alone (`redy.slicing.work`).
3. Pruned by what was proved (`redy.slicing.pruning`).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.bounds.linear import linear_bounds
from redy.model import Array, Box, Network
from redy.model.claims import SameWinner
from redy.questions.query import constant_winner
from redy.slicing.cost import SharedCost
from redy.slicing.cuts import Nodes, TreeCut, tree_of
from redy.slicing.masks import KEPT, codes_of

REFINED = 3
"""Parts searched for each slice that is wanted."""

POINTS = 1024
PARTS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Where a side may be cut."""

FEW = 128
"""The place of a cut is judged by what this many random points of a half would show alive. A unit that is alive in no
more than a corner of a half then hardly counts: later cuts free most of the half of it. Were every unit counted that
some point shows alive, the first cuts would all look alike, since nearly all units live in both halves of each."""


HOPE = 0.5
"""How often a search proves that the decision is constant on a part where points show it."""


@dataclass(frozen=True, slots=True)
class _Split:
    """The best cut of a leaf: how much it lowers the mean cost over the leaf as far as points show (0), and where.

    `doubtful`: points show no need for a cut, so a proof may spare it.
    """

    gain: float
    axis: int
    face: float
    doubtful: bool


def adaptive_cut(
    network: Network, box: Box, slices: int, *, seed: int = 0, decision: SameWinner | None = None
) -> TreeCut:
    """A tree with at most `slices` leaves; with a decision, for slices that keep no more than that."""
    search = _Search(network, box, seed, decision)
    cells = {0: (box.lower.ravel().copy(), box.upper.ravel().copy())}
    volume, nodes = {0: 1.0}, Nodes()
    heap: list[tuple[bool, float, int, _Split]] = []

    def offer(leaf: int) -> None:
        split = search.best(*cells[leaf], leaf)
        if split is not None:
            # What no point asks for comes last, the largest leaf first.
            gains = split.gain > 0
            heapq.heappush(heap, (not gains, -volume[leaf] * (split.gain if gains else 1.0), leaf, split))

    offer(0)
    count = 1
    while heap and count < slices:
        *_, leaf, split = heapq.heappop(heap)
        if split.doubtful and search.settled(*cells[leaf]):
            continue
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
    return tree_of(box, nodes)


class _Search:
    """The best cut of each leaf, by points."""

    def __init__(self, network: Network, box: Box, seed: int, decision: SameWinner | None) -> None:
        self.network, self.box, self.seed, self.cost = network, box, seed, SharedCost(network)
        self.decision = decision
        self.sources = [node.source for node in network.activations]

    def best(self, lower: Array, upper: Array, leaf: int) -> _Split | None:
        """The cut that gains most; one in the middle where points show none; None where there is no room for it."""
        cell = Box(lower.reshape(self.box.shape), upper.reshape(self.box.shape))
        x = cell.sample(POINTS, np.random.default_rng([self.seed, leaf]))
        port = self.network.outputs[0].name
        values = self.network.trace(x, keep=[*self.sources, port])
        none = np.zeros((POINTS, 0), dtype=bool)
        alive = np.concatenate([none, *(values[source].reshape(POINTS, -1) > 0 for source in self.sources)], axis=1)
        wins = self._wins(values[port].reshape(POINTS, -1))
        found, constant = None, bool(wins.all(axis=0).any())
        if (alive != alive[0]).any():
            found = self._by_points(lower, upper, x.reshape(POINTS, -1), alive, wins)
        if found is not None:
            return replace(found, doubtful=constant)
        width = (upper - lower) / np.where(self.box.width > 0, self.box.width, 1.0).ravel()
        axis = int(width.argmax())
        face = float(lower[axis] + 0.5 * (upper[axis] - lower[axis]))
        return _Split(0.0, axis, face, doubtful=True) if lower[axis] < face < upper[axis] else None

    def _wins(self, values: Array) -> NDArray[np.bool_]:
        """(n, outputs) which output wins, for values of them; (n, 0) where the decision does not matter."""
        if self.decision is None:
            return np.zeros((len(values), 0), dtype=bool)
        signed = values if self.decision.winner == "max" else -values
        return np.asarray(signed.argmax(axis=1)[:, None] == np.arange(values.shape[1]))

    def _by_points(
        self, lower: Array, upper: Array, x: Array, alive: NDArray[np.bool_], wins: NDArray[np.bool_]
    ) -> _Split | None:
        """For points (n, inputs), the units alive there (n, units) and the winners (n, outputs)."""
        places, sides = [], []
        for axis in np.flatnonzero(upper > lower).tolist():
            for part in PARTS:
                face = float(lower[axis] + part * (upper[axis] - lower[axis]))
                side = x[:, axis] >= face
                if lower[axis] < face < upper[axis] and side.any() and not side.all():
                    places.append((axis, part, face))
                    sides.append(side)
        if not places:
            return None
        above = np.array(sides, dtype=np.float64)
        share = np.array([part for _, part, _ in places])
        both = np.concatenate([alive, wins], axis=1)
        halves = [side @ both / side.sum(axis=1, keepdims=True) for side in (1 - above, above)]
        below_cost, above_cost = (self._expected(half, FEW) for half in halves)
        k = int((share * below_cost + (1 - share) * above_cost).argmin())
        before, *after = self._expected(np.stack([both.mean(axis=0), *(half[k] for half in halves)]), np.inf)
        gain = float(before - share[k] * after[0] - (1 - share[k]) * after[1])
        axis, _, face = places[k]
        return _Split(max(0.0, gain), axis, face, doubtful=False)

    def _expected(self, shares: Array, count: float) -> Array:
        """The cost that `count` random points would show, for shares (parts, units and outputs) alive and winning.

        As if units and winner were independent.
        """
        units = self.network.units
        cost = self.cost.of_units(1 - (1 - shares[:, :units]) ** count)
        return np.asarray(cost * (1 - HOPE * (shares[:, units:] ** count).sum(axis=1)))

    def settled(self, lower: Array, upper: Array) -> bool:
        """Whether linear bounds prove that the network is affine on a leaf, or its decision constant."""
        cell = Box(lower.reshape(self.box.shape), upper.reshape(self.box.shape))
        known = linear_bounds(self.network, cell).intervals
        if (codes_of(self.network, known) != KEPT).all():
            return True
        return (
            self.decision is not None
            and constant_winner(self.network, cell, self.decision, known, budget=0) is not None
        )
