r"""Lower bounds of rows on sub-boxes, by one backward pass through the blocks for all boxes and rows at once.

From the last block to the first, a variable v with coefficient a is replaced by a line below it for a > 0 and above it
for a < 0 (`lines`), its row z by T_z; what is left is affine in x and smallest at a corner of the sub-box (Zhang et
al., "Efficient neural network robustness certification with general activation functions", NeurIPS 2018, section 3).
"""

from __future__ import annotations

import numpy as np

from .lines import Lines, block_lines
from .rounding import GROW, TINY, UNIT
from .space import Array, Rows, Space

STEP, FALL = 0.7, 0.7
"""How far `fit` moves slopes first, and the factor from step to step."""
HOPE = 0.9
"""`fit` goes on with bounds that reached this share of the best before."""
PAIRS = 2**21
"""Numbers in one array of slopes that `fit` holds at once."""


def lower(space: Space, rows: Rows, lines: list[Lines], low: Array, high: Array) -> tuple[Array, Array]:
    """Lower bounds (B, r) of rows on sub-boxes [low, high] (B, n), and the final coefficients (B, r, columns).

    `rows.T` is (r, columns) for all boxes alike or (B, r, columns); `lines` are those of the first blocks, whose
    variables alone the rows may use.

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
    error, total = np.zeros((boxes, count)) + space.slack(rows), np.zeros((boxes, count))
    share = space.gamma(8 * space.count + n + 64)
    for block, line in zip(reversed(space.blocks[: len(lines)]), reversed(lines), strict=True):
        a = acc[:, :, n + 1 + block.first : n + 1 + block.stop]
        D, drop = _substituted(a, line)
        below, above = block.stacked, n + 1 + block.first
        error += np.abs(a) @ space.block_slack(block) - share * drop
        total += drop
        acc[:, :, :above] += (D.reshape(boxes * count, -1) @ below.T).reshape(boxes, count, above)
    c = acc[:, :, :n]
    total += acc[:, :, n] + _product(np.maximum(c, 0), low) + _product(np.minimum(c, 0), high)
    return total - (error * GROW + np.abs(total) * (8 * UNIT) + TINY), acc


def _product(a: Array, b: Array) -> Array:
    """(B, r) sum over m of a (B, r, m) times b (B, m)."""
    return np.asarray(np.matmul(a, b[:, :, None])[:, :, 0])


def _substituted(a: Array, line: Lines) -> tuple[Array, Array]:
    """Coefficients of the block's rows, then of the partners' rows if there are any; the intercepts' sum (<= 0)."""
    positive, negative = np.maximum(a, 0), np.minimum(a, 0)
    D = positive * line.below[:, None] + negative * line.above[:, None]
    if line.below_z is not None and line.above_z is not None:
        D = np.concatenate([D, positive * line.below_z[:, None] + negative * line.above_z[:, None]], axis=2)
    return D, _product(positive, line.under) + _product(negative, line.over)


def forward(space: Space, low: Array, high: Array) -> tuple[Array, Array, list[Lines]]:
    """Bounds (B, U) of all variables' rows on sub-boxes, never wider than those on the whole box, and all lines."""
    at, up, lines = np.empty((len(low), space.count)), np.empty((len(low), space.count)), list[Lines]()
    for block in space.blocks:
        part, m = slice(block.first, block.stop), len(block.lower)
        found, _ = lower(space, block.rows.pair(), lines, low, high)
        at[:, part] = np.maximum(found[:, :m], block.lower)
        up[:, part] = np.minimum(-found[:, m:], block.upper)
        lines.append(block_lines(block, at[:, part], up[:, part], (at, up)))
    return at, up, lines


def fitted(space: Space, rows: Rows, lines: list[Lines], boxes: tuple[Array, Array], start: Array, fits: int) -> Array:
    """Lower bounds (B, r), where `start` < 0 perhaps raised by fitting the lower slopes of plain blocks `fits` times.

    relu(z) >= s z for every s of [0, 1]: at the corner where the last bound is reached and for the values that its
    lines give there, slope 1 is best for z > 0 and slope 0 for z < 0; each step moves a part of the way.
    """
    values, (box, row) = start.copy(), np.nonzero(start < 0)
    step = max(1, PAIRS // max(1, space.count))
    for begin in range(0, len(box) if fits and lines else 0, step):
        b, r = box[begin : begin + step], row[begin : begin + step]
        own = [line.at(b) for line in lines]
        values[b, r] = _fit(space, rows[r], own, (boxes[0][b], boxes[1][b]), values[b, r], fits)
    return values


def _fit(space: Space, rows: Rows, lines: list[Lines], boxes: tuple[Array, Array], best: Array, fits: int) -> Array:
    """(B,) for row b on sub-box b."""
    at, step, (low, high) = np.arange(len(best)), STEP, boxes
    for number in range(fits + 1):
        found, acc = (v[:, 0] for v in lower(space, Rows(rows.T[at][:, None], rows.e[at][:, None]), lines, low, high))
        hope = (found < 0) & ((number == 0) | (np.abs(found) <= HOPE * np.abs(best[at])))
        best[at] = np.fmax(best[at], found)
        if number == fits or not hope.any():
            break
        at, acc, low, high = at[hope], acc[hope], low[hope], high[hope]
        lines = _moved(space, [line.at(hope) for line in lines], acc, (low, high), step)
        step *= FALL
    return best


def _moved(space: Space, lines: list[Lines], acc: Array, boxes: tuple[Array, Array], step: float) -> list[Lines]:
    """The lines with the lower slopes of unstable variables of positive coefficient moved by a part `step`."""
    n, point, result = space.n, np.zeros_like(acc), list[Lines]()
    point[:, :n], point[:, n] = np.where(acc[:, :n] > 0, *boxes), 1.0
    for block, line in zip(space.blocks, lines, strict=False):
        part = slice(n + 1 + block.first, n + 1 + block.stop)
        positive = acc[:, part] > 0
        z = point[:, : block.rows.T.shape[1]] @ block.rows.T.T
        value = np.where(positive, line.below * z + line.under, line.above * z + line.over)
        if line.below_z is None or line.above_z is None or block.partner is None:
            moved = np.where(positive & (line.over > 0), line.below + step * ((z > 0) - line.below), line.below)
            line = line._replace(below=moved)  # noqa: PLW2901
        else:
            p = point[:, : block.partner.z.T.shape[1]] @ block.partner.z.T.T
            value = value + np.where(positive, line.below_z, line.above_z) * p
        point[:, part] = value
        result.append(line)
    return result
