r"""Linear units are folded into their readers where that makes the network cheaper.

With N the units of a layer that are not linear and A those that are, y_A = a z_A + b, a reader r sees

    W_r y = W_r[:, N] f(z_N) + W_r[:, A] (diag(a) z_A + b),        z_A = sum_s W_s[A, :] x_s + bias_A.

*Skip* writes the second summand as a term W_r[:, A] diag(a) W_s[A, :] on each source x_s. *Keep* leaves z_A as units: a
unit that is stuck in a piece of its own function stays in the layer's activation (exact on the box), any other line
becomes an affine value beside it. If the rows W[A, :] have rank r < |A|, only r of them are kept and the others are
written as combinations of these: a low-rank factor. `redy.rewrite.forms` chooses per layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Array, Dense, Network, Node, PiecewiseLinear, Shape, Term
from redy.rewrite.dead import Kept
from redy.rewrite.dense import dense_affine, flat_function, free_values, lines_of, rebuilt, shared_if_equal
from redy.rewrite.forms import JOINED, Step, cheapest
from redy.rewrite.rank import row_basis

Stuck = Mapping[str, tuple[NDArray[np.bool_], PiecewiseLinear]]
"""Activation -> which units are stuck in a piece of their own function on the box, and those functions (per unit)."""


@dataclass(frozen=True, slots=True)
class Form:
    """A value as an affine map of emitted blocks: offset + sum of blocks[name] @ (value of name)."""

    blocks: dict[str, Array]
    offset: Array

    def rows(self, index: NDArray[np.int64]) -> Form:
        """Some of its elements."""
        return Form({name: block[index] for name, block in self.blocks.items()}, self.offset[index])

    def stacked(self) -> Array:
        """All blocks side by side, (elements, columns)."""
        return np.concatenate([np.zeros((len(self.offset), 0)), *self.blocks.values()], axis=1)


def fold(
    network: Network, stuck: Stuck, keep: frozenset[str] | None = None, joined: int = JOINED
) -> tuple[Network, Kept]:
    """The network with linear units kept or folded layer by layer, and which units stay in each activation.

    Args:
        network: in normal form (`redy.rewrite.fuse`), without constants and dead units.
        stuck: the units that may stay in their activation although they have a line.
        keep: the layers whose linear units are kept; by default the cheapest choice.
        joined: what it costs to read one more value (`redy.rewrite.forms`).
    """
    chosen = cheapest(steps_of(network), joined) if keep is None else keep
    folding = _Folding(network, stuck, chosen)
    for node in network.nodes:
        folding.take(node)
    return rebuilt(network, folding.nodes), folding.kept


def linear_layers(network: Network) -> frozenset[str]:
    """The layers for which `fold` has a choice."""
    return frozenset(step.name for step in steps_of(network) if step.linear)


def steps_of(network: Network) -> list[Step]:
    """The network as `redy.rewrite.forms` counts it."""
    free, paired = free_values(network), _paired(network)
    steps = [Step(network.input.name, atom=math.prod(network.input.shape))]
    for node in network.nodes:
        size = math.prod(node.shape)
        if node.name in paired:
            continue
        source = network.by_name.get(node.sources[0]) if node.sources else None
        if isinstance(node, Activate) and node.name in free and isinstance(source, Affine):
            linear = np.flatnonzero(lines_of(flat_function(node))[0])
            reads = source.sources if source.name in paired else (source.name,)
            rank = _rank(source, linear) if source.name in paired else linear.size
            steps.append(Step(node.name, reads, size - linear.size, int(linear.size), rank))
        elif isinstance(node, Affine) and node.name in free:
            steps.append(Step(node.name, node.sources, 0, size, _rank(node, np.arange(size))))
        elif isinstance(node, Affine) and dense_affine(node):
            steps.append(Step(node.name, node.sources, size))
        else:
            steps.append(Step(node.name, atom=size))
    return steps


def _rank(node: Affine, rows: NDArray[np.int64]) -> int:
    stacked = np.concatenate([np.zeros((node.bias.size, 0)), *(t.operator.matrix() for t in node.terms)], axis=1)
    return int(row_basis(stacked[rows])[0].size)


def _paired(network: Network) -> frozenset[str]:
    """Free affine nodes that only feed one activation: their rows are the activation's pre-activations."""
    free = free_values(network)
    return frozenset(
        node.name
        for node in network.nodes
        if isinstance(node, Affine)
        and node.name in free
        and len(network.readers[node.name]) == 1
        and isinstance(network.readers[node.name][0], Activate)
    )


