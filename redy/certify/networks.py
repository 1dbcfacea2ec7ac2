r"""One network condensed over a box, and a second one joined to it.

A relu with z >= 0 or z <= 0 on the whole box is z or 0; each other one becomes a variable. In the second network

    relu(z') = relu(z) + v,    v = relu(z + d) - relu(z),    d = z' - z,

for a partner z of the first network, named by the certificate: any partner is right, a near one keeps d and v small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import backward
from .affine import Affine, Tensor
from .backward import PAIRS
from .errors import Rejected
from .lines import Lines
from .rounding import GROW, TINY, UNIT
from .space import Array, Ints, Partner, Rows, Space

ACTIVE, INACTIVE = 1, 2


class Hints(Protocol):
    """What a certificate says on the way; nothing of it is believed."""

    def phases(self, rows: Rows, lower: Array, upper: Array) -> NDArray[np.uint8]:
        """Per unit 0, ACTIVE or INACTIVE: what the first network's relu is claimed to be on the whole box."""

    def prove(self, space: Space, rows: Rows) -> bool:
        """Whether these rows are >= 0 on the whole box."""

    def partners(self, rows: Rows) -> Ints:
        """Per unit of the second network the number of a unit of the first one, or -1."""


@dataclass(frozen=True)
class Layer:
    """A relu of the first network: its rows z, their bounds, the columns of its variables (-1: none)."""

    z: Rows
    lower: Array
    upper: Array
    columns: Ints


