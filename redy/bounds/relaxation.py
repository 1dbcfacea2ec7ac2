"""Lines that enclose a piecewise-linear function on an interval, derived from its breakpoints and slopes alone.

On [l, u] such a function f is linear between its knots: l, u and the breakpoints in between. For ANY slope a the
difference f(x) - a x is linear between knots as well, so its extremes lie at knots and

    a x + min_k (f(k) - a k)  <=  f(x)  <=  a x + max_k (f(k) - a k)        for all x in [l, u].

A slope may therefore be rounded, guessed or optimised: only the intercepts carry the proof, and they are computed
here with their rounding error added. The slopes worth trying are those of the chords between any two knots, which
include every facet of the convex hull of the graph; the best line is the one that encloses the smallest area, and as
the area under a line on [l, u] is u - l times its value in the middle, the best one is lowest (highest) in the
middle. For the ReLU this gives the chord u (x - l) / (u - l) above and, below, slope 1 where u > -l and 0 otherwise
(Zhang et al., "Efficient Neural Network Robustness Certification with General Activation Functions", NeurIPS 2018,
CROWN-Ada).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.bounds.result import Range
from redy.bounds.rounding import UNDERFLOW, down, gamma, up
from redy.model import Array, MaxPool, PiecewiseLinear


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """lower_slope x + lower_intercept <= f(x) <= upper_slope x + upper_intercept, unit by unit (the node's shape)."""

    lower_slope: Array
    lower_intercept: Array
    upper_slope: Array
    upper_intercept: Array


def intercepts(function: PiecewiseLinear, lower: Array, upper: Array, slope: Array) -> Range:
    """The largest intercept below f and the smallest above it for lines of the given slope on [lower, upper].

    `lower` and `upper` have the unit shape; `slope` may carry leading axes (its own slopes per row of a batch), and the
    results then carry them too. Both are rounded outwards; they are NaN where an end of the interval is infinite.
    """
    below, above = np.full(slope.shape, np.inf), np.full(slope.shape, -np.inf)
    for knot, value, size in zip(*_knots(function, lower, upper), strict=True):
        product = slope * knot
        error = gamma(3 * function.pieces + 12) * (size + np.abs(product))
        error += np.where((size > 0) | ((slope != 0) & (knot != 0)), 4 * function.pieces * UNDERFLOW, 0.0)
        below = np.minimum(below, value - product - error)
        above = np.maximum(above, value - product + error)
    return below, above


def image(function: PiecewiseLinear, lower: Array, upper: Array) -> Range:
    """The range of f on [lower, upper], rounded outwards (infinite where an end of the interval is infinite)."""
    below, above = intercepts(function, lower, upper, np.zeros(lower.shape))
    return np.where(np.isnan(below), -np.inf, below), np.where(np.isnan(above), np.inf, above)


def relax(function: PiecewiseLinear, lower: Array, upper: Array) -> Lines:
    """The lines of smallest area around f on [lower, upper] (arrays of the unit shape); f itself where it is one piece.

    The intercepts are NaN where an end of the interval is infinite and f is not stuck in one piece.
    """
    middle = lower / 2 + upper / 2
    best_low, best_high = np.full(lower.shape, -np.inf), np.full(lower.shape, np.inf)
    lines = [np.full(lower.shape, start) for start in (0.0, np.nan, 0.0, np.nan)]
    for slope in _slopes(function, lower, upper):
        below, above = intercepts(function, lower, upper, slope)
        low, high = slope * middle + below, slope * middle + above
        better_low, better_high = low > best_low, high < best_high
        for kept, new, where in zip(
            lines, (slope, below, slope, above), (better_low, better_low, better_high, better_high), strict=True
        ):
            kept[where] = new[where]
        best_low, best_high = np.fmax(best_low, low), np.fmin(best_high, high)
    _keep_stuck(function, lower, upper, lines)
    return Lines(*lines)


def relax_product(left: Range, right: Range) -> tuple[Lines, Lines]:
    """Planes around a product x y, one line per factor (the intercept stands with the first): McCormick's envelope.

    (x - l)(y - m) >= 0 for the lower ends l, m, and likewise for the other three corners, give two planes below and
    two above; of each pair the one that is tighter in the middle is taken (McCormick, Mathematical Programming 10,
    1976, pp. 147-175).
    """
    (a, b), (c, d) = left, right
    x, y = a / 2 + b / 2, c / 2 + d / 2
    low = np.where(c * x + a * y - a * c >= d * x + b * y - b * d, 0, 1)
    high = np.where(d * x + a * y - a * d <= c * x + b * y - b * c, 0, 1)
    lower_left, lower_right = np.where(low == 0, c, d), np.where(low == 0, a, b)
    upper_left, upper_right = np.where(high == 0, d, c), np.where(high == 0, a, b)
    nothing = np.zeros(a.shape)
    lower, upper = -lower_left * lower_right, -upper_left * upper_right
    lower = np.where((lower_left == 0) | (lower_right == 0), 0.0, down(lower))
    upper = np.where((upper_left == 0) | (upper_right == 0), 0.0, up(upper))
    return Lines(lower_left, lower, upper_left, upper), Lines(lower_right, nothing, upper_right, nothing)


def winners(node: MaxPool, lower: Array, upper: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_], Array]:
    """Of each window: the element with the largest lower bound, whether it always wins, and the largest upper bound."""
    lows, highs = (np.append(end.ravel(), -np.inf)[node.index] for end in (lower, upper))
    place = lows.argmax(axis=-1)[..., None]
    others = highs.copy()
    np.put_along_axis(others, place, -np.inf, axis=-1)
    sure = np.take_along_axis(lows, place, axis=-1)[..., 0] >= others.max(axis=-1)
    return np.take_along_axis(node.index, place, axis=-1)[..., 0], sure, highs.max(axis=-1)


