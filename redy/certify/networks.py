r"""One network condensed over a box, and a second one joined to it.

A relu with z >= 0 or z <= 0 on the whole box is z or 0; each other one becomes a variable. In the second network

    relu(z') = relu(z) + v,    v = relu(z + d) - relu(z),    d = z' - z,

for a partner z of the first network, named by the certificate: any partner is right, a near one keeps d and v small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import backward
from .affine import Tensor, as_tensor
from .errors import Rejected
from .lines import Lines, block_lines, summed
from .rounding import GROW, TINY
from .space import Array, Flags, Ints, Rows, Space, Units, stacked
from .tree import Again, Cell, Question

ACTIVE, INACTIVE = 1, 2
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Range:
    """Bounds of a relu's z (m,); bounds of its d where it has partners; the variables, which of them have rows d."""

    lower: Array
    upper: Array
    low: Array
    high: Array
    column: Ints
    moving: Flags

    def inside(self, lower: Array, upper: Array) -> Range:
        """On a sub-box where the rows of all variables have these bounds."""
        ends = [end.copy() for end in (self.lower, self.upper, self.low, self.high)]
        for chosen, (low, high) in ((~self.moving, ends[:2]), (self.moving, ends[2:])):
            at = np.flatnonzero((self.column >= 0) & chosen)
            low[at] = np.maximum(low[at], lower[self.column[at]])
            high[at] = np.minimum(high[at], upper[self.column[at]])
        return Range(ends[0], ends[1], ends[2], ends[3], self.column, self.moving)


Ranges = list[Range]
"""Relu after relu."""
Ask = Callable[[Codes], tuple[Question, Again]]
"""Claimed phases -> the question that proves those that bounds leave open."""


@dataclass(frozen=True)
class Pairs:
    """Which units (m,) of a relu have partners; per pair d = z' - z and its bounds; |d| of all units (m,), or inf."""

    at: Flags
    partner: Units
    d: Rows
    low: Array
    high: Array
    motion: Array

    def ends(self) -> tuple[Array, Array]:
        """Bounds of d of all units (m,), infinite where there is no partner."""
        low, high = np.full(len(self.at), -np.inf), np.full(len(self.at), np.inf)
        low[self.at], high[self.at] = self.low, self.high
        return low, high


_NO = Rows(np.zeros((0, 1)), np.zeros(0))
NONE = Units(_NO, _NO, _NO.e, _NO.e, np.zeros(0, np.int64))
"""No units."""


class Hints(Protocol):
    """What a certificate says on the way; nothing of it is believed."""

    def phases(self, space: Space, rows: Rows, bounds: tuple[Array, Array], ask: Ask) -> Codes:
        """Per unit 0, ACTIVE or INACTIVE: what a relu of the first network is, once `ask(codes)` is proved."""

    def partners(self, space: Space, number: int, rows: Rows) -> Ints:
        """Per unit of relu `number` of the second network the number of a unit of the first one, or -1."""


class Met(Exception):
    """The relu at which a walk was to end, with its rows z."""

    def __init__(self, z: Rows) -> None:
        self.z = z


