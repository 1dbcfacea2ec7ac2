r"""Two networks on one box in one condensed form: bounds of how far apart they are.

The condensed form of the first network comes first. Every unstable ReLU of the second, with pre-activation z', is
paired with one of the first, with pre-activation z, and written as

    relu(z') = relu(z) + v,    v = relu(z + d) - relu(z),    d = z' - z,

so that only the small v is relaxed, not two large values that nearly cancel (the kernel takes the better of a
relaxation in d and of two separate ones; compare Paulsen, Wang and Wang, "ReluDiff", ICSE 2020, section IV). Any
pairing is sound, a good one is tight: units of equal name and place, or those whose pre-activations are nearest on
samples. A unit without a partner becomes a variable of its own; one that moves by next to nothing becomes its partner,
its motion an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from redy.bounds.rounding import GROW, UNIT, down, up
from redy.condensed.form import Condensed, Form, Intervals, Walk, apply_activation, apply_affine, condense
from redy.condensed.search import Rows
from redy.errors import InputError, Unsupported
from redy.model import Activate, Affine, Array, Box, Network

ABSORBED = 2.0**-36
"""A pre-activation that moves by less than this share of its size does not get a difference variable."""

Pairs = Mapping[str, NDArray[np.int64]]
"""Activation of the second network -> per element the number of its partner among all elements of all activations of
the first one, counted in order, or -1."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Two networks in one condensed form.

    Attributes:
        condensed: variables of the first network, then those of the second.
        first, second: forms of all outputs, flattened, one after the other, in the order of the ports.
        intervals: sound pre-activation bounds of the second network.
    """

    condensed: Condensed
    first: Form
    second: Form
    intervals: dict[str, tuple[Array, Array]]

    @property
    def apart(self) -> Form:
        """D_o = y_o - y'_o, one row per output element."""
        return self.first.plus(self.second, -1.0, condensed=self.condensed)

    def lead(self, second: bool, winners: NDArray[np.int64], others: NDArray[np.int64], offset: float = 0.0) -> Form:
        """Rows y_i - y_o + offset, of the second network's outputs if `second`, for pairs (i, o)."""
        form = self.second if second else self.first
        return self.shifted(form[winners].plus(form[others], -1.0, condensed=self.condensed), offset)

    def shifted(self, form: Form, offset: float | Array) -> Form:
        """Rows with a number added."""
        one = np.ones(len(form.b))
        return form.scaled(one, offset * one, condensed=self.condensed)

    def drift(self, winners: NDArray[np.int64], others: NDArray[np.int64], offset: float = 0.0) -> Form:
        """Rows D_i - D_o + offset for pairs (i, o)."""
        apart = self.apart
        return self.shifted(apart[winners].plus(apart[others], -1.0, condensed=self.condensed), offset)


def stack(forms: list[Form], columns: int) -> Form:
    """Rows of several forms under each other."""
    return Form(
        np.concatenate([form.C for form in forms]),
        np.concatenate([form.b for form in forms]),
        np.concatenate([form.padded(columns) for form in forms]),
        np.concatenate([form.e for form in forms]),
    )


def join(first: Network, second: Network, box: Box, known: Intervals, pairs: Pairs | None = None) -> Joint:
    """The condensed form of two networks with the same input and output shapes.

    Args:
        first: usually the original.
        second: usually the smaller one.
        box: the inputs.
        known: sound pre-activation bounds of the first network (may be empty).
        pairs: partners of the second network's units; by default those of equal name and place.

    Raises:
        InputError: inputs or outputs differ in number or shape.
        Unsupported: a node can neither be condensed nor left out.
    """
    check_ports(first, second)
    wanted = tuple(node.name for node in first.nodes if isinstance(node, Affine | Activate))
    walk = condense(first, box, known, wanted=wanted)
    joiner = _Joiner(first, walk, same_place(first, second) if pairs is None else pairs)
    forms = joiner.walk(second)
    columns = len(walk.condensed.variables)
    ours = stack([walk.forms[port.name] for port in first.outputs], columns)
    theirs = stack([forms[port.name] for port in second.outputs], columns)
    return Joint(walk.condensed, ours, theirs, joiner.intervals)


def check_ports(first: Network, second: Network) -> None:
    """Raise InputError unless both networks have the same input shape and outputs of the same sizes."""
    if first.input.shape != second.input.shape:
        raise InputError(f"the networks take inputs of shape {first.input.shape} and {second.input.shape}")
    ours, theirs = ([math.prod(port.shape) for port in net.outputs] for net in (first, second))
    if ours != theirs:
        raise InputError(f"the networks give outputs of sizes {ours} and {theirs}")