def piece_intercepts(function: PiecewiseLinear) -> Range:
    """Bounds on the intercept of every piece, (pieces, *function shape): equal where nothing is rounded (ReLU)."""
    terms = np.abs(
        np.concatenate(
            [
                (function.slopes[0] * function.breakpoints[0])[None],
                np.diff(function.slopes, axis=0) * function.breakpoints,
            ]
        )
    )
    size = np.abs(function.value) + 2 * np.cumsum(terms, axis=0)
    live = (function.value != 0) | ((function.slopes != 0).any(axis=0) & (function.breakpoints != 0).any(axis=0))
    error = gamma(4 * function.pieces + 8) * size + np.where(live, 4 * function.pieces * UNDERFLOW, 0.0)
    exact = function.intercepts()
    return exact - error, exact + error


def _knots(function: PiecewiseLinear, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """Knots of f on [lower, upper], f at them, and the sum of the absolute terms of f there, each (knots, *shape).

    A breakpoint outside the interval becomes its nearest end. Differences of two floats have a relative error of u,
    so the terms of f, slope times length of the part of each piece to the left of x, have one of gamma_3.
    """
    function = function.broadcast_to(lower.shape)
    breaks, slopes = function.breakpoints, function.slopes
    knots = np.concatenate([lower[None], np.clip(breaks, lower, upper), upper[None]])
    first, of_first = _term(slopes[0], np.minimum(knots, breaks[0]) - breaks[0])
    values, size = function.value + first, np.abs(function.value) + of_first
    for piece in range(1, function.pieces):
        end = np.minimum(knots, breaks[piece]) if piece < function.pieces - 1 else knots
        term, of_term = _term(slopes[piece], np.maximum(end - breaks[piece - 1], 0.0))
        values, size = values + term, size + of_term
    return knots, values, size


def _term(slope: Array, length: Array) -> Range:
    """slope * length, and a size of it that is zero only where the exact product is: it may underflow to zero."""
    term = slope * length
    return term, np.where((slope != 0) & (length != 0), np.maximum(np.abs(term), UNDERFLOW), 0.0)


def _slopes(function: PiecewiseLinear, lower: Array, upper: Array) -> list[Array]:
    """The slopes worth trying: of every piece, and of the chord between any two knots (0 where they coincide)."""
    knots, values, _ = _knots(function, lower, upper)
    found = list(function.broadcast_to(lower.shape).slopes)
    for left in range(len(knots)):
        for right in range(left + 1, len(knots)):
            run = knots[right] - knots[left]
            chord = np.divide(values[right] - values[left], run, out=np.zeros_like(run), where=run > 0)
            found.append(np.where(np.isfinite(chord), chord, 0.0))
    return found


def _keep_stuck(function: PiecewiseLinear, lower: Array, upper: Array, lines: list[Array]) -> None:
    """Where f is one piece on the whole interval, both lines become that piece."""
    stuck = function.stuck(lower, upper)
    below, above = piece_intercepts(function)
    for piece in range(function.pieces):
        here = stuck == piece
        for kept, new in zip(lines, (function.slopes, below, function.slopes, above), strict=True):
            kept[here] = np.broadcast_to(new[piece], lower.shape)[here]
