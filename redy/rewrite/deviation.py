r"""How far the written network can be from the original, in real arithmetic: folding and rounding of weights.

Every value of either network is an affine form of *atoms*: the input, whatever is carried through, and the units u that
stand in the written network, with value y_u in the original and y'_u in the written one:

    z_i  = o_i  + sum_u M_iu  y_u   +- r_i       (the original; a removed unit is its line, up to the line's error)
    z'_i = o'_i + sum_u M'_iu y'_u  +- r'_i      (the written network)

r is what computing the form in float64 can have lost: a product with n terms gives at most gamma_n |W| s, where s is
the sum of the absolute terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). With |y_u| <= m_u,
|y_u - y'_u| <= e_u and f_i of Lipschitz constant L_i, from the front to the back

    |z_i - z'_i| <= sum_u |M_iu - M'_iu| m_u + sum_u |M'_iu| e_u + |o_i - o'_i| + r_i + r'_i,
    e_i = L_i |z_i - z'_i|.

The bounds m come from outside (numbers); the result is sound if they are. It grows with the absolute weights, so it is
looser than what the difference engine proves, but it costs no search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Array, Box, Network
from redy.rewrite.dense import Refusal, dense_affine, flat_function, lines_of
from redy.rewrite.merge import Merge

UNIT = 2.0**-53
TINY = 2.0**-1000
"""Stands for underflow in a row; far above n * 2^-1074 for every n met here."""
SLACK = 1 + 2.0**-30
"""Covers the rounding of the bound itself: every sum of positive terms below has fewer than 2^20 of them."""

Ranges = Mapping[str, tuple[Array, Array]]
"""Activation -> lower and upper bounds of its pre-activation in the original, of its shape."""


@dataclass(frozen=True, slots=True)
class _Form:
    """offset + sum blocks[a] @ atom a, up to radius."""

    blocks: dict[str, Array]
    offset: Array
    radius: Array


class _Walk:
    """Forms of the values of one network over the atoms."""

    def __init__(self, network: Network, magnitudes: dict[str, Array]) -> None:
        self.network = network
        self.magnitudes = magnitudes
        self.forms: dict[str, _Form | None] = {network.input.name: None}
        self.carried = {network.input.name}

    def follows(self, node: Affine | Activate) -> bool:
        """True if the node's value has a form; a node that only hangs on carried ones is carried itself."""
        if isinstance(node, Affine) and dense_affine(node) and all(source in self.forms for source in node.sources):
            return True
        if isinstance(node, Activate) and self.forms.get(node.source) is not None:
            return True
        if all(source in self.carried for source in node.sources):
            self.carried.add(node.name)
        return False

    def size(self, form: _Form) -> Array:
        """A bound on the sum of absolute terms of each row."""
        total = np.abs(form.offset) + form.radius
        for name, block in form.blocks.items():
            total = total + np.abs(block) @ self.magnitudes[name]
        return np.asarray(total * SLACK)

    def form(self, name: str) -> _Form:
        """The form of a value; an atom is itself."""
        form = self.forms[name]
        if form is not None:
            return form
        size = self.magnitudes[name].size
        return _Form({name: np.eye(size)}, np.zeros(size), np.zeros(size))

    def affine(self, node: Affine) -> _Form:
        """The form of a dense node from those of its sources."""
        blocks: dict[str, Array] = {}
        offset = node.bias.ravel()
        radius, weight, count = np.zeros(node.bias.size), np.abs(offset), 2
        for term in node.terms:
            matrix, form = term.operator.matrix(), self.forms[term.source]
            count += matrix.shape[1] + 1
            absolute = np.abs(matrix)
            if form is None:
                parts = {term.source: matrix}
                weight = weight + absolute @ self.magnitudes[term.source]
            else:
                parts = {name: matrix @ block for name, block in form.blocks.items()}
                offset = offset + matrix @ form.offset
                radius = radius + absolute @ form.radius
                weight = weight + absolute @ self.size(form)
            for name, part in parts.items():
                blocks[name] = blocks[name] + part if name in blocks else part
        gamma = count * UNIT / (1 - count * UNIT)
        return _Form(blocks, offset, (radius + gamma * weight + TINY) * SLACK)


