"""The best line for a piecewise-linear function on an interval, and the functions of single units.

The line of smallest maximum error encloses the function's knots in a strip of smallest height, and one side of such a
strip holds two knots, so its slope is that of a chord between two knots (Lahav and Katz, FMCAD 2021, section IV, give
it for the ReLU: slope ub / (ub - lb), intercept and error -lb ub / (2 (ub - lb))).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from redy.bounds.relaxation import intercepts
from redy.model import Activate, Line, PiecewiseLinear

SPARE = 1.1
"""A line with the slope of a piece may have this much more error than the best one."""


def unit_function(node: Activate, index: int) -> PiecewiseLinear:
    """The function of one element of an activation, as one function for all."""
    function = node.function.broadcast_to(node.shape)
    return PiecewiseLinear(
        function.breakpoints.reshape(function.pieces - 1, -1)[:, index],
        function.slopes.reshape(function.pieces, -1)[:, index],
        function.value.reshape(-1)[index],
    )


def exact_intercept(function: PiecewiseLinear, piece: int) -> Fraction:
    """The intercept of a piece in rational arithmetic, for one function (shape ())."""
    breaks, slopes = ([Fraction(float(v)) for v in values] for values in (function.breakpoints, function.slopes))
    exact = Fraction(float(function.value)) - slopes[0] * breaks[0]
    return exact + sum((slopes[k] - slopes[k + 1]) * breaks[k] for k in range(piece))


def minimax_line(function: PiecewiseLinear, lower: float, upper: float) -> Line:
    """The line of smallest maximum error on [lower, upper], up to rounding, for one function (shape ())."""
    if not upper > lower:
        return Line(0.0, float(function(np.array([lower]))[0]))
    knots = np.unique(np.clip(np.concatenate([[lower], function.breakpoints, [upper]]), lower, upper))
    values = function(knots)
    best, height = Line(0.0, float(values[0])), np.inf
    for i in range(len(knots)):
        for j in range(i + 1, len(knots)):
            slope = (values[j] - values[i]) / (knots[j] - knots[i])
            rest = values - slope * knots
            if rest.max() - rest.min() < height:
                height = rest.max() - rest.min()
                best = Line(float(slope), float(rest.max() / 2 + rest.min() / 2))
    return best


def spare_line(function: PiecewiseLinear, lower: float, upper: float) -> Line:
    """The minimax line, or a line with the slope of one of the pieces where that is nearly as good.

    A unit with the slope of a piece costs less when it is folded: slope 0 leaves a constant, slope 1 of a ReLU the
    weights of its layer as they are.
    """
    best = minimax_line(function, lower, upper)
    if not upper > lower:
        return best
    knots = np.unique(np.clip(np.concatenate([[lower], function.breakpoints, [upper]]), lower, upper))
    values = function(knots)
    height = np.ptp(values - best.slope * knots)
    for slope in function.slopes:
        rest = values - slope * knots
        if np.ptp(rest) <= SPARE * height:
            return Line(float(slope), float(rest.max() / 2 + rest.min() / 2))
    return best


def line_error(function: PiecewiseLinear, lower: float, upper: float, line: Line) -> float:
    """A sound bound of |f(x) - line(x)| on [lower, upper]."""
    below, above = intercepts(function, np.array(lower), np.array(upper), np.array(line.slope))
    worst = max(float(above) - line.intercept, line.intercept - float(below), 0.0)
    return math.nextafter(worst, math.inf) if worst else 0.0
