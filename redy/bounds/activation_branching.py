"""Phases of networks with many inputs: optimised slopes, then branching on unstable ReLUs.

Where the input has hundreds of dimensions, cutting the box does not help; fixing the phase of a hidden ReLU does
(Bunel et al., "Branch and Bound for Piecewise Linear Neural Network Verification", JMLR 21, 2020, section 4). Layer
by layer every open element gets bounds with slopes of its own (`redy.bounds.slopes`); the vertices that come with
them, followed along the true gradient, are tried as witnesses; what is then still open is split on the ReLU whose
relaxation costs its bound most, until every part is closed, a witness is found, or the budget ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.interval import needed_for
from redy.bounds.linear import CHUNK, Relaxation, RowLines, linear_bounds
from redy.bounds.result import Bounds
from redy.bounds.shown import Shown
from redy.bounds.slopes import Optimised, optimise, supports
from redy.model import Activate, Array, Box, Network

Splits = dict[str, NDArray[np.int8]]


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the search.

    Attributes:
        time_limit: seconds for everything.
        parts: parts of the box (activation patterns) that may be bounded for one element.
        steps: gradient steps per bound at the root; parts get half as many.
        batch: parts bounded at once.
    """

    time_limit: float = 60.0
    parts: int = 400
    steps: int = 16
    batch: int = 32


@dataclass(frozen=True, slots=True, eq=False)
class Branched:
    """What the search reached.

    Attributes:
        bounds: sound bounds, never looser than those it began with; a decided element is stuck in them.
        witnesses: inputs (n, *input shape) tried, each of which showed some element outside its piece so far.
        parts: how many parts were bounded.
        complete: whether no element was left open by the budget.
    """

    bounds: Bounds
    witnesses: Array
    parts: int
    complete: bool


def branch(network: Network, box: Box, bounds: Bounds, points: Array, budget: Budget | None = None) -> Branched:
    """Tighten bounds of pre-activations until elements are stuck, refuted by a point, or the budget ends.

    Layers behind a node that is neither affine nor ReLU keep the bounds they have.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        bounds: sound bounds on the box, linear ones as a rule.
        points: inputs (n, *input shape) of the box, n >= 1; what they show in several pieces is asked no further.
        budget: limits.
    """
    search = _Search(network, box, bounds, budget or Budget())
    search.shown.see(points)
    return search.run()


