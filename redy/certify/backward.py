r"""Lower bounds of rows on sub-boxes, by one backward pass through the blocks for all boxes and rows at once.

From the last block to the first, a variable v with coefficient a is replaced by a line below it for a > 0 and above it
for a < 0 (`lines`), its row z by T_z; what is left is affine in x and smallest at a corner of the sub-box (Zhang et
al., "Efficient neural network robustness certification with general activation functions", NeurIPS 2018, section 3).
"""

from __future__ import annotations

import numpy as np

from .lines import Lines, difference, plain
from .rounding import GROW, TINY, UNIT
from .space import Array, Block, Rows, Space

STEP, FALL = 0.7, 0.7
"""How far `fit` moves slopes first, and the factor from step to step."""
HOPE = 0.9
"""`fit` goes on with bounds that reached this share of the best before."""
PAIRS = 2**21
"""Numbers in one array of slopes that `fit` may hold."""


def lower(space: Space, rows: Rows, slack: Array, lines: list[Lines], low: Array, high: Array) -> tuple[Array, Array]:
    """Lower bounds (B, r) of rows on sub-boxes [low, high] (B, n), and the final coefficients (B, r, columns).

    `rows.T` is (r, columns) for all boxes alike or (B, r, columns); `slack` = `Space.slack(rows)` likewise; `lines` are
    those of the first blocks, whose variables alone the rows may use.

    Rounding. Given the computed coefficients D of the rows substituted, column k ends with
    T_k + sum_j D_j T_jk; every product passes at most 2 U + n + 8 roundings in each order of summation (2 in D, the
    others in sums), so it is off by gamma times its absolute terms, which act on |column k| <= reach_k: gamma |T| reach
    for the row (its slack) and |a| gamma |T_j| reach for every substituted row, where |D_j| <= |a| (the slacks of the
    block's rows). The last sum over a corner adds n + 2 roundings of terms that these absolute terms bound; U + 8
    roundings of the intercepts, all of one sign, are `gamma` of their sum. `Space.slack` allows for 8 U + n + 64.
    """
    boxes, count, n = len(low), rows.T.shape[-2], space.n
    width = n + 1 + sum(line.over.shape[1] for line in lines)
    acc = np.zeros((boxes, count, width))
    acc[:, :, : rows.T.shape[-1]] = rows.T
    error = np.zeros((boxes, count)) + slack
    total = np.zeros((boxes, count))
    share = space.gamma(8 * space.count + n + 64)
    for block, line in zip(reversed(space.blocks[: len(lines)]), reversed(lines), strict=True):
        a = acc[:, :, n + 1 + block.first : n + 1 + block.stop]
        taken, stacked, above = _substituted(a, line), block.stacked, n + 1 + block.first
        drop = taken.pop()
        D = np.concatenate(taken, axis=2) if len(taken) > 1 else taken[0]
        q = space.slack(stacked).reshape(len(taken), -1).sum(axis=0)
        error += np.abs(a) @ q - share * drop
        total += drop
        acc[:, :, :above] += (D.reshape(boxes * count, -1) @ stacked.T).reshape(boxes, count, above)
    c = acc[:, :, :n]
    total += acc[:, :, n] + _product(np.maximum(c, 0), low) + _product(np.minimum(c, 0), high)
    return total - (error * GROW + np.abs(total) * (8 * UNIT) + TINY), acc


def _product(a: Array, b: Array) -> Array:
    """(B, r) sum over m of a (B, r, m) times b (B, m)."""
    return np.asarray(np.matmul(a, b[:, :, None])[:, :, 0])


def _substituted(a: Array, line: Lines) -> list[Array]:
    """Coefficients of the block's rows, of the partner's rows if there are any, and the intercepts' sum (<= 0)."""
    positive, negative = np.maximum(a, 0), np.minimum(a, 0)
    drop = _product(positive, line.under) + _product(negative, line.over)
    slopes = [(line.below, line.above)]
    if line.below_z is not None and line.above_z is not None:
        slopes.append((line.below_z, line.above_z))
    return [*(positive * below[:, None] + negative * above[:, None] for below, above in slopes), drop]


