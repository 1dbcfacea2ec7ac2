"""The dense part of a network, on which the rewrites of this package work, and what a rewrite that declines says.

A value is *free* if redy may choose its shape and drop its elements: an `Affine` whose terms are full matrices (or
gathers and scales between vectors), or an `Activate` on such a node, that is not an output and is read by free nodes or
outputs only. Everything else (the input, outputs, convolutions, whatever they read) keeps its shape and elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.model import (
    Activate,
    Affine,
    Array,
    Dense,
    Gather,
    Network,
    Node,
    Operator,
    PiecewiseLinear,
    Positionwise,
    Scale,
    Shape,
    Term,
)

LARGEST_MATRIX = 1 << 22
"""A gather or scale is written out as a matrix only up to this number of elements."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rewrite that was not made, with its reason."""

    reason: str


def is_vector(shape: Shape) -> bool:
    """True for (n,) and for (1, ..., 1, n): the units are counted along one axis."""
    return len(shape) > 0 and math.prod(shape[:-1]) == 1


def can_be_matrix(operator: Operator) -> bool:
    """True if the operator is a matrix, or is cheap to write as one and lies between vectors."""
    if isinstance(operator, Dense):
        return True
    if isinstance(operator, Positionwise):
        return is_vector(operator.in_shape)
    small = math.prod(operator.in_shape) * math.prod(operator.out_shape) <= LARGEST_MATRIX
    return isinstance(operator, Gather | Scale) and is_vector(operator.out_shape) and small


def dense_affine(node: Node) -> bool:
    """True for an affine node made of matrices only, whose units lie along one axis."""
    return isinstance(node, Affine) and is_vector(node.shape) and all(can_be_matrix(t.operator) for t in node.terms)


def free_values(network: Network) -> frozenset[str]:
    """The names of the free values: their elements may be dropped."""
    pinned = {port.name for port in network.outputs}
    dense = {node.name for node in network.nodes if dense_affine(node)}
    free: set[str] = set()
    for node in network.nodes:
        affine = node.name in dense
        activation = isinstance(node, Activate) and node.source in dense
        readers = network.readers[node.name]
        if not (affine or activation) or node.name in pinned:
            continue
        if all(reader.name in dense or (affine and isinstance(reader, Activate)) for reader in readers):
            free.add(node.name)
    # A pre-activation is free only with its activation: otherwise the activation needs all of it, in its shape.
    return frozenset(
        name
        for name in free
        if all(not isinstance(reader, Activate) or reader.name in free for reader in network.readers[name])
    )


def merged_terms(terms: Sequence[Term], shape: Shape) -> tuple[Term, ...]:
    """One `Dense` term per source, matrices of the same source added up."""
    weights: dict[str, Array] = {}
    shapes: dict[str, Shape] = {}
    for term in terms:
        weight = term.operator.matrix()
        weights[term.source] = weights[term.source] + weight if term.source in weights else weight
        shapes[term.source] = term.operator.in_shape
    return tuple(Term(source, Dense(weight, shapes[source], shape)) for source, weight in weights.items())


def flat_function(node: Activate) -> PiecewiseLinear:
    """The activation's functions, one written out for each of its units, along one axis."""
    function = node.function.broadcast_to(node.shape)
    return PiecewiseLinear(
        function.breakpoints.reshape(function.pieces - 1, -1),
        function.slopes.reshape(function.pieces, -1),
        function.value.reshape(-1),
    )


def lines_of(function: PiecewiseLinear) -> tuple[NDArray[np.bool_], Array, Array]:
    """For functions written out per unit: which are lines, their slopes, and their intercepts."""
    is_line = (function.slopes == function.slopes[0]).all(axis=0)
    slope = function.slopes[0]
    return np.asarray(is_line), slope, function.value - slope * function.breakpoints[0]


def shared_if_equal(function: PiecewiseLinear) -> PiecewiseLinear:
    """One function for all units where the functions written out per unit are the same."""
    if function.shape == () or not function.value.size:
        return function
    first = PiecewiseLinear(function.breakpoints[:, 0], function.slopes[:, 0], function.value[0])
    same = all(
        (whole == whole[..., :1]).all() for whole in (function.breakpoints, function.slopes, function.value[None])
    )
    return first if same else function


def unused(name: str, taken: set[str]) -> str:
    """A name close to `name` that is not taken; it is taken then."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}.{count}"
    taken.add(candidate)
    return candidate


def rebuilt(network: Network, nodes: Sequence[Node]) -> Network:
    """The same network with other nodes."""
    return replace(network, nodes=tuple(nodes))


def reading(node: Affine, weights: dict[str, Array], bias: Array) -> Affine:
    """The affine node with the matrices in `weights` (source -> matrix); terms that became zero are left out."""
    shapes = {term.source: term.operator.in_shape for term in node.terms}
    terms = [Term(s, Dense(w, shapes[s], node.shape)) for s, w in weights.items() if w.any()]
    return Affine(node.name, tuple(terms), bias)