@dataclass
class _Search:
    network: Network
    box: Box
    bounds: Bounds
    budget: Budget
    parts: int = 0
    witnesses: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shown = Shown(self.network)
        self.optimised: dict[str, int] = {}  # activation -> unstable elements before it when its slopes were optimised
        self.deadline = time.monotonic() + self.budget.time_limit

    def run(self) -> Branched:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return self._run()

    def _run(self) -> Branched:
        layers = [
            node
            for node in self.network.activations
            if node.function.is_relu and supports(self.network, needed_for(self.network, [node.source]))
        ]
        # Deepening: what one layer learns cheaply helps all layers behind it more than a deep search in one of them.
        parts = 0
        while parts <= self.budget.parts and self._all_open() and time.monotonic() < self.deadline:
            for node in layers:
                self._layer(node, parts)
            parts = max(4 * parts, 8)
        witnesses = np.array(self.witnesses).reshape(-1, *self.box.shape)
        return Branched(self.bounds, witnesses, self.parts, not self._all_open())

    def _layer(self, node: Activate, parts: int) -> None:
        """Optimised bounds for every unstable element of a layer, then branching into `parts` for every open one."""
        places = self._unstable(node)
        if not places.size or not self._all_open() or time.monotonic() > self.deadline:
            return
        relaxed = Relaxation(self.network, self.box, self.bounds, [node.source], refine=False)
        behind = needed_for(self.network, [node.source])
        known = sum(self._unstable(other).size for other in self.network.activations if other.name in behind)
        for sign in (1.0, -1.0) if self.optimised.get(node.name) != known else ():
            self.optimised[node.name] = known
            for rows in self._chunks(places):
                found = optimise(relaxed, node.source, _forms(node, rows, sign), self.budget.steps)
                self._tighten(node, rows, sign, found.upper)
                self._try(relaxed, node, rows, sign, found.vertex)
        for place in self._open(node):
            low, high = (float(end.flat[place]) for end in self.shown.extremes[node.name][:2])
            sign = 1.0 if high <= 0 else -1.0
            if (
                low <= high
                and time.monotonic() < self.deadline
                and self._closes(relaxed, node, int(place), sign, parts)
            ):
                self._tighten(node, np.array([place]), sign, np.zeros(1))
        self.bounds = linear_bounds(self.network, self.box, self.bounds, leave_unsupported=True)

    def _closes(self, relaxed: Relaxation, node: Activate, place: int, sign: float, parts: int) -> bool:
        """Whether sign * z <= 0 on the whole box, by splitting ReLUs of the layers before."""
        form = _forms(node, np.array([place]), sign)
        root: Splits = {name: np.zeros(relaxed.network.shapes[name], dtype=np.int8) for name in relaxed.lines}
        first = optimise(relaxed, node.source, form, self.budget.steps)
        waiting = [(root, _cut(relaxed, first, 0, root))]
        used = 0
        while waiting:
            taken, waiting = waiting[-self.budget.batch // 2 :], waiting[: -self.budget.batch // 2]
            if any(choice is None for _, choice in taken):
                return False
            used += 2 * len(taken)
            if used > parts or time.monotonic() > self.deadline:
                return False
            children = [_with(split, choice, side) for split, choice in taken if choice is not None for side in (1, -1)]
            stacked = {name: np.stack([child[name] for child in children]) for name in root}
            forms = np.repeat(form, len(children), axis=0)
            found = optimise(relaxed, node.source, forms, self.budget.steps // 2, stacked)
            self.parts += len(children)
            self._try(relaxed, node, np.full(len(children), place), sign, found.vertex, steps=1)
            if place not in self._open(node):
                return False
            left = [(child, row) for row, child in enumerate(children) if not found.upper[row] <= 0]
            left.sort(key=lambda item: float(found.upper[item[1]]))
            waiting += [(child, _cut(relaxed, found, row, child)) for child, row in left]
        return True

    def _try(
        self, relaxed: Relaxation, node: Activate, places: NDArray[np.int64], sign: float, points: Array, steps: int = 3
    ) -> None:
        """Evaluate vertices, and those that the gradient at each leads to, as witnesses."""
        for step in range(steps + 1):
            before = self._all_open()
            kept = self.shown.see(points)
            if self._all_open() < before:
                self.witnesses.extend(points[kept])
            if step < steps:
                gradient = _gradient(relaxed, node, _forms(node, places, sign), points)
                points = np.where(gradient > 0, self.box.upper, self.box.lower)

    def _tighten(self, node: Activate, places: NDArray[np.int64], sign: float, upper: Array) -> None:
        low, high = (end.copy() for end in self.bounds.intervals[node.name])
        if sign > 0:
            high.flat[places] = np.minimum(high.flat[places], upper)
        else:
            low.flat[places] = np.maximum(low.flat[places], -upper)
        self.bounds = Bounds(self.box, {**self.bounds.intervals, node.name: (low, high)}, "split", self.bounds.trusted)

    def _unstable(self, node: Activate) -> NDArray[np.int64]:
        return np.flatnonzero(node.function.stuck(*self.bounds.intervals[node.name]) < 0)

    def _open(self, node: Activate) -> NDArray[np.int64]:
        """Elements that neither bounds nor points have decided."""
        places = self._unstable(node)
        return places[self.shown.pieces(node.name).flat[places] >= 0]

    def _all_open(self) -> int:
        return sum(self._open(node).size for node in self.network.activations)

    def _chunks(self, places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        count = max(1, CHUNK // max(math.prod(shape) for shape in self.network.shapes.values()))
        for begin in range(0, places.size, count):
            if time.monotonic() < self.deadline:
                yield places[begin : begin + count]


def _forms(node: Activate, places: NDArray[np.int64], sign: float) -> Array:
    forms = np.zeros((len(places), *node.shape))
    forms.reshape(len(places), -1)[np.arange(len(places)), places] = sign
    return forms


def _cut(relaxed: Relaxation, found: Optimised, row: int, splits: Splits) -> tuple[str, int] | None:
    """The ReLU whose relaxation may cost most: the largest |weight| times gap of its triangle; None if none is left."""
    best, choice = 0.0, None
    for name, weights in found.weights.items():
        (lines,) = relaxed.lines[name]
        cost = np.where(splits[name] == 0, np.abs(weights[row]) * lines.upper_intercept, 0.0)
        place = int(cost.argmax())
        if cost.flat[place] > best:
            best, choice = float(cost.flat[place]), (name, place)
    return choice


def _with(splits: Splits, choice: tuple[str, int], side: int) -> Splits:
    name, place = choice
    changed = splits[name].copy()
    changed.flat[place] = side
    return {**splits, name: changed}


def _gradient(relaxed: Relaxation, node: Activate, forms: Array, points: Array) -> Array:
    """The derivative of each form at its own point: the backward pass with the slopes that hold there."""
    values = relaxed.network.trace(points)
    lines = {}
    for name in relaxed.lines:
        reader = relaxed.network.by_name[name]
        slope = (values[reader.sources[0]] > 0).astype(np.float64)
        lines[name] = RowLines(slope, slope, np.zeros_like(slope), np.zeros_like(slope))
    seen: dict[str, Array] = {}
    relaxed.upper(node.source, forms, lines, seen)
    return seen.get(relaxed.network.input.name, np.zeros_like(points))
