r"""Affine nodes that feed affine nodes become one node, where that is not costlier.

    z = c + V (b + sum_s W_s x_s)  =  (c + V b) + sum_s (V W_s) x_s

V W_s is the adjoint of W_s applied to the rows of V, so a flatten, a slice or a normalisation in front of a dense layer
disappears into its matrix. Afterwards every dense affine node is a vector with one matrix per source: the normal form
in which the other rewrites of this package read a network.
"""

from __future__ import annotations

import math

import numpy as np

from redy.model import Activate, Affine, Array, Dense, Gather, Network, Node, Scale, Shape, Term
from redy.rewrite.dense import dense_affine, flat_function, free_values, merged_terms, rebuilt
from redy.rewrite.matrices import rows_of


def fuse(network: Network) -> Network:
    """The normal form of the network: affine chains fused, dense nodes as vectors with one matrix per source."""
    return _flattened(_chained(_as_matrices(network)))


def _as_matrices(network: Network) -> Network:
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine) and any(isinstance(t.operator, Dense) for t in node.terms) and dense_affine(node):
            nodes.append(Affine(node.name, merged_terms(node.terms, node.shape), node.bias))
        else:
            nodes.append(node)
    return rebuilt(network, nodes)


def _chained(network: Network) -> Network:
    """Fuse from the back, so that what reads is already a matrix when its source is composed with it."""
    for node in reversed(network.nodes):
        if isinstance(node, Affine):
            network = _into_readers(network, node)
    return network


def _into_readers(network: Network, inner: Affine) -> Network:
    readers = network.readers[inner.name]
    if not readers or inner.name in {port.name for port in network.outputs}:
        return network
    fused: dict[str, Affine] = {}
    before = _cost(inner)
    for reader in readers:
        if not isinstance(reader, Affine) or not _composable(inner, reader):
            return network
        fused[reader.name] = _composed(inner, reader)
        before += _cost(reader)
    if sum(_cost(node) for node in fused.values()) > before:
        return network
    return rebuilt(network, [fused.get(n.name, n) for n in network.nodes if n.name != inner.name])


def _composable(inner: Affine, reader: Affine) -> bool:
    """Composing stays within a matrix that fits in memory and, where the reader is not a matrix, is not costlier."""
    rows = math.prod(reader.shape)
    columns = [math.prod(term.operator.in_shape) for term in inner.terms]
    if any(rows * size > 1 << 24 for size in columns):
        return False
    uses = [term.operator for term in reader.terms if term.source == inner.name]
    if all(isinstance(operator, Dense) for operator in uses):
        return True
    moves = (isinstance(term.operator, Gather | Scale) for term in (*reader.terms, *inner.terms))
    now = _cost(inner) + sum(operator.macs + operator.parameters for operator in uses)
    return not all(moves) and 2 * rows * sum(columns) <= now


def _composed(inner: Affine, reader: Affine) -> Affine:
    terms: list[Term] = []
    bias: Array = reader.bias
    for term in reader.terms:
        if term.source != inner.name:
            terms.append(term)
            continue
        rows = rows_of(term.operator, np.arange(math.prod(reader.shape)))
        bias = bias + (rows @ inner.bias.ravel()).reshape(reader.shape)
        forms = rows.reshape(len(rows), *inner.shape)
        for source in inner.terms:
            weight = source.operator.adjoint(forms).reshape(len(rows), -1)
            terms.append(Term(source.source, Dense(weight, source.operator.in_shape, reader.shape)))
    dense = [term for term in terms if isinstance(term.operator, Dense)]
    others = [term for term in terms if not isinstance(term.operator, Dense)]
    return Affine(reader.name, (*merged_terms(dense, reader.shape), *others), bias)


def _cost(node: Affine) -> int:
    return sum(term.operator.macs + term.operator.parameters for term in node.terms)


def _flattened(network: Network) -> Network:
    """Free values become vectors (n,), their matrices one per source."""
    free = free_values(network)
    # An activation has the shape of its source, which stays where another reads that.
    held = {node.name for node in network.activations if node.source not in free}
    free = frozenset(name for name in free if name not in held)
    shapes: dict[str, Shape] = {
        name: (math.prod(shape),) if name in free else shape for name, shape in network.shapes.items()
    }
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine) and dense_affine(node):
            reads_free = any(term.source in free for term in node.terms)
            if node.name in free or reads_free or any(isinstance(t.operator, Dense) for t in node.terms):
                nodes.append(_with_shapes(node, shapes))
                continue
        if isinstance(node, Activate) and node.name in free:
            shared = node.function.shape == ()
            function = node.function if shared else flat_function(node)
            nodes.append(Activate(node.name, node.source, function, shapes[node.name]))
            continue
        nodes.append(node)
    return rebuilt(network, nodes)


def _with_shapes(node: Affine, shapes: dict[str, Shape]) -> Affine:
    shape = shapes[node.name]
    terms = [
        Term(t.source, Dense(np.asarray(t.operator.matrix()), shapes[t.source], shape))
        for t in merged_terms(node.terms, node.shape)
    ]
    return Affine(node.name, tuple(terms), node.bias.reshape(shape))