def deviation(
    lined: Network,
    written: Network,
    units: Mapping[str, NDArray[np.int64]],
    merges: tuple[Merge, ...],
    box: Box,
    ranges: Ranges,
    line_errors: Mapping[str, Array] | None = None,
) -> dict[str, Array] | Refusal:
    """A bound on |original - written| for every output (its shape), for all inputs of the box, in real arithmetic.

    Args:
        lined: the original with lines in place (`Shrunk.lined`).
        written: the network as written.
        units: for every activation of `written`, which units of `lined` stand in it.
        merges: units of `lined` that went into a parallel one.
        box: the inputs.
        ranges: sound bounds of the pre-activations of the original on the box.
        line_errors: activation -> per unit the largest |function - line| over its range (`Finding.error`), else 0.

    Refused, with the reason, where a value cannot be followed (an output behind a node that is not piecewise linear).
    """
    reach = np.maximum(np.abs(box.lower), np.abs(box.upper)).ravel()
    changed = [name for name in _carried(written) if written.by_name[name] is not lined.by_name.get(name)]
    if changed:
        return Refusal(f"{changed[0]}: was rewritten outside the dense part")
    walk = _Walk(lined, {lined.input.name: reach})
    exact = _original(walk, units, merges, ranges, line_errors or {})
    if isinstance(exact, Refusal):
        return exact
    return _compared(exact, written, units)


def _carried(network: Network) -> list[str]:
    """The nodes that only hang on the input through nodes that are not dense."""
    carried: list[str] = []
    for node in network.nodes:
        dense = isinstance(node, Affine) and dense_affine(node)
        if not dense and all(source == network.input.name or source in carried for source in node.sources):
            carried.append(node.name)
    return carried


def _original(
    walk: _Walk,
    units: Mapping[str, NDArray[np.int64]],
    merges: tuple[Merge, ...],
    ranges: Ranges,
    line_errors: Mapping[str, Array],
) -> _Walk | Refusal:
    magnitudes = walk.magnitudes
    for node in walk.network.nodes:
        if not isinstance(node, Affine | Activate):
            continue
        follows = walk.follows(node)
        if isinstance(node, Affine):
            if follows:
                walk.forms[node.name] = walk.affine(node)
        elif node.name in ranges:
            reached = _largest(node, ranges[node.name])
            if not np.isfinite(reached).all():
                continue
            if follows:
                stays = units.get(node.name, np.zeros(0, dtype=np.int64))
                magnitudes[node.name] = reached[stays]
                form = _lined_units(walk, node, stays, merges)
                if node.name in line_errors:
                    removed = ~np.isin(np.arange(form.radius.size), stays)
                    form.radius[removed] += line_errors[node.name][removed] * SLACK
                walk.forms[node.name] = form
            elif node.name in walk.carried:
                magnitudes[node.name], walk.forms[node.name] = reached, None
    missing = [port.name for port in walk.network.outputs if port.name not in walk.forms]
    return Refusal(f"{missing[0]}: lies behind a node that redy cannot follow") if missing else walk


def _largest(node: Activate, interval: tuple[Array, Array]) -> Array:
    """The largest |f| on the intervals, at an end or at a breakpoint inside; infinite where an interval is."""
    function = flat_function(node)
    lower, upper = (end.ravel() for end in interval)
    points = np.stack([lower, upper, *np.clip(function.breakpoints, lower, upper)])
    with np.errstate(invalid="ignore"):  # 0 * inf, where an interval has no end
        largest = np.abs(function(points)).max(axis=0) * SLACK + TINY
    return np.where(np.isfinite(lower) & np.isfinite(upper), largest, np.inf)


