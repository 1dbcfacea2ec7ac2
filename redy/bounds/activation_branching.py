"""Phases of networks with many inputs: optimised slopes, then splits of unstable ReLUs.

Where the input has hundreds of dimensions, cutting the box does not help; fixing the phase of a hidden ReLU does
(Bunel et al., "Branch and Bound for Piecewise Linear Neural Network Verification", JMLR 21, 2020, section 4). Layer by
layer, every unstable element gets bounds with slopes of its own (Xu et al., "Fast and Complete", ICLR 2021, section
3.1). Then the elements of the layer grow trees side by side: the worst open part of each is split on the ReLU whose
relaxation costs its bound most, with multipliers of the split constraints (Wang et al., "Beta-CROWN", NeurIPS 2021,
Theorem 3.1). Elements that may be stuck come first; then all unstable ones, as the layers behind need their ranges.
A layer in which slopes prove nothing is not split.

The search works in float32 (`redy.bounds.layers`). Its slopes, multipliers and splits are then evaluated once in
float64 with every rounding error bounded (`redy.bounds.linear`): what a row certainly does not exceed on every part of
its tree is its bound. Vertices, followed along the true gradient, are witnesses; float64 evaluation decides about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.layers import Layer, Linearised, Places, Single, alike, forward, gradients, layers_of
from redy.bounds.linear import Relaxation, RowLines
from redy.bounds.result import Bounds
from redy.bounds.shown import Shown
from redy.bounds.trees import Trees
from redy.model import Activate, Array, Box, Limits, Network

WORK = 500_000_000_000
"""Multiply-adds in float32 by default: up to some thirty seconds."""
STEPS, PART_STEPS = 20, 8
"""Gradient steps for a whole box, and for a part of it."""
POINTS = 64
"""Points evaluated between two looks at the clock."""
ROWS = 1 << 18
"""Numbers in one array of rows of the search (1 MiB), so that it stays in the cache."""
PROOF = 1 << 20
"""Numbers in one array of rows of the proof (8 MiB)."""
NEAR = 0.02
"""A bound this near to what points show, as a share of both, is tight enough."""
SHARES = ((0.5, False), (1.0, True))
"""Shares of what is left of a layer's work: for elements that may be stuck, and then for all unstable ones."""
DENSE = 4
"""Points are evaluated by dense layers where these take at most so many times the network's multiply-adds."""
SURE = 1e-5
"""What float32 may be wrong by, as a share of a row's first bound: parts below zero by this much are closed."""


@dataclass(frozen=True, slots=True, eq=False)
class Branched:
    """What the search reached.

    Attributes:
        bounds: sound bounds, never looser than those it began with; a decided element is stuck in them.
        witnesses: inputs (n, *input shape) tried, each of which showed some element outside its piece so far.
        parts: how many parts of the box were bounded.
        complete: whether no element was left open.
    """

    bounds: Bounds
    witnesses: Array
    parts: int
    complete: bool


def branch(network: Network, box: Box, bounds: Bounds, points: Array, limits: Limits | None = None) -> Branched:
    """Tighten bounds of pre-activations until elements are stuck, refuted by a point, or the limits end the search.

    Layers behind a node that is neither affine nor ReLU, and those too large for dense matrices, keep their bounds.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        bounds: sound bounds on the box, linear ones as a rule.
        points: inputs (n, *input shape) of the box, n >= 1; what they show in several pieces is asked no further.
        limits: multiply-adds of the search (`WORK` by default), and a deadline.
    """
    with np.errstate(all="ignore"):
        return _Search(network, box, bounds, limits or Limits(WORK), points).run()


