r"""Constants flow forward through every operator, into biases.

An element is constant if it is an input that the box fixes, if its activation is a line of slope 0, or if nothing that
moves reaches it: y_j = f(c_j), for any function f. For every affine reader z = b + sum_s W_s s,

    b := b + sum_s sum_{j constant} W_s[:, j] c_j,     W_s[:, j] := 0,

where the operator allows that (`redy.rewrite.columns`). A product with a constant factor is a diagonal matrix, a
quotient by a constant one as well. It is the real function at the real constant, never f(0). What became unread is
dropped by `redy.rewrite.dead`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from redy.model import (
    Activate,
    Affine,
    Array,
    Box,
    Dense,
    Elementwise,
    Foreign,
    Gather,
    MaxPool,
    Network,
    Node,
    Product,
    Scale,
    Shape,
    Term,
    identity,
)
from redy.rewrite.columns import Mask, reached, removable, without
from redy.rewrite.dense import flat_function, lines_of, rebuilt, unused


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """Which elements of a value are constant (flattened), and their values; 0 for the others."""

    fixed: Mask
    values: Array

    @classmethod
    def of(cls, fixed: Mask, values: Array) -> Self:
        """Keeps the values of fixed elements only."""
        fixed = np.asarray(fixed).ravel() & np.isfinite(values).ravel()
        return cls(fixed, np.where(fixed, values.ravel(), 0.0))


def propagate_constants(network: Network, box: Box | None = None) -> Network:
    """The network with constant elements moved into the biases of affine readers, through all nodes at once.

    Args:
        network: any network.
        box: the inputs; elements of the input that it fixes are constant.
    """
    return constants_of(network, box)[0]


def constants_of(network: Network, box: Box | None = None) -> tuple[Network, dict[str, Constants]]:
    """As `propagate_constants`; also the constant elements of every value, by name."""
    kept = {port.name for port in network.outputs}
    # What a carried node computes may be whole numbers, which another carried node expects.
    kept |= {source for node in network.nodes if isinstance(node, Foreign) for source in node.sources}
    walk = _Walk(network.shapes, kept, {})
    free = np.zeros(network.input.shape, dtype=bool) if box is None else box.lower == box.upper
    walk.known[network.input.name] = Constants.of(free, np.zeros(network.input.shape) if box is None else box.lower)
    nodes = [walk.through(node) for node in network.nodes]
    return rebuilt(network, nodes), walk.known


@dataclass(slots=True)
class _Walk:
    """What is known of the values that were passed."""

    shapes: dict[str, Shape]
    kept: set[str]
    known: dict[str, Constants]

    def through(self, node: Node) -> Node:
        """The node with constants moved into it, as an affine one where that makes it affine."""
        current = self._scaling(node) if isinstance(node, Product | Foreign) else node
        if isinstance(current, Affine):
            current, self.known[node.name] = self._affine(current)
            return current
        with np.errstate(all="ignore"):
            found = self._carried(current)
        self.known[node.name] = found
        if found.fixed.all() and node.name not in self.kept:
            return Affine(node.name, (), found.values.reshape(node.shape))
        return current

    def _affine(self, node: Affine) -> tuple[Affine, Constants]:
        bias, value = node.bias, node.bias
        moving = np.zeros(node.bias.size, dtype=bool)
        terms: list[Term] = []
        for term in node.terms:
            known, operator = self.known[term.source], term.operator
            moving |= reached(operator, ~known.fixed)
            if not known.fixed.any():
                terms.append(term)
                continue
            gone = removable(operator, known.fixed, known.values)
            value = value + self._applied(term, known.values)
            bias = bias + self._applied(term, np.where(gone, known.values, 0.0))
            rest = without(operator, gone)
            if rest is not None:
                terms.append(term if rest is operator else Term(term.source, rest))
        found = Constants.of(~moving, value)
        if len(terms) == len(node.terms) and all(new is old for new, old in zip(terms, node.terms, strict=True)):
            return node, found
        return Affine(node.name, tuple(terms), bias), found

    def _applied(self, term: Term, values: Array) -> Array:
        return np.asarray(term.operator.apply(values.reshape(1, *term.operator.in_shape))[0])

    def _carried(self, node: Node) -> Constants:
        known = [self.known[source] for source in node.sources]
        values = {s: k.values.reshape(1, *self.shapes[s]) for s, k in zip(node.sources, known, strict=True)}
        if isinstance(node, Activate):
            is_line, slope, intercept = lines_of(flat_function(node))
            flat = is_line & (slope == 0)
            # A line that was proved for the box stays: it may differ by rounding from the function at the constant.
            return Constants.of(flat | known[0].fixed, np.where(flat, intercept, node.evaluate(values).ravel()))
        if isinstance(node, Elementwise):
            return Constants.of(known[0].fixed, node.evaluate(values))
        if isinstance(node, MaxPool):
            windows = np.append(known[0].fixed, True)[node.index]
            return Constants.of(np.asarray(windows.all(axis=-1)), node.evaluate(values))
        if isinstance(node, Product):
            return Constants.of(known[0].fixed & known[1].fixed, node.evaluate(values))
        size = math.prod(node.shape)
        assert isinstance(node, Foreign)
        if ":" not in node.operator and node.sources and all(k.fixed.all() for k in known):
            return Constants.of(np.ones(size, dtype=bool), node.evaluate(values).astype(np.float64))
        return Constants(np.zeros(size, dtype=bool), np.zeros(size))

    def _scaling(self, node: Product | Foreign) -> Affine | Product | Foreign:
        """A product or quotient with a constant in every place as an affine node."""
        if isinstance(node, Product):
            return self._product(node)
        if node.operator != "Div" or len(set(node.sources)) != 2:
            return node
        above, below = node.sources
        divisor = self.known[below]
        if not (divisor.fixed & (divisor.values != 0)).all():
            return node
        each = np.broadcast_to(divisor.values.reshape(self.shapes[below]), node.shape)
        term = self._scaled(above, 1.0 / each)
        return node if term is None else Affine(node.name, (term,), np.zeros(node.shape))

    def _product(self, node: Product) -> Affine | Product:
        left, right = self.known[node.left], self.known[node.right]
        if not (left.fixed | right.fixed).all() or (left.fixed & right.fixed).all():
            return node
        bias = np.where(left.fixed & right.fixed, left.values * right.values, 0.0)
        sides = ((node.left, ~left.fixed, right.values), (node.right, ~right.fixed, left.values))
        terms = []
        for source, places, factor in sides:
            if places.any():
                terms.append(self._scaled(source, np.where(places, factor, 0.0).reshape(node.shape)))
        found = tuple(term for term in terms if term is not None)
        return Affine(node.name, found, bias.reshape(node.shape)) if len(found) == len(terms) else node

    def _scaled(self, source: str, factor: Array) -> Term | None:
        shape = self.shapes[source]
        if shape != factor.shape:
            return None
        return Term(source, identity(shape) if (factor == 1).all() else Scale(factor))


def varying(network: Network, box: Box) -> Network:
    """The network whose matrices and selections of the input read only those of its elements that the box leaves open.

    Args:
        network: constants have been moved (`constants_of`).
        box: the inputs.
    """
    source = network.input.name
    open_ = np.flatnonzero(box.lower.ravel() < box.upper.ravel())
    name = unused(f"{source}.varying", set(network.shapes))
    if open_.size in {0, box.size}:
        return network
    place = np.full(box.size + 1, -1)
    place[open_] = np.arange(open_.size)
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine) and source in node.sources and not _selects(node, place):
            terms = (_on_varying(term, name, open_, place) if term.source == source else term for term in node.terms)
            nodes.append(Affine(node.name, tuple(terms), node.bias))
        else:
            nodes.append(node)
    if not any(name in node.sources for node in nodes):
        return network
    return rebuilt(network, [Affine(name, (Term(source, Gather(open_, box.shape)),), np.zeros(open_.size)), *nodes])


def _selects(node: Affine, place: NDArray[np.int64]) -> bool:
    """Whether the node is a selection of varying inputs itself."""
    operators = [term.operator for term in node.terms]
    return len(operators) == 1 and all(isinstance(o, Gather) and (place[o.index] >= 0).all() for o in operators)


def _on_varying(term: Term, name: str, open_: NDArray[np.int64], place: NDArray[np.int64]) -> Term:
    """The term on the varying elements of the input; as it is where its operator cannot read them alone."""
    operator = term.operator
    if isinstance(operator, Gather):
        return Term(name, Gather(place[operator.index], (open_.size,)))
    if isinstance(operator, Dense):
        return Term(name, Dense(operator.weight[:, open_], (open_.size,), operator.out_shape))
    return term