def same_place(first: Network, second: Network) -> dict[str, NDArray[np.int64]]:
    """Partners by name and place, for networks whose activations kept their names and shapes."""
    starts = _starts(first)
    sizes = {node.name: math.prod(node.shape) for node in first.activations}
    pairs = {}
    for node in second.activations:
        size = math.prod(node.shape)
        same = sizes.get(node.name) == size
        pairs[node.name] = starts[node.name] + np.arange(size) if same else np.full(size, -1)
    return pairs


def nearest(first: Network, second: Network, points: Array) -> dict[str, NDArray[np.int64]]:
    """Partners whose pre-activations are nearest in the largest difference over points (m, *input shape).

    A unit whose nearest one is not nearer than half its own size stays alone. Among equally near ones, those of the
    activation of the same name come first.
    """
    ours, theirs = first.trace(points), second.trace(points.reshape(-1, *second.input.shape))
    m, starts = len(points), _starts(first)
    pairs = {}
    for node in second.activations:
        other = theirs[node.source].reshape(m, -1)
        found = np.full(other.shape[1], -1)
        homes = sorted(first.activations, key=partial(_other_name, node.name))
        z = np.concatenate([np.zeros((m, 0)), *(ours[home.source].reshape(m, -1) for home in homes)], axis=1)
        numbers = [starts[home.name] + np.arange(math.prod(home.shape)) for home in homes]
        number = np.concatenate([np.zeros(0, dtype=np.int64), *numbers])
        for k in range(other.shape[1] if z.shape[1] else 0):
            distance = np.abs(z - other[:, [k]]).max(axis=0)
            best = int(distance.argmin())
            if distance[best] <= 0.5 * np.abs(other[:, k]).max():
                found[k] = number[best]
        pairs[node.name] = found
    return pairs


def _other_name(name: str, node: Activate) -> bool:
    return node.name != name


def _starts(network: Network) -> dict[str, int]:
    sizes = [math.prod(node.shape) for node in network.activations]
    return {node.name: sum(sizes[:k]) for k, node in enumerate(network.activations)}


@dataclass(slots=True)
class _Partner:
    """The activation of the first network that holds an element's partner, and which element it is."""

    node: Activate
    element: int


