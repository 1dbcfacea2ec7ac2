"""Is a property of one network kept on its boxes? Points, linear bounds, search depth first, then best first.

Where few inputs vary, a conjunction is one clause of the branching engine (`redy.condensed.search`): at every input of
its box some row of A x + B y + c is positive. Rows carry errors that are strictly larger than what rounding can have
done, so a row bounded at 0 or above is positive, and a tie at the border is never counted as a proof.

All conjunctions and all boxes take turns: each is searched with little work before any is with much. What a depth-first
search leaves open is cut in two, and the parts that come nearest to a violation are searched first, each in a condensed
form of its own. Where many inputs vary, the rows become units behind the network whose phase is asked
(`redy.bounds.activation_branching`), and the solver answers what is left (`redy.questions.properties_by_milp`).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from redy.condensed.form import Intervals, Walk
from redy.condensed.phases import root_bounds
from redy.condensed.search import LOWER, Clause, Found, Rows, Search
from redy.model import (
    Array,
    Box,
    BoxTree,
    Conjunction,
    Evidence,
    Limits,
    Proof,
    Property,
    Proved,
    Refuted,
    Unknown,
    Verdict,
)
from redy.questions.attack import attack, descend
from redy.questions.constraints import NAME, constrained
from redy.questions.query import outputs
from redy.questions.situation import Situation
from redy.questions.sweep import sweep
from redy.questions.witness import Witnesses

POINTS, MANY_POINTS = 512, 8
"""Random points per box, where there are few boxes and where there are more than `MANY`."""
MANY = 16
QUICK, LONG = range(2), range(2, 24)
"""Rounds of the attack on each conjunction: before the search, and where little work has not decided it."""
NEAR = 0.02
"""The first step of a path from a point that nearly violates, as a share of the box."""
GLANCE, FIRST, DEEP = 3_000_000, 150_000_000, 1_000_000_000
"""Work on one conjunction in each depth-first pass."""
PART = 3_000_000
"""Work on one conjunction in one part, best first."""
LEAST = 300_000
"""Work that a search counts for at least: about what condensing a small network costs."""


@dataclass(slots=True, eq=False)
class _Part:
    """A sub-box, what was proved in it, and its halves.

    Attributes:
        asked: the numbers of the conjunctions asked about.
        open: those that are open in it.
        proved: conjunction -> the tree that closes it in this sub-box.
        axis: the input (flattened) at which it was bisected, -1 if it was not.
        known: sound bounds of pre-activations in it.
    """

    box: Box
    asked: tuple[int, ...]
    open: list[int]
    known: Intervals = field(default_factory=dict)
    proved: dict[int, NDArray[np.int16]] = field(default_factory=dict)
    axis: int = -1
    halves: list[_Part] = field(default_factory=list)

    def tree(self, number: int) -> list[NDArray[np.int16]]:
        """The tree of a conjunction proved in this sub-box, in pieces."""
        if number in self.proved:
            return [self.proved[number]]
        axis = np.array([self.axis], dtype=np.int16)
        return [axis, *(piece for half in self.halves for piece in half.tree(number))]


class PropertySearch:
    """The search for the verdict on one property: `run` it once.

    Args:
        claim: the property.
        situation: the network; few inputs vary.
        limits: work and deadline.
    """

    def __init__(self, claim: Property, situation: Situation, limits: Limits) -> None:
        self.claim, self.network, self.limits = claim, situation.network, limits
        self.witnesses = Witnesses(situation.network, situation.run)
        numbers = {id(conjunction): k for k, conjunction in enumerate(claim.conjunctions)}
        groups = [(box, [numbers[id(c)] for c in group]) for box, group in claim.boxes().items()]
        self.parts = [_Part(box, tuple(group), group) for box, group in groups]
        self.near: dict[int, Array] = {}
        self.unconfirmed = False

    def run(self) -> Verdict:
        """Stage by stage until one decides."""
        stages = (
            self._points,
            self._bounds,
            partial(self._depth_first, GLANCE),
            partial(self._attack, QUICK),
            partial(self._depth_first, FIRST),
            partial(self._attack, LONG),
            partial(self._depth_first, DEEP),
            self._best_first,
        )
        for stage in stages:
            if (witness := stage()) is not None:
                return Refuted(witness)
            if not any(part.open for part in self.parts):
                return Proved(Proof(str(self.claim), "branch", tuple(self._all_evidence())))
        if self.unconfirmed:
            return Unknown("a point violates the property, but within rounding: no float input of the box shows it")
        return Unknown("budget or time limit")

    def _points(self) -> Array | None:
        """Random points and the centre of every box, a few boxes at a time."""
        rng = np.random.default_rng(0)
        count = POINTS if len(self.parts) <= MANY else MANY_POINTS
        for chunk in _chunks(self.parts, max(1, 8192 // count)):
            points = np.stack([np.concatenate([p.box.sample(count - 1, rng), p.box.center[None]]) for p in chunk])
            y = outputs(self.network, points.reshape(-1, *self.network.input.shape)).reshape(len(chunk), count, -1)
            for k, part in enumerate(chunk):
                for number in part.open:
                    values = self.claim.conjunctions[number].values(points[k], y[k]).max(axis=1, initial=-np.inf)
                    order = np.argsort(values, kind="stable")
                    self.near[number] = points[k][order[:1]]
                    if values[order[0]] <= 0 and (found := self._confirmed(number, points[k][order[:3]])) is not None:
                        return found
            if self.limits.expired():
                break
        return None

    def _bounds(self) -> Array | None:
        """Where boxes are many: linear bounds for groups of boxes in one condensed form."""
        if len(self.parts) > MANY:
            boxes = [part.box for part in self.parts]
            rows = [[self.claim.conjunctions[k] for k in part.open] for part in self.parts]
            for part, closed in zip(self.parts, sweep(self.network, boxes, rows, self.limits), strict=True):
                leaf = np.full(1, -1, dtype=np.int16)
                part.proved.update({number: leaf for number, shut in zip(part.open, closed, strict=True) if shut})
                part.open = [number for number, shut in zip(part.open, closed, strict=True) if not shut]
        return None

    def _attack(self, rounds: range) -> Array | None:
        """Rounds of the attack on every open conjunction."""
        for part in self.parts:
            for number in part.open:
                for points, values in attack(self.network, self.claim.conjunctions[number], rounds):
                    if values[0] <= 0 and (found := self._confirmed(number, points[:3])) is not None:
                        return found
                    if self.limits.expired():
                        return None
        return None

    def _depth_first(self, cap: int) -> Array | None:
        """Every box with its open conjunctions."""
        for part in self.parts:
            if part.open and not self.limits.expired() and (found := self._search(part, cap)) is not None:
                return found
        return None

    def _best_first(self) -> Array | None:
        """Halves of what is open, those first that come nearest to a violation."""
        number = itertools.count()
        heap = [(-np.inf, next(number), part) for part in self.parts if part.open]
        left: list[_Part] = []
        while heap and not self.limits.expired():
            _, _, part = heapq.heappop(heap)
            whole = self.claim.conjunctions[part.open[0]].box
            if not self._halve(part, whole):
                left.append(part)
                continue
            for half in part.halves:
                if (found := self._search(half, PART)) is not None:
                    return found
                if half.open:
                    value, found = self._nearest(half)
                    if found is not None:
                        return found
                    heapq.heappush(heap, (value, next(number), half))
        left += [part for _, _, part in heap]
        if not left:
            for part in self.parts:
                part.open.clear()
        return None

    def _search(self, part: _Part, cap: int) -> Array | None:
        """One depth-first search in a sub-box; what it proves is taken from `part.open`."""
        conjunctions = [self.claim.conjunctions[number] for number in part.open]
        network, places = constrained(self.network, conjunctions)
        walk = root_bounds(network, part.box, part.known)
        part.known = walk.intervals
        rows, clauses = _clauses(walk, places)
        budget = min(self.limits.work, cap * len(clauses))
        deadline = None if self.limits.deadline == np.inf else self.limits.deadline
        found = Search(rows, clauses, cap=cap, budget=budget, deadline=deadline, patient=True).run()
        self.limits = self.limits.less(max(found.work, LEAST))
        return self._take(part, found)

    def _take(self, part: _Part, found: Found) -> Array | None:
        """Note what a search proved and where it came near; a confirmed witness, if it met one."""
        before = part.open
        part.proved.update({before[c]: found.tree for c in found.proved})
        part.open = [number for c, number in enumerate(before) if c not in set(found.proved)]
        for c, point in {**found.open, **found.refuted}.items():
            self.near[before[c]] = part.box.clip(point.reshape(1, *part.box.shape))
        for c in found.refuted:
            number = before[c]
            if (witness := self._confirmed(number, self.near[number])) is not None:
                return witness
            if (witness := self._descend(number, part.box)[1]) is not None:
                return witness
            self.unconfirmed = True
        return None

    def _nearest(self, part: _Part) -> tuple[float, Array | None]:
        """How near a short attack comes to a violation in a sub-box, and a confirmed witness if there is one."""
        best = np.inf
        for number in part.open:
            value, found = self._descend(number, part.box)
            best = min(best, value)
            if found is not None:
                return best, found
        return best, None

    def _descend(self, number: int, box: Box) -> tuple[float, Array | None]:
        """Paths from the nearest point known: the smallest value, and a confirmed witness if there is one."""
        points, values = descend(self.network, self._inside(number, box), self.near[number], NEAR)
        self.near[number] = points[:1]
        return float(values[0]), self._confirmed(number, points[:3]) if values[0] <= 0 else None

    def _inside(self, number: int, box: Box) -> Conjunction:
        c = self.claim.conjunctions[number]
        return c if box is c.box else Conjunction(box, c.inputs, c.outputs, c.constants, c.strict)

    def _confirmed(self, number: int, points: Array) -> Array | None:
        return self.witnesses.confirmed(self.claim.conjunctions[number], points)

    def _halve(self, part: _Part, whole: Box) -> bool:
        """Bisect the input that is widest relative to the whole box; False where no input can be."""
        lower, upper = part.box.lower.ravel(), part.box.upper.ravel()
        middle = lower + (upper - lower) / 2
        width = np.where((lower < middle) & (middle < upper), part.box.width.ravel(), 0.0)
        share = width / np.maximum(whole.width.ravel(), 1e-300)
        axis = int(share.argmax())
        if not share[axis] > 0:
            return False
        part.axis = axis
        for side in range(2):
            low, high = lower.copy(), upper.copy()
            (high if side == 0 else low)[axis] = middle[axis]
            box = Box(low.reshape(part.box.shape), high.reshape(part.box.shape))
            part.halves.append(_Part(box, tuple(part.open), list(part.open), part.known))
        return True

    def _all_evidence(self) -> Iterator[Evidence]:
        """The trees, one for all conjunctions of a box that share it."""
        for part in self.parts:
            shared: dict[bytes, tuple[NDArray[np.int16], list[int]]] = {}
            for number in part.asked:
                tree = np.concatenate(part.tree(number))
                shared.setdefault(tree.tobytes(), (tree, []))[1].append(number)
            for tree, owners in shared.values():
                yield BoxTree(tree, part.box, tuple(owners))


def _clauses(walk: Walk, places: list[NDArray[np.int64]]) -> tuple[Rows, list[Clause]]:
    rows = Rows.of(walk.condensed, walk.forms[NAME])
    return rows, [Clause(tuple((rows.variables + int(row), LOWER) for row in own)) for own in places]


def _chunks(items: list[_Part], size: int) -> Iterator[list[_Part]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