class Walker:
    """Gives relu(z) to the walk through one network and then to that through another."""

    def __init__(self, space: Space, hints: Hints, share: float, fits: int) -> None:
        self.space, self.hints, self.share, self.fits = space, hints, share, fits
        self.affine, self.layers = Affine(space), list[Layer]()
        self.lines: list[Lines] = []

    def bounds(self, rows: Rows) -> tuple[Array, Array]:
        """Bounds of rows on the whole box; those that leave a sign open are fitted."""
        space, count, box = self.space, len(rows.e), (self.space.low[None], self.space.high[None])
        pair = backward.both(rows)
        found = backward.lower(space, pair, space.slack(pair), self.lines, *box)[0][0]
        open_ = (
            np.flatnonzero((found < 0) & (np.roll(found, count) < 0)) if self.fits and self.lines else np.zeros(0, int)
        )
        step = max(1, PAIRS // max(1, space.count))
        for begin in range(0, len(open_), step):
            part = open_[begin : begin + step]
            boxes = [np.broadcast_to(end, (len(part), space.n)) for end in box]
            lines = [line.at(np.zeros(len(part), int)) for line in self.lines]
            found[part] = backward.fit(space, pair[part], lines, (boxes[0], boxes[1]), found[part], self.fits)
        space.bounded(np.abs(found))
        return found[:count], -found[count:]

    def variables(self, rows: Rows, lower: Array, upper: Array, partner: Partner | None = None) -> Ints:
        """A new block with its lines on the whole box."""
        columns = self.space.add(rows, lower, upper, partner)
        if len(columns):
            block = self.space.blocks[-1]
            before = [np.concatenate([getattr(b, end) for b in self.space.blocks])[None] for end in ("lower", "upper")]
            self.lines.append(backward.block_lines(block, lower[None], upper[None], (before[0], before[1])))
        return columns

    def result(self, z: Rows, own: NDArray[np.bool_], columns: Ints, shape: tuple[int, ...]) -> Tensor:
        """The tensor that is z where `own`, the variable where there is one, and 0 elsewhere."""
        T = np.where(own[:, None], z.padded(len(self.space.reach)), 0.0)
        at = np.flatnonzero(columns >= 0)
        T[at, self.space.n + 1 + columns[at]] = 1.0
        return Tensor(np.ascontiguousarray(T.T).reshape(-1, *shape), np.where(own, z.e, 0.0).reshape(shape))

    def first(self, tensor: Tensor) -> Tensor:
        """relu in the first network. Claimed phases are proved before they count."""
        z = tensor.rows()
        lower, upper = self.bounds(z)
        phases = self.hints.phases(z, lower, upper)
        active, inactive = (phases == ACTIVE) & ~(lower >= 0), (phases == INACTIVE) & ~(upper <= 0)
        claimed = np.flatnonzero(active | inactive)
        if len(claimed):
            sign = np.where(active, 1.0, -1.0)[claimed]
            if not self.hints.prove(self.space, Rows(z.T[claimed] * sign[:, None], z.e[claimed])):
                raise Rejected(f"relu {len(self.layers)} of the original: a claimed phase is not proved")
        lower, upper = np.where(active, 0.0, lower), np.where(inactive, 0.0, upper)
        open_ = np.flatnonzero(~((lower >= 0) | (upper <= 0)))
        columns = np.full(len(lower), -1)
        columns[open_] = self.variables(z[open_], lower[open_], upper[open_])
        self.layers.append(Layer(z, lower, upper, columns))
        return self.result(z, lower >= 0, columns, tensor.shape)

    def second(self, tensor: Tensor) -> Tensor:
        """relu in the second network.

        A unit whose wrong side is a small share of its range is z' or 0 with an error: |relu(z') - z'| <= -l and
        |relu(z') - 0| <= u. So is one with a partner that it moves little away from: |v| <= |d|.
        """
        z = tensor.rows()
        chosen = self.hints.partners(z)
        partner, after = self._partners(chosen)
        d = self._apart(z, partner.rows)
        (low, high), (lower, upper) = self.bounds(d), self.bounds(z)
        paired = chosen >= 0
        shifted = partner.lower + low, partner.upper + high
        lower = np.where(paired, np.fmax(lower, shifted[0] - np.abs(shifted[0]) * (4 * UNIT)), lower)
        upper = np.where(paired, np.fmin(upper, shifted[1] + np.abs(shifted[1]) * (4 * UNIT)), upper)
        reach = self.share * np.maximum(np.abs(lower), np.abs(upper))
        motion = np.maximum(np.maximum(-low, high), 0.0)
        own = (lower >= 0) | ((upper > 0) & (-lower <= reach))
        zero = ~own & (upper <= reach)
        small = ~own & ~zero & paired & (motion <= reach)
        error = np.where(own, np.maximum(-lower, 0), np.where(zero, np.maximum(upper, 0), np.where(small, motion, 0.0)))
        moving, alone = (np.flatnonzero(~own & ~zero & ~small & with_) for with_ in (paired, ~paired))
        columns = np.full(len(lower), -1)
        columns[alone] = self.variables(z[alone], lower[alone], upper[alone])
        known = Partner(partner.rows[moving], partner.column[moving], partner.lower[moving], partner.upper[moving])
        columns[moving] = self.variables(d[moving], low[moving], high[moving], known)
        result = self.result(z, own, columns, (len(lower),)).rows()
        kept = (small | (columns >= 0)) & paired & ~own
        T = result.T + np.where(kept[:, None], after.padded(result.T.shape[1]), 0.0)
        e = result.e + np.where(kept, after.e, 0.0) + error + 4 * UNIT * self.space.magnitude(Rows(T, error))
        return Tensor(np.ascontiguousarray(T.T).reshape(-1, *tensor.shape), (e * GROW + TINY).reshape(tensor.shape))

    def _apart(self, z: Rows, partner: Rows) -> Rows:
        """z' - z: one rounding per coefficient."""
        width = max(z.T.shape[1], partner.T.shape[1])
        T = z.padded(width) - partner.padded(width)
        e = z.e + partner.e + 2 * UNIT * self.space.magnitude(Rows(T, z.e))
        return Rows(T, e * GROW + TINY)

    def _partners(self, chosen: Ints) -> tuple[Partner, Rows]:
        """z of the chosen units, and the rows of relu(z); zeros where none is chosen."""
        sizes = np.cumsum([0, *(len(layer.lower) for layer in self.layers)])
        if len(chosen) and not (chosen.min() >= -1 and chosen.max() < sizes[-1]):
            raise Rejected("a partner is no unit of the original")
        m, width = len(chosen), len(self.space.reach)
        z, after = (Rows(np.zeros((m, width)), np.zeros(m)) for _ in range(2))
        partner = Partner(z, np.full(m, -1), np.zeros(m), np.zeros(m))
        for layer, begin, end in zip(self.layers, sizes, sizes[1:], strict=False):
            at = np.flatnonzero((chosen >= begin) & (chosen < end))
            unit = chosen[at] - begin
            z.T[at, : layer.z.T.shape[1]], z.e[at] = layer.z.T[unit], layer.z.e[unit]
            for to, of in ((partner.lower, layer.lower), (partner.upper, layer.upper), (partner.column, layer.columns)):
                to[at] = of[unit]
            active = at[layer.lower[unit] >= 0]
            after.T[active], after.e[active] = z.T[active], z.e[active]
            variable = at[layer.columns[unit] >= 0]
            after.T[variable, self.space.n + 1 + partner.column[variable]] = 1.0
        return partner, after