@dataclass(slots=True)
class _Folding:
    """The walk through the network: what is emitted so far, and the form of every value."""

    network: Network
    stuck: Stuck
    keep: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    kept: Kept = field(default_factory=dict)
    forms: dict[str, Form | None] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    paired: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.free, self.paired = free_values(self.network), _paired(self.network)
        self._there(self.network.input.name, self.network.input.shape)

    def take(self, node: Node) -> None:
        """Emit one node of the network in its chosen form."""
        if isinstance(node, Affine) and (node.name in self.free or dense_affine(node)):
            form = self._composed(node)
            if node.name in self.paired:
                self.forms[node.name] = form
            elif node.name in self.free:
                ones = np.ones(node.bias.size)
                self._linear(node.name, form, ones, 0.0 * ones)
            else:
                self._emit(node.name, form, node.shape)
        elif isinstance(node, Activate) and node.name in self.free:
            self._activation(node)
        else:
            self.nodes.append(node)
            self._there(node.name, node.shape)

    def _there(self, name: str, shape: Shape) -> None:
        self.forms[name], self.shapes[name] = None, shape

    def _emit(self, name: str, form: Form, shape: Shape | None = None) -> None:
        shape = form.offset.shape if shape is None else shape
        terms = [
            Term(source, Dense(block, self.shapes[source], shape))
            for source, block in form.blocks.items()
            if block.any()
        ]
        self.nodes.append(Affine(name, tuple(terms), form.offset.reshape(shape)))
        self._there(name, shape)

    def _form(self, name: str) -> Form:
        form = self.forms[name]
        if form is None:
            size = math.prod(self.shapes[name])
            return Form({name: np.eye(size)}, np.zeros(size))
        return form

    def _composed(self, node: Affine) -> Form:
        """The rows of an affine node over the emitted blocks."""
        blocks: dict[str, Array] = {}
        offset = node.bias.ravel()
        for term in node.terms:
            weight, form = term.operator.matrix(), self.forms[term.source]
            parts = {term.source: weight} if form is None else {n: weight @ b for n, b in form.blocks.items()}
            offset = offset if form is None else offset + weight @ form.offset
            for name, part in parts.items():
                blocks[name] = blocks[name] + part if name in blocks else part
        return Form(blocks, offset)

    def _activation(self, node: Activate) -> None:
        rows, function = self._form(node.source), flat_function(node)
        is_line, slope, intercept = lines_of(function)
        linear, units = np.flatnonzero(is_line), np.flatnonzero(~is_line)
        basis, combine = np.zeros(0, dtype=np.int64), np.zeros((linear.size, 0))
        if node.name in self.keep and linear.size:
            chosen, combine = row_basis(rows.rows(linear).stacked())
            basis = linear[chosen]
            may_stay, own = self.stuck.get(node.name, (np.zeros(is_line.size, dtype=bool), function))
            staying = basis[may_stay[basis] & (slope[basis] != 0)]
            units, function = np.union1d(units, staying), _with(function, own, staying)
        form = Form({}, np.zeros(is_line.size))
        self._units(node, rows, units, function, form)
        others = np.setdiff1d(linear, units)
        if others.size:
            z = rows.rows(others)
            if basis.size:
                values = self._basis_values(node, rows, basis, units, (slope, intercept))
                z = _combined(rows, linear, basis, combine, values).rows(np.searchsorted(linear, others))
            _add(form, others, _lines(z, slope[others], intercept[others]))
        self.forms[node.name] = form

    def _units(
        self, node: Activate, rows: Form, units: NDArray[np.int64], function: PiecewiseLinear, form: Form
    ) -> None:
        """Emit the units that stay in the activation; their rows of `form` read the new activation."""
        if not units.size:
            return
        # A pre-activation that others read too is a value of its own; the activation then selects from it.
        source = node.source if node.source in self.paired else f"{node.name}_selected"
        self._emit(source, rows.rows(units))
        self.nodes.append(Activate(node.name, source, shared_if_equal(function.restricted(units)), (units.size,)))
        self._there(node.name, (units.size,))
        self.kept[node.name] = units
        form.blocks[node.name] = np.eye(form.offset.size)[:, units]

    def _basis_values(
        self, node: Activate, rows: Form, basis: NDArray[np.int64], units: NDArray[np.int64], lines: tuple[Array, Array]
    ) -> Form:
        """z of the basis rows: from units that stayed, z = (y - b) / a, or from an affine value beside them."""
        slope, intercept = lines
        values = Form({}, np.zeros(basis.size))
        stayed = np.isin(basis, units)
        inside, beside = np.flatnonzero(stayed), basis[~stayed]
        if inside.size:
            block = np.zeros((basis.size, units.size))
            block[inside, np.searchsorted(units, basis[inside])] = 1.0 / slope[basis[inside]]
            values.blocks[node.name] = block
            values.offset[inside] = -intercept[basis[inside]] / slope[basis[inside]]
        if beside.size:
            name = f"{node.name}_linear"
            self._emit(name, rows.rows(beside))
            values.blocks[name] = (basis[:, None] == beside).astype(np.float64)
        return values

    def _linear(self, name: str, form: Form, slope: Array, intercept: Array) -> None:
        """A layer of linear units only: emitted (its row basis) or folded."""
        if name not in self.keep:
            self.forms[name] = _lines(form, slope, intercept)
            return
        basis, combine = row_basis(form.stacked())
        if basis.size == len(form.offset):
            self._emit(name, form)
            return
        self._emit(name, form.rows(basis))
        rest = form.offset - combine @ form.offset[basis]
        self.forms[name] = Form({name: combine}, rest)


