r"""Lines below and above relu(z) and relu(z + d) - relu(z) over intervals, widened to hold for the floats used.

Arrays are (boxes, m). The lines of a variable v in z (plain) or in d and the partner's z (difference) are

    below_d d + below_z z + under <= v <= above_d d + above_z z + over,    under <= 0 <= over,

with slopes of absolute value at most 1; a plain block has no z, its own row takes the place of d, and under = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .rounding import TINY, UNIT
from .space import Array


class Lines(NamedTuple):
    """The six arrays; those of z are None for a plain block."""

    below: Array
    above: Array
    under: Array
    over: Array
    below_z: Array | None = None
    above_z: Array | None = None

    def at(self, boxes: object) -> Lines:
        """The lines of some of the boxes."""
        return Lines(*(None if a is None else a[boxes] for a in self))  # type: ignore[arg-type, call-overload]


def chord(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Slope s in [0, 1] and intercept t >= 0 with relu(z) <= s z + t on [lower, upper].

    relu is convex, so the line has to be right at both ends: s l + t >= 0 and s u + t >= u, for the float s, hence
    t = max(-s l, u (1 - s)). Each product passes two roundings; 1 + 8 u and TINY (underflow) make up for them.
    """
    active, inactive = lower >= 0, upper <= 0
    unstable = ~(active | inactive)
    slope = np.where(active, 1.0, 0.0)
    slope = np.where(unstable, np.minimum(upper / np.where(unstable, upper - lower, 1.0), 1.0), slope)
    high = np.maximum(-slope * lower, upper * (1.0 - slope)) * (1.0 + 8.0 * UNIT) + TINY
    return slope, np.where(unstable, high, 0.0)


def plain(lower: Array, upper: Array) -> Lines:
    """relu(z) >= s z for every s of [0, 1]: s = 1 where more of the interval is positive, exact where z is stable."""
    above, over = chord(lower, upper)
    below = np.where(lower >= 0, 1.0, np.where(upper <= 0, 0.0, (upper > -lower) * 1.0))
    return Lines(below, above, np.zeros_like(over), over)


def gap(lower: Array, upper: Array) -> Array:
    """Roughly how far the lines of relu are apart; it only chooses between sound lines."""
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    return np.where(unstable, np.maximum(-lower * upper / width, np.minimum(upper, -lower)), 0.0)


def difference(lower: Array, upper: Array, z_lower: Array, z_upper: Array) -> Lines:
    """Lines of v = relu(s) - relu(z), s = z + d, from d in [lower, upper] and z in [z_lower, z_upper].

    Either from lines of relu(s) and of relu(z), or from d alone: v grows with d, at most as fast, so
    min(d, 0) <= v <= max(d, 0). Moreover v >= d if z >= 0, v >= 0 if z <= 0, v <= d if s >= 0 and v <= 0 if s <= 0.
    """
    s_lower, s_upper = z_lower + lower, z_upper + upper
    s_lower, s_upper = s_lower - np.abs(s_lower) * (4 * UNIT), s_upper + np.abs(s_upper) * (4 * UNIT)
    z, s = plain(z_lower, z_upper), plain(s_lower, s_upper)
    stable = ((z_lower >= 0) | (z_upper <= 0)) & ((s_lower >= 0) | (s_upper <= 0))
    apart = stable | (gap(z_lower, z_upper) + gap(s_lower, s_upper) <= np.maximum(-lower, upper))
    above, over = chord(lower, upper)
    below, under = chord(-upper, -lower)  # min(d, 0) = -relu(-d) >= below d - under
    known_below, known_above = (z_lower >= 0) | (z_upper <= 0), (s_lower >= 0) | (s_upper <= 0)
    below, under = np.where(known_below, (z_lower >= 0) * 1.0, below), np.where(known_below, 0.0, under)
    above, over = np.where(known_above, (s_lower >= 0) * 1.0, above), np.where(known_above, 0.0, over)
    return Lines(
        np.where(apart, s.below, below),
        np.where(apart, s.above, above),
        np.where(apart, -z.over, -under),
        np.where(apart, s.over, over),
        np.where(apart, s.below - z.above, 0.0),
        np.where(apart, s.above - z.below, 0.0),
    )
