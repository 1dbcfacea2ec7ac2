r"""Variables of a network on a box, and rows that are affine in them.

A row is a real function of the input x on the box,

    r(x) = T_x x + T_1 + T_v v(x) + eps(x),    |eps(x)| <= e    for every x of the box,

with columns in the order x (n of them), 1, v. The variables come in blocks; the rows of a block use the variables of
earlier blocks only:

    plain block        v = relu(z)                  z a row
    difference block   v = relu(z + d) - relu(z)    d a row, z the partner's row

`reach` bounds the absolute value of every column, so |T| reach bounds a row's terms; e holds what rounding has lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import Rejected
from .rounding import GROW, LARGEST, gamma

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows T (r, columns known so far) with errors e (r,)."""

    T: Array
    e: Array

    def __getitem__(self, chosen: Ints | NDArray[np.bool_] | slice) -> Rows:
        return Rows(self.T[chosen], self.e[chosen])

    def padded(self, columns: int) -> Array:
        """T with columns of zeros up to `columns`."""
        if self.T.shape[1] == columns:
            return self.T
        wide = np.zeros((len(self.T), columns))
        wide[:, : self.T.shape[1]] = self.T
        return wide


@dataclass(frozen=True)
class Partner:
    """The z of a difference block.

    Attributes:
        rows: the rows z.
        column: (m,) the number of the variable relu(z) where there is one, else -1.
        lower, upper: (m,) bounds of z on the whole box.
    """

    rows: Rows
    column: Ints
    lower: Array
    upper: Array


@dataclass(frozen=True)
class Block:
    """Variables first .. first + m - 1, their rows (z, or d with a partner) and bounds of these rows on the box."""

    first: int
    rows: Rows
    lower: Array
    upper: Array
    partner: Partner | None = None

    @property
    def stop(self) -> int:
        """The number of variables up to and with this block."""
        return self.first + len(self.lower)

    @property
    def stacked(self) -> Rows:
        """The rows, and below them the partner's rows."""
        if self.partner is None:
            return self.rows
        below, width = self.partner.rows, self.rows.T.shape[1]
        return Rows(np.concatenate([self.rows.T, below.padded(width)]), np.concatenate([self.rows.e, below.e]))


@dataclass
class Space:
    """A box with the variables met so far.

    Attributes:
        low, high: (n,) the box.
        caution: every allowance for rounding is multiplied by this number. The checker takes 1. Whoever makes a
            certificate takes more, so that it is accepted in another order of summation, too.
    """

    low: Array
    high: Array
    caution: float = 1.0
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n = len(self.low)
        self.reach = np.append(np.maximum(np.abs(self.low), np.abs(self.high)), 1.0)
        self.bounded(self.reach)

    @property
    def count(self) -> int:
        """The number of variables."""
        return len(self.reach) - self.n - 1

    def gamma(self, operations: int) -> float:
        """gamma_n times the caution."""
        return self.caution * gamma(operations)

    def bounded(self, magnitudes: Array) -> None:
        """Raise Rejected unless all magnitudes are below the number for which `rounding.TINY` covers underflow."""
        if not np.all(magnitudes < LARGEST):
            raise Rejected("a number is infinite or larger than 2^100 on this box")

    def magnitude(self, rows: Rows) -> Array:
        """An upper bound of |T| reach per row, the sum of a row's absolute terms; roundings are covered by GROW."""
        return np.asarray(np.abs(rows.T) @ self.reach[: rows.T.shape[-1]] * GROW)

    def slack(self, rows: Rows) -> Array:
        """(r,) what a row may be off when it is bounded backward: see `backward.lower` for the count of roundings."""
        magnitude = self.magnitude(rows)
        self.bounded(magnitude + rows.e)
        return np.asarray((self.gamma(8 * self.count + self.n + 64) * magnitude + rows.e) * GROW)

    def add(self, rows: Rows, lower: Array, upper: Array, partner: Partner | None = None) -> Ints:
        """A new block; the numbers of its variables. |relu(z)| <= max(u, 0) and |relu(z + d) - relu(z)| <= |d|."""
        size = np.maximum(upper, 0.0) if partner is None else np.maximum(np.abs(lower), np.abs(upper))
        self.bounded(np.abs(lower) + np.abs(upper) + self.magnitude(rows) + rows.e)
        block = Block(self.count, Rows(rows.padded(len(self.reach)), rows.e), lower, upper, partner)
        if len(lower):
            self.blocks.append(block)
            self.reach = np.concatenate([self.reach, size])
        return np.arange(block.first, block.stop)