@dataclass
class _Joiner:
    """Adds the second network to the condensed form of the first."""

    first: Network
    known: Walk
    pairs: Pairs
    intervals: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.condensed = self.known.condensed
        # An activation of the first network may read the input itself.
        self.known.forms.setdefault(self.first.input.name, self.condensed.input_form())
        self.columns = {(v.node, v.element, v.breakpoint): i for i, v in enumerate(self.condensed.variables)}
        self.starts = _starts(self.first)

    def walk(self, second: Network) -> dict[str, Form]:
        """The forms of the second network's values."""
        forms = {second.input.name: self.condensed.input_form()}
        needed = {port.name for port in second.outputs}
        for node in reversed(second.nodes):
            if node.name in needed:
                needed.update(node.sources)
        for node in second.nodes:
            if node.name not in needed:
                continue
            if isinstance(node, Affine):
                forms[node.name] = apply_affine(self.condensed, node, forms)
            elif isinstance(node, Activate):
                forms[node.name] = self.activate(node, forms[node.source])
            else:
                raise Unsupported(f"{node.name}: {type(node).__name__} nodes cannot be compared")
        return forms

    def activate(self, node: Activate, form: Form) -> Form:
        """The form of an activation: a paired element's ReLUs are its partner's plus difference variables."""
        size = math.prod(node.shape)
        partners = self._partners(node)
        paired = np.array([k for k in range(size) if partners[k] is not None], dtype=np.int64)
        columns = len(self.condensed.variables)
        zeros = Form(np.zeros((size, form.C.shape[1])), np.zeros(size), np.zeros((size, columns)), np.zeros(size))
        for k in paired:
            partner = partners[k]
            assert partner is not None
            row = self.known.forms[partner.node.source][[partner.element]]
            zeros.C[k], zeros.b[k], zeros.e[k] = row.C[0], row.b[0], row.e[0]
            zeros.M[k, : row.M.shape[1]] = row.M[0]
        motion = form.plus(zeros, -1.0, condensed=self.condensed)
        low, high = self._bounds(motion, paired)
        lower, upper = self.condensed.interval(form)
        for k in paired:
            partner = partners[k]
            assert partner is not None
            begin, end = (a.ravel()[partner.element] for a in self.known.intervals[partner.node.name])
            lower[k], upper[k] = max(lower[k], float(down(begin + low[k]))), min(upper[k], float(up(end + high[k])))
        reach = np.maximum(np.abs(lower), np.abs(upper))
        absorbed = [
            int(k)
            for k in paired
            if max(-low[k], high[k]) <= ABSORBED * reach[k] and self._alike(node, int(k), partners[k])
        ]
        self.intervals[node.name] = (lower.reshape(node.shape), upper.reshape(node.shape))
        asked = lower.copy()
        asked[absorbed] = np.inf  # no variable: the row is replaced below
        result, _, _ = apply_activation(
            self.condensed, node, form, {node.name: (asked.reshape(node.shape), upper.reshape(node.shape))}
        )
        self._couple(node, result, columns, motion, (low, high), partners)
        for k in absorbed:
            self._take(node, result, k, partners[k], max(-low[k], high[k]))
        return result

    def _bounds(self, motion: Form, paired: NDArray[np.int64]) -> tuple[Array, Array]:
        """Sound bounds of the rows z' - z on the whole box; infinite where there is no partner."""
        low, high = np.full(len(motion.b), -np.inf), np.full(len(motion.b), np.inf)
        if paired.size:
            low[paired], high[paired] = bounded(self.condensed, motion[paired])
        return low, high

    def _partners(self, node: Activate) -> list[_Partner | None]:
        found: list[_Partner | None] = []
        for number in self.pairs[node.name]:
            home = None
            for candidate in self.first.activations:
                element = int(number) - self.starts[candidate.name]
                if number >= 0 and 0 <= element < math.prod(candidate.shape) and candidate.name in self.known.intervals:
                    home = _Partner(candidate, element)
            found.append(home)
        return found

    def _alike(self, node: Activate, k: int, partner: _Partner | None) -> bool:
        """True if an element and its partner have the same function."""
        if partner is None:
            return False
        ours, theirs = node.function.broadcast_to(node.shape), partner.node.function.broadcast_to(partner.node.shape)
        if ours.pieces != theirs.pieces:
            return False
        return all(
            np.array_equal(
                a.reshape(-1, math.prod(node.shape))[:, k],
                b.reshape(-1, math.prod(partner.node.shape))[:, partner.element],
            )
            for a, b in (
                (ours.breakpoints, theirs.breakpoints),
                (ours.slopes, theirs.slopes),
                (ours.value, theirs.value),
            )
        )

    def _couple(
        self,
        node: Activate,
        result: Form,
        first: int,
        motion: Form,
        ranges: tuple[Array, Array],
        partners: list[_Partner | None],
    ) -> None:
        """Turn the new variables (from column `first` on) that have a partner into difference variables."""
        condensed, (low, high) = self.condensed, ranges
        for i in range(first, len(condensed.variables)):
            variable = condensed.variables[i]
            k, partner = variable.element, partners[variable.element]
            column = None
            if partner is not None and self._same_break(node, k, partner, variable.breakpoint):
                column = self.columns.get((partner.node.name, partner.element, variable.breakpoint))
            if column is None:
                continue
            jump = result.M[k, i]
            condensed.rows[i] = motion[[k]]
            condensed.partner[i] = column
            condensed.lower[i], condensed.upper[i] = float(low[k]), float(high[k])
            condensed.size[i] = max(abs(float(low[k])), abs(float(high[k])))
            result.e[k] = (result.e[k] + 4 * UNIT * abs(jump) * (condensed.size[i] + condensed.size[column])) * GROW
            result.M[k, column] += jump
            # Another breakpoint may have used the column before.
            result.e[k] = (result.e[k] + 2 * UNIT * abs(result.M[k, column]) * condensed.size[column]) * GROW

    def _same_break(self, node: Activate, k: int, partner: _Partner, place: int) -> bool:
        ours, theirs = node.function.broadcast_to(node.shape), partner.node.function.broadcast_to(partner.node.shape)
        if place >= theirs.pieces - 1:
            return False
        return bool(ours.breakpoints[place].ravel()[k] == theirs.breakpoints[place].ravel()[partner.element])

    def _take(self, node: Activate, result: Form, k: int, partner: _Partner | None, motion: float) -> None:
        """Element k is its partner's value up to steepest slope times motion."""
        assert partner is not None
        row = self.known.forms[partner.node.name][[partner.element]]
        result.C[k], result.b[k], result.M[k] = row.C[0], row.b[0], 0.0
        result.M[k, : row.M.shape[1]] = row.M[0]
        steepest = float(
            np.abs(node.function.broadcast_to(node.shape).slopes).reshape(node.function.pieces, -1)[:, k].max()
        )
        result.e[k] = (row.e[0] + steepest * max(motion, 0.0)) * GROW


def bounded(condensed: Condensed, form: Form) -> tuple[Array, Array]:
    """Sound linear bounds (r,), (r,) of rows over the whole box."""
    rows = Rows.of(condensed, form)
    want = np.zeros((1, rows.count), dtype=np.int8)
    want[0, rows.variables :] = 3
    low, high, _, _ = rows.bound(rows.lower, rows.upper, rows.zlo.copy(), rows.zhi.copy(), want)
    begin, end = condensed.interval(form)
    return np.maximum(low[0], begin), np.minimum(high[0], end)
