"""Linear bounds in forward mode: every value between two linear functions of the inputs that vary.

With d inputs that vary, x_k = c_k + r_k e_k and e in [-1, 1]^d, every value v is enclosed by

    |v - m(e)| <= g(e)   for all e,    m and g affine in e,

which costs 2 (d + 1) columns a node, whatever the number of its elements; backward mode costs one pass an element
(Xu et al., "Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond", NeurIPS 2020, section 3.1).
An affine node gives |W s + b - (W m + b)| <= |W| g as functions of e. An activation with lower line a x + b and
upper line a' x + b' on the range of x lies between a m - |a| g + b and a' m + |a'| g + b'.

Rounding. As |e_k| <= 1, an error of one coefficient moves a function by no more than itself, so the errors of all
coefficients of m and of g, gamma_n |W| (sum_k |m_k| + sum_k |g_k|) at an affine node, are added to the constant of g.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.bounds.interval import fan_in
from redy.bounds.relaxation import Lines, winners
from redy.bounds.result import Range
from redy.bounds.rounding import LARGE, UNDERFLOW, down, gamma, up
from redy.model import Affine, Array, Box, MaxPool, Node

INPUTS = 64
"""Up to this number of inputs that vary forward mode comes first."""
MEMORY = 1 << 26
"""Numbers that the functions of all values may hold together (512 MiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class Enclosure:
    """|v - m(e)| <= g(e): `middle` and `gap`, both (1 + d, *shape), the constants first."""

    middle: Array
    gap: Array

    @property
    def size(self) -> Array:
        """The sum of the absolute coefficients of both (*shape)."""
        return np.asarray(np.abs(self.middle).sum(axis=0) + np.abs(self.gap).sum(axis=0))

    def range(self) -> Range:
        """What v can be, rounded outwards; exact where nothing varies."""
        low, high = self.middle - self.gap, self.middle + self.gap
        least = low[0] - np.abs(low[1:]).sum(axis=0)
        most = high[0] + np.abs(high[1:]).sum(axis=0)
        varies = (self.middle[1:] != 0).any(axis=0) | (self.gap != 0).any(axis=0)
        slack = np.where(varies, gamma(len(low) + 6) * self.size + 4 * UNDERFLOW, 0.0)
        least, most = np.where(varies, down(least - slack), least), np.where(varies, up(most + slack), most)
        return np.where(np.isnan(least), -np.inf, least), np.where(np.isnan(most), np.inf, most)


def fits(nodes: Sequence[Node], box: Box) -> bool:
    """Whether few enough inputs vary for forward mode."""
    inputs = int((box.width > 0).sum())
    return inputs <= INPUTS and 2 * (inputs + 1) * sum(math.prod(node.shape) for node in nodes) <= MEMORY


class Forward:
    """Enclosures of the values of some nodes, extended node by node; those that nobody reads any more are dropped."""

    def __init__(self, name: str, box: Box, nodes: Sequence[Node]) -> None:
        """Begin with the input called `name`; `nodes` are those that will be given to `extend`."""
        self._readers = Counter(source for node in nodes for source in set(node.sources))
        moving = np.flatnonzero((box.lower < box.upper).ravel())
        center = np.where(box.lower < box.upper, box.lower / 2 + box.upper / 2, box.lower)
        radius = up(np.maximum(box.upper - center, center - box.lower)).ravel()[moving]
        self.columns = 1 + moving.size
        middle = np.zeros((self.columns, *box.shape))
        middle[0] = center
        middle.reshape(self.columns, -1)[1 + np.arange(moving.size), moving] = radius
        self.found = {name: Enclosure(middle, np.zeros_like(middle))}

    def extend(self, node: Node, found: Range, ranges: Mapping[str, Range], lines: Sequence[Lines]) -> Range:
        """The range of one more node from its sources' enclosures, never looser than `found`, a sound range of it.

        Args:
            node: its sources were given before.
            found: the range of the node as known.
            ranges: the ranges of its sources.
            lines: lines around the node in each of its sources; empty for one that has none.
        """
        if isinstance(node, Affine):
            made = self._affine(node)
        elif lines:
            made = self._between(node, lines)
        elif isinstance(node, MaxPool):
            made = self._pool(node, *ranges[node.source])
        else:
            made = _constant(*found, self.columns)
        self.found[node.name] = made
        for source in set(node.sources):
            self._readers[source] -= 1
            if not self._readers[source]:
                del self.found[source]
        least, most = made.range()
        return np.maximum(found[0], least), np.minimum(found[1], most)

    def _affine(self, node: Affine) -> Enclosure:
        count = fan_in(node) + 8
        g = gamma(count)
        middle, gap = np.zeros((self.columns, *node.shape)), np.zeros((self.columns, *node.shape))
        middle[0] = node.bias
        error, live = g * np.abs(node.bias), node.bias != 0
        for term in node.terms:
            of = self.found[term.source]
            size = of.size
            middle += term.operator.apply(of.middle)
            weighed = np.stack([g * size, np.where(size > 0, LARGE, 0.0)])
            spread = term.operator.spread(np.concatenate([of.gap, weighed]))
            gap += spread[:-2]
            error, live = error + spread[-2], live | (spread[-1] > 0)
        lost = (1 + 2 * g) * error + 4 * count * self.columns * UNDERFLOW
        gap[0] = np.where(live, up(gap[0] + lost), gap[0])
        return Enclosure(middle, gap)

    def _between(self, node: Node, lines: Sequence[Lines]) -> Enclosure:
        """Through lines around a function of one or two sources."""
        shape = (self.columns, *node.shape)
        middle, gap, error = np.zeros(shape), np.zeros(shape), np.zeros(node.shape)
        for source, line in zip(node.sources, lines, strict=True):
            of, low, high = self.found[source], line.lower_slope, line.upper_slope
            same = (low == high) & np.isin(np.abs(low), (0.0, 1.0))
            same &= (line.lower_intercept == 0) & (line.upper_intercept == 0)
            middle += (low + high) / 2 * of.middle + (np.abs(high) - np.abs(low)) / 2 * of.gap
            gap += (high - low) / 2 * of.middle + (np.abs(high) + np.abs(low)) / 2 * of.gap
            middle[0] += (line.lower_intercept + line.upper_intercept) / 2
            gap[0] += (line.upper_intercept - line.lower_intercept) / 2
            size = np.maximum(np.abs(low), np.abs(high)) * of.size
            size += np.abs(line.lower_intercept) + np.abs(line.upper_intercept)
            size += np.where((of.size > 0) & ~same, 32 * self.columns * UNDERFLOW / gamma(32), 0.0)
            error += np.where(same & (len(lines) == 1), 0.0, gamma(32) * size)
        gap[0] = np.where(error > 0, up(gap[0] + error), gap[0])
        return Enclosure(middle, gap)

    def _pool(self, node: MaxPool, lower: Array, upper: Array) -> Enclosure:
        """At least the element with the largest lower bound, which wins always where its bound tops all others."""
        of, (pick, sure, highest) = self.found[node.source], winners(node, lower, upper)
        middle, gap = (_taken(part, pick) for part in (of.middle, of.gap))
        low = middle - gap
        size = np.abs(middle).sum(axis=0) + np.abs(gap).sum(axis=0) + np.abs(highest)
        half, rest = low / 2, -low / 2
        half[0] = low[0] / 2 + highest / 2
        rest[0] = up(highest / 2 - low[0] / 2 + gamma(8) * size + 8 * self.columns * UNDERFLOW)
        made = Enclosure(np.where(sure, middle, half), np.where(sure, gap, rest))
        made.gap[0] = np.where(pick < 0, np.nan, made.gap[0])
        return made


def _constant(lower: Array, upper: Array, columns: int) -> Enclosure:
    """A value of which only the range is known."""
    middle, gap = np.zeros((columns, *lower.shape)), np.zeros((columns, *lower.shape))
    center = lower / 2 + upper / 2
    middle[0] = np.where(lower < upper, center, lower)
    gap[0] = np.where(lower < upper, up(np.maximum(upper - center, center - lower)), 0.0)
    return Enclosure(middle, gap)


def _taken(values: Array, index: NDArray[np.int64]) -> Array:
    flat = np.concatenate([values.reshape(len(values), -1), np.zeros((len(values), 1))], axis=1)
    return np.asarray(flat[:, index])
