r"""The condensed form of a network over a box.

Fold every activation that is stable over the box: what remains are U unstable ReLU variables,

    z_i = C_i x + b_i + sum_{j<i} M_ij v_j + eps_i,    v_j = relu(z_j),    |eps_i| <= e_i  for every x of the box,

and rows of the same shape for the outputs. Every piecewise-linear function is a sum of ReLUs,
f(z) = f(t_1) + s_0 (z - t_1) + sum_k (s_k - s_{k-1}) relu(z - t_k), so ReLU is the only variable the engine knows.
`e` holds what folding in float64 can have lost (Higham's gamma_n, see `rounding`): bounds on the condensed rows plus
`e` are bounds for the original network in real arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.bounds.rounding import GROW, TINY, UNIT, gamma
from redy.errors import Unsupported
from redy.model import Activate, Affine, Array, Box, Limits, Network, Operator

Intervals = Mapping[str, tuple[Array, Array]]

MEMORY = 1 << 26
"""Numbers that the form of one node, or those of all wanted values together, may hold (512 MiB)."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A ReLU variable: relu(z - t) for the pre-activation z of one element and its breakpoint number k."""

    node: str
    element: int
    breakpoint: int


@dataclass(slots=True)
class Form:
    """Rows C x + b + M v with errors e: C (r, n), b (r), M (r, variables so far), e (r)."""

    C: Array
    b: Array
    M: Array
    e: Array

    def __getitem__(self, rows: list[int] | NDArray[np.int64]) -> Form:
        return Form(self.C[rows], self.b[rows], self.M[rows], self.e[rows])

    def padded(self, columns: int) -> Array:
        """M with zero columns up to `columns`."""
        if columns == self.M.shape[1]:
            return self.M.copy()
        # np.pad costs more than everything else here on small matrices.
        wide = np.zeros((len(self.M), columns))
        wide[:, : self.M.shape[1]] = self.M
        return wide

    def plus(self, other: Form, sign: float = 1.0, *, condensed: Condensed) -> Form:
        """self + sign * other for sign 1 or -1, with the rounding of the additions in e."""
        columns = max(self.M.shape[1], other.M.shape[1])
        total = Form(
            self.C + sign * other.C,
            self.b + sign * other.b,
            self.padded(columns) + sign * other.padded(columns),
            self.e + other.e,
        )
        total.e = (total.e + 2 * UNIT * condensed.magnitude(total) + condensed.lost) * GROW
        return total

    def scaled(self, factor: Array, offset: Array, *, condensed: Condensed) -> Form:
        """factor * self + offset, row by row."""
        form = Form(
            factor[:, None] * self.C, factor * self.b + offset, factor[:, None] * self.M, np.abs(factor) * self.e
        )
        form.e = (
            form.e + 3 * UNIT * (condensed.magnitude(form) + np.abs(factor * self.b) + np.abs(offset)) + condensed.lost
        ) * GROW
        return form