def _with(function: PiecewiseLinear, own: PiecewiseLinear, units: NDArray[np.int64]) -> PiecewiseLinear:
    """The functions with those of `units` taken from `own`."""
    breakpoints, slopes, value = function.breakpoints.copy(), function.slopes.copy(), function.value.copy()
    breakpoints[:, units], slopes[:, units], value[units] = (
        own.breakpoints[:, units],
        own.slopes[:, units],
        own.value[units],
    )
    return PiecewiseLinear(breakpoints, slopes, value)


def _lines(form: Form, slope: Array, intercept: Array) -> Form:
    return Form({n: slope[:, None] * block for n, block in form.blocks.items()}, slope * form.offset + intercept)


def _add(form: Form, index: NDArray[np.int64], part: Form) -> None:
    """Put the rows of `part` at `index` of `form`."""
    for name, block in part.blocks.items():
        if name not in form.blocks:
            form.blocks[name] = np.zeros((len(form.offset), block.shape[1]))
        form.blocks[name][index] += block
    form.offset[index] += part.offset


def _combined(rows: Form, linear: NDArray[np.int64], basis: NDArray[np.int64], combine: Array, values: Form) -> Form:
    """z of all linear units from z of the basis rows: X z_basis, plus what their offsets differ by."""
    rest = rows.offset[linear] - combine @ rows.offset[basis]
    return Form({name: combine @ block for name, block in values.blocks.items()}, combine @ values.offset + rest)