def block_lines(block: Block, lower_: Array, upper: Array, before: tuple[Array, Array]) -> Lines:
    """Lines of a block from bounds (B, m) of its rows and bounds (B, first) of the rows of all variables before it."""
    partner = block.partner
    if partner is None:
        return plain(lower_, upper)
    ends = [np.broadcast_to(end, lower_.shape).copy() for end in (partner.lower, partner.upper)]
    known = partner.column >= 0
    for end, bound in zip(ends, before, strict=True):
        end[:, known] = bound[:, partner.column[known]]
    return difference(lower_, upper, *ends)


def both(rows: Rows) -> Rows:
    """Every row and, below, its negative."""
    return Rows(np.concatenate([rows.T, -rows.T]), np.concatenate([rows.e, rows.e]))


def forward(space: Space, low: Array, high: Array) -> tuple[Array, Array, list[Lines]]:
    """Bounds (B, U) of all variables' rows on sub-boxes, never wider than those on the whole box, and all lines."""
    at, up, lines = np.empty((len(low), space.count)), np.empty((len(low), space.count)), list[Lines]()
    for block in space.blocks:
        part, rows = slice(block.first, block.stop), both(block.rows)
        found, _ = lower(space, rows, space.slack(rows), lines, low, high)
        m = len(block.lower)
        at[:, part] = np.maximum(found[:, :m], block.lower)
        up[:, part] = np.minimum(-found[:, m:], block.upper)
        lines.append(block_lines(block, at[:, part], up[:, part], (at, up)))
    return at, up, lines


def fit(space: Space, rows: Rows, lines: list[Lines], boxes: tuple[Array, Array], start: Array, fits: int) -> Array:
    """Lower bounds (B,) of row b of `rows` on sub-box b, never below `start`, with lower slopes fitted `fits` times.

    relu(z) >= s z for every s of [0, 1]: at the corner where the last bound is reached and for the values that its
    lines give there, slope 1 is best for z > 0 and slope 0 for z < 0; each step moves a part of the way.
    `lines` are those of the sub-boxes; those of plain blocks are replaced here.
    """
    best, at, step = start.copy(), np.arange(len(start)), STEP
    low, high = boxes
    for number in range(fits + 1):
        part = Rows(rows.T[at][:, None], rows.e[at][:, None])
        found, acc = lower(space, part, space.slack(part), lines, low[at], high[at])
        found, acc = found[:, 0], acc[:, 0]
        hope = (number == 0) | (np.abs(found) <= HOPE * np.abs(best[at]))
        best[at] = np.fmax(best[at], found)
        hope &= found < 0
        if number == fits or not hope.any():
            break
        lines = [line.at(hope) for line in lines]
        at, acc = at[hope], acc[hope]
        lines = moved(space, lines, acc, (low[at], high[at]), step)
        step *= FALL
    return best


def moved(space: Space, lines: list[Lines], acc: Array, boxes: tuple[Array, Array], step: float) -> list[Lines]:
    """The lines with the lower slopes of unstable variables of positive coefficient moved by a part `step`."""
    n = space.n
    point = np.zeros_like(acc)
    point[:, :n] = np.where(acc[:, :n] > 0, *boxes)
    point[:, n] = 1.0
    result = []
    for block, line in zip(space.blocks, lines, strict=False):
        part = slice(n + 1 + block.first, n + 1 + block.stop)
        positive, width = acc[:, part] > 0, block.rows.T.shape[1]
        z = point[:, :width] @ block.rows.T.T
        value = np.where(positive, line.below * z + line.under, line.above * z + line.over)
        if line.below_z is None or line.above_z is None or block.partner is None:
            change = positive & (line.over > 0)
            line = line._replace(below=np.where(change, line.below + step * ((z > 0) - line.below), line.below))  # noqa: PLW2901
        else:
            p = point[:, : block.partner.rows.T.shape[1]] @ block.partner.rows.T.T
            value = value + np.where(positive, line.below_z, line.above_z) * p
        point[:, part] = value
        result.append(line)
    return result