@dataclass(slots=True)
class Condensed:
    """The growing condensed form: input reach, variables and their rows, and the forms of named values.

    Attributes:
        reach: (n,) the largest |x_k| in the box.
        variables: one key per variable, in order.
        rows: per variable its row z (a Form of one row).
        lower, upper: sound bounds of each z over the box.
        partner: per variable -1, or the index p of the variable of which it is the difference:
            v = relu(z_p + d) - relu(z_p), with d given by its row (see `difference`).
        size: (variables,) bounds on |v|.
    """

    box: Box
    variables: list[Variable] = field(default_factory=list)
    rows: list[Form] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    partner: list[int] = field(default_factory=list)
    size: list[float] = field(default_factory=list)

    @property
    def reach(self) -> Array:
        """(n,) the largest |x_k| in the box."""
        return np.maximum(np.abs(self.box.lower), np.abs(self.box.upper)).ravel()

    def magnitude(self, form: Form) -> Array:
        """(r,) a bound on the sum of absolute terms of each row over the box, up to rounding that GROW covers."""
        sizes = np.array(self.size[: form.M.shape[1]])
        return np.asarray(np.abs(form.C) @ self.reach + np.abs(form.b) + np.abs(form.M) @ sizes)

    @property
    def lost(self) -> float:
        """What underflow can cost a row: a coefficient that vanishes acts on inputs and variables of any size."""
        return TINY * (1.0 + float(self.reach.sum()) + math.fsum(self.size))

    def interval(self, form: Form) -> tuple[Array, Array]:
        """Sound interval bounds (r,), (r,) of each row over the box."""
        lower, upper = self.box.lower.ravel(), self.box.upper.ravel()
        positive, negative = np.maximum(form.C, 0), np.minimum(form.C, 0)
        count = form.M.shape[1]
        plain = np.array([p < 0 for p in self.partner[:count]], dtype=bool)
        size = np.array(self.size[:count])
        up = np.maximum(form.M, 0) @ size + np.where(plain, 0.0, np.maximum(-form.M, 0)) @ size
        down = np.minimum(form.M, 0) @ size - np.where(plain, 0.0, np.maximum(form.M, 0)) @ size
        slack = (form.e + gamma(2 * len(lower) + 2 * count + 8) * self.magnitude(form) + self.lost) * GROW
        low, high = (
            positive @ lower + negative @ upper + form.b + down,
            positive @ upper + negative @ lower + form.b + up,
        )
        low, high = low - slack, high + slack
        # Infinity minus infinity bounds nothing; a comparison with it must not look like a decided sign.
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)

    def add(self, key: Variable, row: Form, lower: float, upper: float, partner: int = -1) -> int:
        """A new variable with the given one-row form and bounds of z; its column index."""
        self.variables.append(key)
        self.rows.append(row)
        self.lower.append(lower)
        self.upper.append(upper)
        self.partner.append(partner)
        self.size.append(max(0.0, upper) if partner < 0 else max(abs(lower), abs(upper)))
        return len(self.variables) - 1

    def stacked(self, extra: Form | None = None, *, first: int | None = None) -> Form:
        """The first (default: all) variable rows, then the rows of `extra`, with M over those variables."""
        columns = len(self.variables) if first is None else first
        n = self.box.size
        empty = Form(np.zeros((0, n)), np.zeros(0), np.zeros((0, 0)), np.zeros(0))
        forms = [empty, *self.rows[:columns], *([] if extra is None else [extra])]
        return Form(
            np.concatenate([form.C for form in forms]),
            np.concatenate([form.b for form in forms]),
            np.concatenate([form.padded(columns) for form in forms]),
            np.concatenate([form.e for form in forms]),
        )

    def input_form(self) -> Form:
        """The input itself: one row per input."""
        n = self.box.size
        return Form(np.eye(n), np.zeros(n), np.zeros((n, 0)), np.zeros(n))


def apply_affine(condensed: Condensed, node: Affine, forms: Mapping[str, Form]) -> Form:
    """The form of an affine node from the forms of its sources, rounding included."""
    rows, columns, n = node.bias.size, len(condensed.variables), condensed.box.size
    total = np.zeros((rows, n + 1 + columns))
    total[:, n] = node.bias.ravel()
    error, weight, operations = np.zeros(rows), np.abs(node.bias.ravel()), 4
    for term in node.terms:
        form, operator = forms[term.source], term.operator
        stacked = np.concatenate([form.C, form.b[:, None], form.padded(columns)], axis=1)
        total += _through(operator, stacked)
        error += _spread(operator, form.e)
        weight += _spread(operator, condensed.magnitude(form))
        operations += operator.fan_in + 1
    result = Form(total[:, :n].copy(), total[:, n].copy(), total[:, n + 1 :].copy(), error)
    result.e = (error + gamma(operations) * weight + condensed.lost) * GROW
    return result


def _through(operator: Operator, stacked: Array) -> Array:
    columns = np.ascontiguousarray(stacked.T).reshape(stacked.shape[1], *operator.in_shape)
    return operator.apply(columns).reshape(len(columns), -1).T


def _spread(operator: Operator, radius: Array) -> Array:
    return operator.spread(radius.reshape(1, *operator.in_shape)).ravel() * GROW