def _lined_units(walk: _Walk, node: Activate, stays: NDArray[np.int64], merges: tuple[Merge, ...]) -> _Form:
    """Atoms for units that stand in the written network, factors of atoms for merged ones, lines for the others."""
    z = walk.form(node.source)
    is_line, slope, intercept = lines_of(flat_function(node))
    slope, intercept = np.where(is_line, slope, 0.0), np.where(is_line, intercept, 0.0)
    radius = np.abs(slope) * z.radius + 4 * UNIT * (np.abs(slope) * walk.size(z) + np.abs(intercept)) + TINY
    blocks = {name: slope[:, None] * block for name, block in z.blocks.items()}
    offset = slope * z.offset + intercept
    own = np.zeros((is_line.size, stays.size))
    for block in blocks.values():
        block[stays] = 0.0
    offset[stays], radius[stays] = 0.0, 0.0
    own[stays, np.arange(stays.size)] = 1.0
    steepest = np.abs(flat_function(node).slopes).max(axis=0)
    for name, gone, into, factor in merges:
        if name == node.name:
            own[gone, stays == into] = factor
            apart = np.abs(z.offset[gone] - factor * z.offset[into]) + z.radius[gone] + abs(factor) * z.radius[into]
            apart += sum(
                np.abs(block[gone] - factor * block[into]) @ walk.magnitudes[n] for n, block in z.blocks.items()
            )
            rounding = 4 * UNIT * abs(factor) * walk.size(z)[into]
            radius[gone] = (
                steepest[gone] * (apart + rounding) * SLACK
                + 2 * UNIT * abs(factor) * walk.magnitudes[node.name][stays == into].sum()
            )
    if stays.size:
        blocks[node.name] = own
    return _Form(blocks, offset, radius * SLACK)


def _compared(exact: _Walk, written: Network, units: Mapping[str, NDArray[np.int64]]) -> dict[str, Array] | Refusal:
    errors: dict[str, Array] = {written.input.name: np.zeros(math.prod(written.input.shape))}
    walk = _Walk(written, {written.input.name: exact.magnitudes[written.input.name]})
    for node in written.nodes:
        if not isinstance(node, Affine | Activate):
            continue
        follows = walk.follows(node)
        if isinstance(node, Affine):
            if follows:
                walk.forms[node.name] = walk.affine(node)
        elif node.name in exact.magnitudes:
            if follows:
                source = exact.network.by_name[node.name].sources[0]
                apart = _apart(exact, exact.form(source), walk, walk.form(node.source), errors, units[node.name])
                errors[node.name] = np.abs(flat_function(node).slopes).max(axis=0) * apart * SLACK
            elif node.name in walk.carried and node.name in exact.carried:
                errors[node.name] = np.zeros(exact.magnitudes[node.name].size)
            else:
                continue
            walk.magnitudes[node.name] = (exact.magnitudes[node.name] + errors[node.name]) * SLACK
            walk.forms[node.name] = None
    bounds: dict[str, Array] = {}
    for port in written.outputs:
        if port.name not in walk.forms:
            return Refusal(f"{port.name}: lies behind a node that redy cannot follow")
        everything = np.arange(math.prod(port.shape))
        apart = _apart(exact, exact.form(port.name), walk, walk.form(port.name), errors, everything)
        bounds[port.name] = apart.reshape(port.shape)
    return bounds


def _apart(
    exact: _Walk,
    z: _Form,
    walk: _Walk,
    other: _Form,
    errors: dict[str, Array],
    rows: NDArray[np.int64],
) -> Array:
    """|z[rows] - z'| by the inequality of the module's docstring."""
    total = np.abs(z.offset[rows] - other.offset) + z.radius[rows] + other.radius
    for name in {**z.blocks, **other.blocks}:
        nothing = np.zeros((rows.size, exact.magnitudes[name].size))
        mine = z.blocks[name][rows] if name in z.blocks else nothing
        theirs = other.blocks.get(name, nothing)
        if name in other.blocks:
            total = total + np.abs(theirs) @ errors[name]
        total = total + np.abs(mine - theirs) @ exact.magnitudes[name]
    # The differences of computed forms are rounded as well.
    return np.asarray((total + 2 * UNIT * (exact.size(z)[rows] + walk.size(other)) + TINY) * SLACK)
