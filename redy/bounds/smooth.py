"""Lines around smooth functions, from one number for each: how fast its derivative changes.

If the derivative of g is Lipschitz with constant M on a cell of length h, g leaves the chord of the cell by at most
M h^2 / 8. With g = f - a x, whose constant is that of f, the values at the ends of the cells of [l, u] give, for ANY
slope a,

    a x + min_k (f(k) - a k) - M h^2 / 8  <=  f(x)  <=  a x + max_k (f(k) - a k) + M h^2 / 8      on [l, u].

A slope may therefore be guessed; only the intercepts carry the proof. Points at which the derivative jumps are ends of
cells. The slopes tried are those of chords between ends of cells, 0 among them where the function is flat.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from redy.bounds.elementwise import SLACK
from redy.bounds.relaxation import Lines
from redy.bounds.result import Range
from redy.bounds.rounding import UNDERFLOW, gamma
from redy.model import Array, Elementwise

CELLS: Final = 64
"""Cells of an interval."""

CURVATURE: Final = {
    "Asinh": 0.3850,  # 2 / (3 sqrt 3)
    "Atan": 0.6496,  # 3 sqrt 3 / 8
    "Cos": 1.0,
    "Elu": 1.0,
    "Erf": 0.9680,  # 2 sqrt (2 / (e pi))
    "Gelu": 0.7979,  # 2 / sqrt (2 pi)
    "HardSwish": 0.3334,
    "Sigmoid": 0.0963,  # 1 / (6 sqrt 3)
    "Silu": 0.5,
    "Sin": 1.0,
    "Softplus": 0.25,
    "Softsign": 2.0,
    "Swish": 0.5,
    "Tanh": 0.7699,  # 4 / (3 sqrt 3)
}
"""ONNX operator with its default attributes -> the largest |f''|, rounded up; Exp has its own at its largest value."""

KINKS: Final = {"HardSwish": (-3.0, 3.0)}
"""Where the derivative jumps."""

_DEFAULTS: Final = {"alpha": 1.0, "gamma": 1.0, "approximate": "none"}


def curved(node: Elementwise) -> bool:
    """Whether there are lines around the node's function."""
    usual = all(node.attributes.get(name, value) in (value, 0) for name, value in _DEFAULTS.items())
    usual &= node.attributes.get("alpha", 1.0) == 1.0
    return usual and (node.operator in CURVATURE or node.operator == "Exp")


def smooth_intercepts(node: Elementwise, lower: Array, upper: Array, slopes: Array) -> Range:
    """The largest intercept below f and the smallest above it on [lower, upper] for slopes (n, *shape), of that shape.

    Both are rounded outwards; they are NaN where an end of the interval is infinite.
    """
    knots, step = _knots(node, lower, upper)
    values = np.asarray(node.function(knots))
    below, above = np.full(slopes.shape, np.inf), np.full(slopes.shape, -np.inf)
    for knot, value in zip(knots, values, strict=True):
        product = slopes * knot
        error = SLACK * (1 + np.abs(value)) + gamma(8) * (np.abs(value) + np.abs(product)) + UNDERFLOW
        below, above = np.minimum(below, value - product - error), np.maximum(above, value - product + error)
    # The ends of cells are rounded, so a cell may be longer than a share of the interval by its last bits.
    width = step * (1 + 1e-9) + 4e-16 * np.maximum(np.abs(lower), np.abs(upper))
    bend = _curvature(node, upper) * width**2 / 8 * (1 + 1e-9) + UNDERFLOW
    return below - bend, above + bend


def smooth_image(node: Elementwise, lower: Array, upper: Array) -> Range:
    """The range of f on [lower, upper]; infinite where an end of the interval is infinite."""
    below, above = (end[0] for end in smooth_intercepts(node, lower, upper, np.zeros((1, *lower.shape))))
    return np.where(np.isnan(below), -np.inf, below), np.where(np.isnan(above), np.inf, above)


def relax_smooth(node: Elementwise, lower: Array, upper: Array) -> Lines:
    """The lines of smallest area around f on [lower, upper], among the slopes tried; see `curved`.

    The intercepts are NaN where an end of the interval is infinite.
    """
    knots, _ = _knots(node, lower, upper)
    values, middle = np.asarray(node.function(knots)), lower / 2 + upper / 2
    places = np.linspace(0, len(knots) - 1, 9).astype(int)
    chords = [(0, len(knots) - 1), *((a, a + 1) for a in places[:-1]), (0, places[4]), (places[4], len(knots) - 1)]
    rises = []
    for a, b in chords:
        run = knots[b] - knots[a]
        rise = np.divide(values[b] - values[a], run, out=np.zeros_like(run), where=run > 0)
        rises.append(np.where(np.isfinite(rise), rise, 0.0))
    slopes = np.stack(rises)
    below, above = smooth_intercepts(node, lower, upper, slopes)
    best_low = np.nan_to_num(slopes * middle + below, nan=-np.inf).argmax(axis=0)[None]
    best_high = np.nan_to_num(slopes * middle + above, nan=np.inf).argmin(axis=0)[None]
    return Lines(
        *(
            np.take_along_axis(array, place, axis=0)[0]
            for array, place in ((slopes, best_low), (below, best_low), (slopes, best_high), (above, best_high))
        )
    )


def _knots(node: Elementwise, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Ends of cells (knots, *shape), ascending, and the length of the cells."""
    share = np.linspace(0.0, 1.0, CELLS + 1).reshape(-1, *(1,) * lower.ndim)
    knots = np.clip(lower + (upper - lower) * share, lower, upper)
    knots[-1] = upper
    kinks = [np.clip(np.full(lower.shape, kink), lower, upper)[None] for kink in KINKS.get(node.operator, ())]
    return np.sort(np.concatenate([knots, *kinks]), axis=0), (upper - lower) / CELLS


def _curvature(node: Elementwise, upper: Array) -> Array:
    if node.operator == "Exp":
        return np.asarray(np.exp(upper) * (1 + 1e-12))
    return np.full(upper.shape, CURVATURE[node.operator])
