"""A space folded again inside a sub-box, where more of its variables are stable."""

from __future__ import annotations

import numpy as np

from .rounding import GROW, TINY
from .space import Array, Block, Partner, Rows, Space


class Folded:
    """A space on a sub-box, with what every old column is in the new columns.

    Old column j is S_j times the new columns, up to an error E_j; W_j = |S_j| reach. A row T becomes T S, off by
    |T| E and, as each product passes at most U + n + 3 roundings, by gamma |T| W.

    Args:
        old: the space.
        low, high: the sub-box.
        lower, upper: (U,) bounds there of the rows of all variables.
    """

    def __init__(self, old: Space, low: Array, high: Array, lower: Array, upper: Array) -> None:
        self.old, self.lower, self.upper = old, lower, upper
        self.space, n = Space(low, high, old.caution), old.n
        self.S = np.zeros((len(old.reach), len(old.reach)))
        self.S[: n + 1, : n + 1] = np.eye(n + 1)
        self.E, self.W = np.zeros(len(old.reach)), np.zeros(len(old.reach))
        self.W[: n + 1] = self.space.reach
        self.column = np.full(old.count, -1)
        for block in old.blocks:
            self._fold(block)

    def rows(self, rows: Rows) -> Rows:
        """Old rows in the new columns."""
        k = rows.T.shape[1]
        T, weight = rows.T @ self.S[:k, : len(self.space.reach)], np.abs(rows.T)
        e = rows.e + weight @ self.E[:k] + self.space.gamma(k + 4) * (weight @ self.W[:k])
        return Rows(T, e * GROW + TINY)

    def _fold(self, block: Block) -> None:
        """Variables whose relus are stable become rows: z or 0; s - z, s, -z or 0. The others stay variables."""
        part, space = slice(block.first, block.stop), self.space
        rows, lower, upper, partner = self.rows(block.rows), self.lower[part], self.upper[part], self._partner(block)
        active, stable = lower >= 0, (lower >= 0) | (upper <= 0)
        T, e = np.where(active[:, None], rows.T, 0.0), np.where(active, rows.e, 0.0)
        if partner is not None:
            s_lower, s_upper = partner.lower + lower, partner.upper + upper
            active = s_lower > 0  # rounding to nearest keeps the sign of a sum
            z_active = partner.lower >= 0
            stable = (active | (s_upper < 0)) & (z_active | (partner.upper <= 0))
            less = active * 1.0 - z_active * 1.0
            T = active[:, None] * rows.T + less[:, None] * partner.rows.padded(rows.T.shape[1])
            e = active * rows.e + np.abs(less) * partner.rows.e + 2 * space.gamma(1) * space.magnitude(Rows(T, e))
        at = block.first + space.n + 1 + np.flatnonzero(stable)
        self.S[at, : T.shape[1]], self.E[at] = T[stable], e[stable] * GROW + TINY
        self.W[at] = space.magnitude(Rows(T[stable], e[stable]))
        kept = np.flatnonzero(~stable)
        if partner is not None:
            partner = Partner(partner.rows[kept], partner.column[kept], partner.lower[kept], partner.upper[kept])
        new = space.add(rows[kept], lower[kept], upper[kept], partner)
        self.column[block.first + kept] = new
        at = block.first + space.n + 1 + kept
        self.S[at, space.n + 1 + new], self.W[at] = 1.0, space.reach[space.n + 1 + new]

    def _partner(self, block: Block) -> Partner | None:
        """The partner in the new columns, with its bounds in the sub-box."""
        if block.partner is None:
            return None
        old = block.partner
        known = old.column >= 0
        column, lower, upper = old.column.copy(), old.lower.copy(), old.upper.copy()
        lower[known], upper[known] = self.lower[old.column[known]], self.upper[old.column[known]]
        column[known] = self.column[old.column[known]]
        return Partner(self.rows(old.rows), column, lower, upper)
