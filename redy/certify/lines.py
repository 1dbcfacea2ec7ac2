r"""Lines below and above relu(z) and relu(z + d) - relu(z) over intervals, widened to hold for the floats used.

Arrays are (boxes, m). The lines of a variable v in z (plain) or in d and the partner's z (difference) are

    below_d d + below_z z + under <= v <= above_d d + above_z z + over,    under <= 0 <= over,

with slopes of absolute value at most 1; a plain block has no z, its own row takes the place of d, and under = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .rounding import TINY, UNIT
from .space import Array, Block


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
    unstable = ~((lower >= 0) | (upper <= 0))  # what is not a number counts, and stays one
    slope = np.minimum(upper / np.where(unstable, upper - lower, 1.0), 1.0)
    high = np.maximum(-slope * lower, upper * (1.0 - slope)) * (1.0 + 8.0 * UNIT) + TINY
    return np.where(unstable, slope, (lower >= 0) * 1.0), np.where(unstable, high, 0.0)


def plain(lower: Array, upper: Array) -> Lines:
    """relu(z) >= s z for every s of [0, 1]: s = 1 where more of the interval is positive, exact where z is stable."""
    above, over = chord(lower, upper)
    below = np.where(lower >= 0, 1.0, ((upper > 0) & (upper > -lower)) * 1.0)
    return Lines(below, above, np.zeros_like(over), over)


def gap(lower: Array, upper: Array) -> Array:
    """Roughly how far the lines of relu are apart; it only chooses between sound lines."""
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    return np.where(unstable, np.maximum(-lower * upper / width, np.minimum(upper, -lower)), 0.0)


def summed(lower: Array, upper: Array, d_lower: Array, d_upper: Array) -> tuple[Array, Array]:
    """Bounds of z + d, rounded outward."""
    low, high = lower + d_lower, upper + d_upper
    return low - np.abs(low) * (4 * UNIT), high + np.abs(high) * (4 * UNIT)


def difference(lower: Array, upper: Array, z_lower: Array, z_upper: Array) -> Lines:
    """Lines of v = relu(s) - relu(z), s = z + d, from d in [lower, upper] and z in [z_lower, z_upper].

    Either from lines of relu(s) and of relu(z), or from d alone: v grows with d, at most as fast, so
    min(d, 0) <= v <= max(d, 0). Moreover v >= d if z >= 0, v >= 0 if z <= 0, v <= d if s >= 0 and v <= 0 if s <= 0.
    """
    ends = summed(z_lower, z_upper, lower, upper)
    z, s = plain(z_lower, z_upper), plain(*ends)
    z_known, s_known = (z_lower >= 0) | (z_upper <= 0), (ends[0] >= 0) | (ends[1] <= 0)
    apart = (z_known & s_known) | (gap(z_lower, z_upper) + gap(*ends) <= np.maximum(-lower, upper))
    above, over = chord(lower, upper)
    below, under = chord(-upper, -lower)  # min(d, 0) = -relu(-d) >= below d - under
    below, under = np.where(z_known, (z_lower >= 0) * 1.0, below), np.where(z_known, 0.0, under)
    above, over = np.where(s_known, (ends[0] >= 0) * 1.0, above), np.where(s_known, 0.0, over)
    joint = (s.below, s.above, -z.over, s.over, s.below - z.above, s.above - z.below)
    alone = (below, above, -under, over, np.zeros_like(over), np.zeros_like(over))
    return Lines(*(np.where(apart, of_both, of_d) for of_both, of_d in zip(joint, alone, strict=True)))


def block_lines(block: Block, lower: Array, upper: Array, before: tuple[Array, Array]) -> Lines:
    """Lines of a block from bounds (B, m) of its rows and bounds (B, first) of the rows of all variables before it."""
    partner = block.partner
    if partner is None:
        return plain(lower, upper)
    ends = [np.broadcast_to(end, lower.shape).copy() for end in (partner.lower, partner.upper)]
    known = partner.column >= 0
    for end, bound in zip(ends, before, strict=True):
        end[:, known] = bound[:, partner.column[known]]
    return difference(lower, upper, *ends)
