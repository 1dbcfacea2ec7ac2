"""The rows of one element whose activation is not stuck, and of one maximum (equations in `redy.milp.encode`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redy.bounds.relaxation import intercepts, piece_intercepts, relax
from redy.bounds.rounding import UNDERFLOW, gamma
from redy.milp.program import ProgramBuilder
from redy.model import Array, PiecewiseLinear

ENVELOPE = 1e-9
"""A line that leaves the function by less than this part of its range is taken as an envelope: no binary in its row."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One element z: |z - (coefficients[1:] . v + coefficients[0])| <= slack; size = sum_j |coefficient_j| |v_j|max."""

    coefficients: Array
    slack: float
    size: float
    lower: float
    upper: float

    def row(self, builder: ProgramBuilder, slope: float, extra: dict[int, float], limit: float) -> None:
        """Add the row: sum extra_j v_j + slope * z <= limit, loosened by the slack and all rounding."""
        scaled = slope * self.coefficients
        loose = abs(slope) * self.slack + gamma(16) * (abs(slope) * (self.size + self.slack) + abs(limit))
        loose += UNDERFLOW * len(scaled) * (1 + self.size)
        builder.row(scaled[1:], extra, upper=float(np.nextafter(limit - scaled[0] + loose, np.inf)))


def activation_rows(builder: ProgramBuilder, z: Form, function: PiecewiseLinear, y: int) -> None:
    """Rows that tie variable y to f(z) for a function of shape () that has several pieces on [z.lower, z.upper]."""
    breaks = np.concatenate([[-np.inf], function.breakpoints, [np.inf]])
    met = [p for p in range(function.pieces) if max(breaks[p], z.lower) < min(breaks[p + 1], z.upper)]
    chosen = _choices(builder, len(met))
    below, above = piece_intercepts(function)
    ends = np.array(z.lower), np.array(z.upper)
    tolerance = ENVELOPE * (z.upper - z.lower) * float(np.abs(function.slopes).max())
    for piece, (one, others) in zip(met, chosen, strict=True):
        slope = float(function.slopes[piece])
        least, most = (float(end) for end in intercepts(function, *ends, np.array(slope)))
        for sign, own, extreme in ((1.0, float(above[piece]), most), (-1.0, -float(below[piece]), -least)):
            gap = extreme - own
            if slope == 0 and gap <= tolerance:
                continue  # an end of the variable's own range says so already
            if gap <= tolerance:
                z.row(builder, -sign * slope, {y: sign}, max(own, extreme))
            else:
                gap = _up(gap)
                extra = {y: sign, **{j: gap * c for j, c in others.items()}}
                z.row(builder, -sign * slope, extra, _up(own + gap * (1 - one)))
    slopes = function.slopes[met]
    if (np.diff(slopes) > 0).any() and (np.diff(slopes) < 0).any():
        _domains(builder, z, [(breaks[p], breaks[p + 1]) for p in met], chosen)
    if len(met) > 2:
        lines = relax(function, *ends)
        z.row(builder, -float(lines.upper_slope), {y: 1.0}, float(lines.upper_intercept))
        z.row(builder, float(lines.lower_slope), {y: -1.0}, -float(lines.lower_intercept))


def maximum_rows(builder: ProgramBuilder, elements: Sequence[Form], y: int) -> None:
    """Rows that tie variable y to the largest of several elements."""
    highest = max(z.upper for z in elements)
    chosen = _choices(builder, len(elements))
    for z, (one, others) in zip(elements, chosen, strict=True):
        z.row(builder, 1.0, {y: -1.0}, 0.0)
        gap = _up(highest - z.lower)
        z.row(builder, -1.0, {y: 1.0, **{j: gap * c for j, c in others.items()}}, _up(gap * (1 - one)))


def _choices(builder: ProgramBuilder, count: int) -> list[tuple[float, dict[int, float]]]:
    """`count` indicators d_p that add up to 1, each as constant + sum c_j binary_j."""
    binaries = [builder.variable(0.0, 1.0, binary=True) for _ in range(count - 1)]
    if count > 2:
        builder.row(np.empty(0), dict.fromkeys(binaries, 1.0), upper=1.0)
    return [(1.0, dict.fromkeys(binaries, -1.0)), *((0.0, {j: 1.0}) for j in binaries)]


def _domains(
    builder: ProgramBuilder,
    z: Form,
    pieces: Sequence[tuple[float, float]],
    chosen: Sequence[tuple[float, dict[int, float]]],
) -> None:
    """Where a piece is chosen, z lies in it."""
    for (left, right), (one, others) in zip(pieces, chosen, strict=True):
        for sign, end, extreme in ((1.0, right, z.upper), (-1.0, -left, -z.lower)):
            if end < extreme:
                gap = _up(extreme - end)
                z.row(builder, sign, {j: gap * c for j, c in others.items()}, _up(end + gap * (1 - one)))


def _up(x: float) -> float:
    return float(np.nextafter(x, np.inf))