@dataclass
class _Search:
    network: Network
    box: Box
    bounds: Bounds
    limits: Limits
    points: Array
    parts: int = 0
    witnesses: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shown = Shown(self.network)
        for begin in range(0, len(self.points), POINTS):
            if not begin or self.limits.remaining() > 0:
                self.shown.see(self.points[begin : begin + POINTS])
        self.layers: list[Layer] = layers_of(self.network) if self._all_open() else []
        self._macs = sum(weight.size for layer in self.layers for weight in layer.weights.values())
        self._dense = self._macs <= DENSE * self.network.macs
        self._ends = [(self._extreme(layer, 0), self._extreme(layer, 1)) for layer in self.layers]

    def run(self) -> Branched:
        for place, layer in enumerate(self.layers):
            left = sum(self._unstable(other.node).size > 0 for other in self.layers[place:])
            if self._unstable(layer.node).size and self._all_open() and not self.limits.expired():
                self._layer(place, self.limits.share(1 / left))
        witnesses = np.array(self.witnesses).reshape(-1, *self.box.shape)
        return Branched(self.bounds, witnesses, self.parts, not self._all_open())

    def _layer(self, place: int, limits: Limits) -> None:
        """Optimised slopes for every unstable element of a layer in both directions, then splits."""
        node = self.layers[place].node
        ranges = [self.bounds.intervals[layer.node.name] for layer in self.layers]
        before, least = self._unstable(node), self.limits.work - limits.work
        relaxed = Relaxation(self.network, self.box, self.bounds, [node.source], refine=False)
        grown: list[tuple[Linearised, Trees]] = []
        for elements in alike(self.layers[place], before):
            lines = Linearised(self.layers, place, elements, ranges, self.box)
            if lines.width and not self.limits.expired():
                trees = self._planted(place, lines, elements)
                self._prove(node, lines, relaxed, trees, trees.planted)
                grown.append((lines, trees))
        if self._unstable(node).size == before.size:
            return
        behind = any(self._open(layer.node).size for layer in self.layers[place + 1 :])
        for share, everything in SHARES if behind else SHARES[:1]:
            for number, (lines, trees) in enumerate(grown):
                work = int(share * (self.limits.work - least) / (len(grown) - number))
                end = Limits(self.limits.work - work, limits.deadline)
                self._grow(place, lines, trees, end, everything=everything)
                self._prove(node, lines, relaxed, trees, trees.grown())

    def _planted(self, place: int, lines: Linearised, elements: Places) -> Trees:
        """Both directions of elements with slopes of their own on the whole box."""
        rows, signs = np.tile(elements, 2), np.repeat(np.array([1, -1], np.float32), elements.size)
        trees = Trees(rows, signs, lines.width)
        for part in self._chunks(np.arange(rows.size), lines):
            found = lines.optimise(rows[part], signs[part], STEPS)
            trees.plant(part, found)
            self._spend(lines.work(len(part), STEPS))
            self._try(place, rows[part], signs[part], found.vertex, steps=2)
        return trees

    def _grow(self, place: int, lines: Linearised, trees: Trees, end: Limits, *, everything: bool) -> None:
        """Split the worst part of every row that is asked about, again and again, until so much work is left."""
        while self.limits.work > end.work and end.remaining() > 0:
            parts = self._worth(place, trees, everything=everything)
            if not parts.size or trees.full:
                return
            for chunk in self._chunks(parts, lines, 2):
                if self.limits.work <= end.work or end.remaining() <= 0:
                    return
                places, signs, split, slopes, multipliers = trees.children(chunk)
                found = lines.optimise(places, signs, PART_STEPS, split, slopes, multipliers)
                trees.grow(chunk, split, found)
                self.parts += len(places)
                self._spend(lines.work(len(places), PART_STEPS))
                asked = self._may_be_stuck(place, places, signs)
                self._try(place, places[asked], signs[asked], found.vertex[asked], steps=1)

    def _worth(self, place: int, trees: Trees, *, everything: bool) -> Places:
        """The worst part of every row that is worth splitting."""
        node = self.layers[place].node
        parts = trees.worst()
        rows = trees.row[parts]
        bound = trees.bound[parts]
        elements, signs = trees.elements[rows], trees.signs[rows]
        low, high = self._ends[place]
        reached = np.where(signs > 0, high[elements], -low[elements])
        stuck = np.isin(elements, self._unstable(node), invert=True)
        near = bound - reached < NEAR * (np.abs(bound) + np.abs(reached))
        asked = (reached <= 0) | (~near if everything else False)
        return parts[~stuck & asked & (bound > -SURE * trees.first[rows]) & (trees.choice[parts] >= 0)]

    def _may_be_stuck(self, place: int, elements: Places, signs: Single) -> Places:
        """Those of some rows that no point shows above zero."""
        low, high = self._ends[place]
        return np.flatnonzero(np.where(signs > 0, high[elements], -low[elements]) <= 0)

    def _prove(self, node: Activate, lines: Linearised, relaxed: Relaxation, trees: Trees, rows: Places) -> None:
        """Evaluate the parts of rows once in bounded float64; the largest bound of its parts is a row's bound."""
        stuck = np.isin(trees.elements, self._unstable(node), invert=True)
        useful = rows[~stuck[rows]]
        parts = np.flatnonzero(np.isin(trees.row[: trees.count], useful))
        if not parts.size:
            return
        width = max(max(w.shape) for layer in self.layers for w in layer.weights.values())
        upper = np.full(len(trees.elements), -np.inf)
        for chunk in np.array_split(parts, max(1, -(-len(parts) * width // PROOF))):
            own = trees.row[chunk]
            forms = np.zeros((len(chunk), *node.shape))
            forms.reshape(len(chunk), -1)[np.arange(len(chunk)), trees.elements[own]] = trees.signs[own]
            found = relaxed.upper(node.source, forms, self._lines(lines, relaxed, trees, chunk))
            trees.bound[chunk] = np.maximum(trees.bound[chunk], found)
            np.maximum.at(upper, own, found)
        upper[np.isneginf(upper)] = np.inf  # a row without a part is not bounded
        low, high = (end.copy() for end in self.bounds.intervals[node.name])
        above, below = useful[trees.signs[useful] > 0], useful[trees.signs[useful] < 0]
        high.flat[trees.elements[above]] = np.minimum(high.flat[trees.elements[above]], upper[above])
        low.flat[trees.elements[below]] = np.maximum(low.flat[trees.elements[below]], -upper[below])
        self.bounds = Bounds(self.box, {**self.bounds.intervals, node.name: (low, high)}, "split", self.bounds.trusted)

    def _lines(self, lines: Linearised, relaxed: Relaxation, trees: Trees, parts: Places) -> dict[str, RowLines]:
        """The lines that the search chose for parts, around every ReLU in float64."""
        found = {}
        for place, (unstable, where) in lines.columns.items():
            node = self.layers[place].node
            (usual,) = relaxed.lines[node.name]
            shape = (len(parts), node.function.broadcast_to(node.shape).value.size)
            low, high, gap = (
                np.broadcast_to(each.ravel(), shape).copy()
                for each in (usual.lower_slope, usual.upper_slope, usual.upper_intercept)
            )
            shift = np.zeros(shape)
            split = trees.split[parts][:, where].astype(np.float64)
            free, active = split == 0, (split > 0).astype(np.float64)
            low[:, unstable] = np.where(free, trees.slopes[parts][:, where].astype(np.float64), active)
            high[:, unstable] = np.where(free, high[:, unstable], active)
            gap[:, unstable] = np.where(free, gap[:, unstable], 0.0)
            multipliers = np.nan_to_num(trees.multipliers[parts][:, where].astype(np.float64), posinf=0.0)
            shift[:, unstable] = np.maximum(multipliers, 0.0) * split
            found[node.name] = RowLines(
                *(each.reshape(len(parts), *node.shape) for each in (np.clip(low, 0, 1), high, gap, shift))
            )
        return found

    def _try(self, place: int, elements: Places, signs: Single, points: Single, steps: int) -> None:
        """Evaluate vertices, and those that the gradient at each leads to; float64 decides about witnesses."""
        if not len(points):
            return
        lower, upper = (end.ravel().astype(np.float32) for end in (self.box.lower, self.box.upper))
        steps = steps if self._dense else 0
        for step in range(steps + 1):
            values = self._values(points)
            useful = np.zeros(len(points), dtype=bool)
            for ends, z in zip(self._ends, values, strict=True):
                low, high = z.min(axis=0), z.max(axis=0)
                crossed = np.flatnonzero(((ends[0] >= 0) & (low < 0)) | ((ends[1] <= 0) & (high > 0)))
                useful[z[:, crossed].argmin(axis=0)] = useful[z[:, crossed].argmax(axis=0)] = True
                np.minimum(ends[0], low, out=ends[0])
                np.maximum(ends[1], high, out=ends[1])
            if useful.any():
                self._witness(points[useful])
            self._spend(len(points) * (2 * self._macs if self._dense else 4 * self.network.macs))
            if step < steps:
                gradient = gradients(self.layers, place, elements, signs, values)
                points = np.where(gradient > 0, upper, lower)

    def _values(self, points: Single) -> list[Single]:
        """Pre-activations of all layers, by the cheaper of the dense layers and the network itself."""
        if self._dense:
            return forward(self.layers, points)
        found = self.network.trace(points.reshape(-1, *self.box.shape).astype(np.float64))
        return [found[layer.node.source].reshape(len(points), -1).astype(np.float32) for layer in self.layers]

    def _witness(self, points: Single) -> None:
        """What float32 took for witnesses; those that are none in float64 count as nothing."""
        exact = np.clip(points.reshape(-1, *self.box.shape).astype(np.float64), self.box.lower, self.box.upper)
        before = self._all_open()
        kept = self.shown.see(exact)
        if self._all_open() < before:
            self.witnesses.extend(exact[kept])

    def _extreme(self, layer: Layer, side: int) -> Single:
        return np.asarray(self.shown.extremes[layer.node.name][side].ravel(), dtype=np.float32).copy()

    def _spend(self, work: int) -> None:
        self.limits = self.limits.less(work)

    def _unstable(self, node: Activate) -> Places:
        return np.flatnonzero(node.function.stuck(*self.bounds.intervals[node.name]) < 0)

    def _open(self, node: Activate) -> NDArray[np.int64]:
        """Elements that neither bounds nor points have decided."""
        places = self._unstable(node)
        return places[self.shown.pieces(node.name).flat[places] >= 0]

    def _all_open(self) -> int:
        return sum(self._open(node).size for node in self.network.activations)

    def _chunks(self, rows: Places, lines: Linearised, each: int = 1) -> Iterator[Places]:
        count = max(16, ROWS // (each * max(lines.width, 1)))
        for begin in range(0, rows.size, count):
            if not self.limits.expired():
                yield rows[begin : begin + count]