def apply_activation(condensed: Condensed, node: Activate, form: Form, known: Intervals) -> tuple[Form, Array, Array]:
    """The form of an activation; new variables for its unstable breakpoints. Also the pre-activation bounds used."""
    lower, upper = condensed.interval(form)
    if node.name in known:
        lower = np.maximum(lower, known[node.name][0].ravel())
        upper = np.minimum(upper, known[node.name][1].ravel())
    function = node.function.broadcast_to(node.shape)
    breaks, slopes = function.breakpoints.reshape(function.pieces - 1, -1), function.slopes.reshape(function.pieces, -1)
    value = function.value.ravel()
    offset = value - slopes[0] * breaks[0]
    result = form.scaled(slopes[0], offset, condensed=condensed)
    result.e = result.e + 3 * UNIT * (np.abs(value) + np.abs(slopes[0] * breaks[0])) * GROW
    for k in range(function.pieces - 1):
        jump = slopes[k + 1] - slopes[k]
        jump_error = UNIT * np.abs(jump)
        shifted = form.scaled(np.ones_like(jump), -breaks[k], condensed=condensed)
        active = (lower >= breaks[k]) & (jump != 0)
        part = shifted.scaled(np.where(active, jump, 0.0), np.zeros_like(jump), condensed=condensed)
        part.e = part.e + np.where(active, jump_error * condensed.magnitude(shifted), 0.0) * GROW
        result = result.plus(part, condensed=condensed) if active.any() else result
        unstable = np.flatnonzero((lower < breaks[k]) & (upper > breaks[k]) & (jump != 0))
        first = len(condensed.variables)
        for element in unstable:
            shift_up, shift_down = (
                math.nextafter(upper[element] - breaks[k][element], math.inf),
                math.nextafter(lower[element] - breaks[k][element], -math.inf),
            )
            condensed.add(Variable(node.name, int(element), k), shifted[[int(element)]], shift_down, shift_up)
        result.M = result.padded(len(condensed.variables))
        result.M[unstable, first + np.arange(len(unstable))] = jump[unstable]
        sizes = np.array(condensed.size[first:])
        result.e[unstable] = (result.e[unstable] + jump_error[unstable] * sizes) * GROW
    return result, lower.reshape(node.shape), upper.reshape(node.shape)


@dataclass(frozen=True, slots=True)
class Walk:
    """What condensing gave: the condensed form, the forms of wanted values, and the bounds of each pre-activation."""

    condensed: Condensed
    forms: dict[str, Form]
    intervals: dict[str, tuple[Array, Array]]


def condense(
    network: Network, box: Box, known: Intervals, *, wanted: tuple[str, ...] = (), limits: Limits | None = None
) -> Walk:
    """Fold what `known` (sound pre-activation bounds by Activate name; may be empty) shows to be stable.

    Returns the forms of the network's outputs and of the values in `wanted` as well.

    Raises:
        Unsupported: a node on the way to them is neither affine nor piecewise linear, the form does not fit into
            `MEMORY`, or the deadline of `limits` came first.
    """
    condensed = Condensed(box)
    forms: dict[str, Form] = {network.input.name: condensed.input_form()}
    intervals: dict[str, tuple[Array, Array]] = {}
    keep = {*wanted, *(port.name for port in network.outputs)}
    needed = _needed(network, keep)
    order = [node for node in network.nodes if node.name in needed]
    last = {source: node.name for node in order for source in node.sources}
    held = 0
    for node in order:
        width = box.size + 1 + len(condensed.variables)
        held += math.prod(node.shape) * width if node.name in keep else 0
        if max(held, math.prod(node.shape) * width) > MEMORY:
            raise Unsupported(f"{node.name}: the condensed form would be larger than {8 * MEMORY >> 20} MiB")
        if limits is not None and limits.remaining() <= 0:
            raise Unsupported(f"{node.name}: the time limit came before the network was condensed")
        if isinstance(node, Affine):
            forms[node.name] = apply_affine(condensed, node, forms)
        elif isinstance(node, Activate):
            forms[node.name], low, high = apply_activation(condensed, node, forms[node.source], known)
            intervals[node.name] = (low, high)
        else:
            raise Unsupported(
                f"{node.name}: {type(node).__name__} nodes cannot be condensed; use --engine linear or milp"
            )
        for source in node.sources:
            if last[source] == node.name and source not in keep:
                forms.pop(source, None)
    return Walk(condensed, {name: forms[name] for name in keep}, intervals)


def _needed(network: Network, keep: set[str]) -> set[str]:
    needed = set(keep)
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.sources)
    return needed
