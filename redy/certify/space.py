r"""Variables of two networks on a box, and rows that are affine in them.

A row is a real function of the input x on the box,

    r(x) = T_x x + T_1 + T_v v(x) + eps(x),    |eps(x)| <= e    for every x of the box,

with columns in the order x (n of them), 1, v. The variables come in blocks; the rows of a block use the variables of
earlier blocks only:

    plain block        v = relu(z)                  z a row
    difference block   v = relu(z + d) - relu(z)    d a row, z the row of a partner

`reach` bounds the absolute value of every column, so |T| reach bounds a row's terms; e holds what rounding has lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .errors import Rejected
from .rounding import GROW, LARGEST, TINY, gamma

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Rows T (r, columns known so far) with errors e (r,)."""

    T: Array
    e: Array

    def __getitem__(self, chosen: Ints | Flags | slice) -> Rows:
        return Rows(self.T[chosen], self.e[chosen])

    def padded(self, columns: int) -> Array:
        """T with columns of zeros up to `columns`."""
        if self.T.shape[1] == columns:
            return self.T
        return np.concatenate([self.T, np.zeros((len(self.T), columns - self.T.shape[1]))], axis=1)

    def pair(self) -> Rows:
        """Every row and, below, its negative."""
        return Rows(np.concatenate([self.T, -self.T]), np.concatenate([self.e, self.e]))


def stacked(parts: list[Rows]) -> Rows:
    """Rows one below the other."""
    width = max(part.T.shape[1] for part in parts)
    return Rows(np.concatenate([part.padded(width) for part in parts]), np.concatenate([part.e for part in parts]))


@dataclass(frozen=True)
class Units:
    """Relus: rows z, rows relu(z), bounds of z on the box, the numbers of the variables relu(z) (-1: none)."""

    z: Rows
    after: Rows
    lower: Array
    upper: Array
    column: Ints

    def __getitem__(self, chosen: Ints) -> Units:
        return Units(self.z[chosen], self.after[chosen], self.lower[chosen], self.upper[chosen], self.column[chosen])


@dataclass(frozen=True)
class Block:
    """Variables first .. first + m - 1, their rows (z, or d with partners) and bounds of these rows on the box."""

    first: int
    rows: Rows
    lower: Array
    upper: Array
    partner: Units | None = None

    @property
    def stop(self) -> int:
        """The number of variables up to and with this block."""
        return self.first + len(self.lower)

    @cached_property
    def stacked(self) -> Rows:
        """The rows, and below them the partners' rows."""
        return self.rows if self.partner is None else stacked([self.rows, self.partner.z])


class Space:
    """A box with the variables met so far.

    Attributes:
        low, high: (n,) the box.
        caution: every allowance for rounding is multiplied by this number. The checker takes 1. Whoever makes a
            certificate takes more, so that it is accepted in another order of summation, too.
    """

    def __init__(self, low: Array, high: Array, caution: float = 1.0) -> None:
        self.low, self.high, self.caution, self.n = low, high, caution, len(low)
        self.blocks, self._slacks = list[Block](), dict[tuple[int, int], Array]()
        self.reach = np.append(np.maximum(np.abs(low), np.abs(high)), 1.0)
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

    def block_slack(self, block: Block) -> Array:
        """(m,) the slacks of a block's rows, added to those of the partners' rows."""
        key = block.first, self.count
        if key not in self._slacks:
            self._slacks[key] = self.slack(block.stacked).reshape(-1, len(block.lower)).sum(axis=0)
        return self._slacks[key]

    def combined(self, matrix: Array, rows: Rows, constants: Array) -> Rows:
        """matrix @ rows + constants: a product passes at most 2 more roundings than the matrix has columns."""
        T = matrix @ rows.T
        T[:, self.n] += constants
        weight, terms = np.abs(matrix), self.magnitude(rows)
        e = weight @ rows.e + self.gamma(matrix.shape[1] + 3) * (weight @ terms + np.abs(constants))
        return Rows(T, e * GROW + TINY)

    def minus(self, first: Rows, second: Rows) -> Rows:
        """first - second: one rounding per coefficient."""
        width = len(self.reach)
        rows = Rows(first.padded(width) - second.padded(width), first.e + second.e)
        return Rows(rows.T, (rows.e + self.gamma(2) * self.magnitude(rows)) * GROW + TINY)

    def add(self, rows: Rows, lower: Array, upper: Array, partner: Units | None = None) -> Ints:
        """A new block; the numbers of its variables. |relu(z)| <= max(u, 0) and |relu(z + d) - relu(z)| <= |d|."""
        size = np.maximum(upper, 0.0) if partner is None else np.maximum(np.abs(lower), np.abs(upper))
        self.bounded(np.abs(lower) + np.abs(upper) + self.magnitude(rows) + rows.e)
        block = Block(self.count, Rows(rows.padded(len(self.reach)), rows.e), lower, upper, partner)
        if len(lower):
            self.blocks.append(block)
            self.reach = np.concatenate([self.reach, size])
        return np.arange(block.first, block.stop)