@dataclass
class Walker:
    """Gives relu(z) to the walk through one network and then, once `join` was called, through another.

    Attributes:
        space: where the variables go.
        hints: of the certificate.
        share: a unit whose wrong side is this share of its range is z or 0 with an error; so is one that moves as
            little away from its partner the partner with an error.
        fits: how often slopes are fitted here.
        inside: a sub-box, the number of a relu, what is known there -> the space, rows z of that relu and ranges.
        known: what is known of the first relus; of the first network nothing is bounded then, and no phase is claimed.
        until: the number of a relu at which the walk ends.
    """

    space: Space
    hints: Hints
    share: float
    fits: int
    inside: Callable[[Cell, int, Ranges], tuple[Space, Rows, Ranges]]
    known: Ranges = field(default_factory=list)
    until: int = -1

    def __post_init__(self) -> None:
        self.lines, self.layers, self.ranges = list[Lines](), list[Units](), Ranges()
        self.first: Units | None = None

    def join(self) -> None:
        """What is walked now is the second network."""
        self.layers.append(NONE)
        rows = [stacked([getattr(u, name) for u in self.layers]) for name in ("z", "after")]
        rest = [np.concatenate([getattr(u, name) for u in self.layers]) for name in ("lower", "upper", "column")]
        self.first = Units(rows[0], rows[1], rest[0], rest[1], rest[2])

    def bounds(self, rows: Rows, fits: int = 0) -> tuple[Array, Array]:
        """Bounds of rows on the whole box; those that leave a sign open are fitted."""
        count, box = len(rows.e), (self.space.low[None], self.space.high[None])
        if not count:
            return np.zeros(0), np.zeros(0)
        found, _ = backward.lower(self.space, rows.pair(), self.lines, *box)
        settled = (found >= 0) | (np.roll(found, count) >= 0)
        raised = backward.fitted(self.space, rows.pair(), self.lines, box, np.where(settled, 0.0, found), fits)
        found = np.where(settled, found, raised)[0]
        self.space.bounded(np.abs(found))
        return found[:count], -found[count:]

    def variables(self, rows: Rows, lower: Array, upper: Array, partner: Units | None = None) -> Ints:
        """A new block with its lines on the whole box."""
        columns = self.space.add(rows, lower, upper, partner)
        if len(columns):
            ends = [np.concatenate([getattr(b, end) for b in self.space.blocks])[None] for end in ("lower", "upper")]
            self.lines.append(block_lines(self.space.blocks[-1], lower[None], upper[None], (ends[0], ends[1])))
        return columns

    def relu(self, tensor: Tensor) -> Tensor:
        """relu(z). Claimed phases are proved before they count.

        |relu(z) - z| <= -l for a lower bound l < 0, |relu(z)| <= u, and |relu(z') - relu(z)| <= |d|.
        """
        z, number = tensor.rows(), len(self.ranges)
        if number == self.until:
            raise Met(z)
        lower, upper = self._ranges(z)
        pairs = self._pairs(number - len(self.layers) + 1, z, lower, upper)
        reach = self.share * np.maximum(np.abs(lower), np.abs(upper))
        own = (lower >= 0) | ((upper > 0) & (-lower <= reach))
        zero = ~own & (upper <= np.where(upper > 0, reach, 0.0))
        near, paired = pairs.at & ~own & ~zero, np.flatnonzero(pairs.at)
        small = near & (pairs.motion <= reach)
        columns, alone, moving = np.full(len(lower), -1), ~own & ~zero & ~pairs.at, (near & ~small)[paired]
        columns[alone] = self.variables(z[alone], lower[alone], upper[alone])
        columns[paired[moving]] = self.variables(
            pairs.d[moving], pairs.low[moving], pairs.high[moving], pairs.partner[np.flatnonzero(moving)]
        )
        self.ranges.append(Range(lower, upper, *pairs.ends(), columns, near & ~small))
        T, e = np.zeros((len(lower), len(self.space.reach))), np.zeros(len(lower))
        T[own], e[own] = z[own].padded(T.shape[1]), z.e[own] + np.maximum(-lower[own], 0)
        e[zero] = np.maximum(upper[zero], 0)
        after = pairs.partner.after[near[paired]]
        T[near], e[near] = after.padded(T.shape[1]), after.e + np.where(small, pairs.motion, 0.0)[near]
        new = np.flatnonzero(columns >= 0)
        T[new, self.space.n + 1 + columns[new]] += 1.0  # onto zeros: nothing is rounded
        result = Rows(T, e * GROW + TINY)
        if self.first is None:
            self.layers.append(Units(z, result, lower, upper, columns))
        return as_tensor(self.space, result, tensor.shape)

    def _pairs(self, number: int, z: Rows, lower: Array, upper: Array) -> Pairs:
        """The partners of a relu of the second network; they tighten its bounds. In the first network none."""
        chosen = np.full(len(lower), -1) if self.first is None else self.hints.partners(self.space, number, z)
        units = NONE if self.first is None else self.first
        if len(chosen) and not (chosen.min() >= -1 and chosen.max() < len(units.lower)):
            raise Rejected("a partner is no unit of the original")
        at, motion = chosen >= 0, np.full(len(lower), np.inf)
        partner = units[chosen[at]]
        d = self.space.minus(z[at], partner.z)
        known = self.known[len(self.ranges)] if len(self.ranges) < len(self.known) else None
        low, high = self.bounds(d) if known is None else (known.low[at], known.high[at])
        around = summed(partner.lower, partner.upper, low, high)
        lower[at], upper[at] = np.fmax(lower[at], around[0]), np.fmin(upper[at], around[1])
        motion[at] = np.maximum(np.maximum(-low, high), 0.0)
        return Pairs(at, partner, d, low, high, motion)

    def _ranges(self, z: Rows) -> tuple[Array, Array]:
        """Bounds of z on the box: what is known, better where that leaves a sign open; else also what is claimed."""
        if len(self.ranges) < len(self.known):
            known = self.known[len(self.ranges)]
            lower, upper = known.lower.copy(), known.upper.copy()
            open_ = np.flatnonzero((lower < 0) & (upper > 0) & (self.first is not None))
            low, high = self.bounds(z[open_], self.fits)
            lower[open_], upper[open_] = np.maximum(lower[open_], low), np.minimum(upper[open_], high)
            return lower, upper
        lower, upper = self.bounds(z, self.fits)
        return (lower, upper) if self.first else self._claimed(z, lower, upper)

    def _claimed(self, z: Rows, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Bounds with the phases that the certificate claims."""
        number, stable = len(self.ranges), (lower >= 0) | (upper <= 0)

        def ask(codes: Codes) -> tuple[Question, Again]:
            claimed = np.flatnonzero((codes != 0) & ~stable)
            sign = np.where(codes == ACTIVE, 1.0, -1.0)[claimed, None]

            def on(space: Space, z: Rows, known: Ranges) -> tuple[Question, Again]:
                rows = Rows(z.T[claimed] * sign, z.e[claimed])
                question = Question(space, rows, np.zeros(len(claimed), bool), np.arange(len(claimed))[:, None])

                def again(cell: Cell, lower: Array, upper: Array) -> tuple[Question, Again]:
                    return on(*self.inside(cell, number, [r.inside(lower, upper) for r in known]))

                return question, again

            return on(self.space, z, list(self.ranges))

        codes = self.hints.phases(self.space, z, (lower, upper), ask)
        lower, upper = (
            np.where((codes == ACTIVE) & ~stable, 0.0, lower),
            np.where((codes == INACTIVE) & ~stable, 0.0, upper),
        )
        return lower, upper
