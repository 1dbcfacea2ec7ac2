"""Matrices read only those elements of a value for which they have weights.

Where a dense layer stands behind a convolution, a pooling or the input, elements of which it needs nothing cannot be
dropped there. A selection of the others costs no arithmetic, and the columns of zeros go.
"""

from __future__ import annotations

import math

import numpy as np

from redy.model import Affine, Dense, Gather, Network, Node, Term
from redy.rewrite.dense import rebuilt, unused

INDEX = 2
"""What storing one place of a selection costs, in weights: eight bytes against four."""


def narrow(network: Network) -> Network:
    """The network with selections in front of matrices that have columns of zeros."""
    nodes: list[Node] = []
    taken, made = set(network.shapes), dict[tuple[str, bytes], str]()
    for node in network.nodes:
        terms: list[Term] = []
        for term in node.terms if isinstance(node, Affine) else ():
            columns = _columns(term)
            if columns is None:
                terms.append(term)
                continue
            operator = term.operator
            name = made.get((term.source, columns.tobytes()))
            if name is None:
                name = unused(f"{term.source}.needed", taken)
                made[term.source, columns.tobytes()] = name
                chosen = Term(term.source, Gather(columns, operator.in_shape))
                nodes.append(Affine(name, (chosen,), np.zeros(columns.size)))
            terms.append(Term(name, Dense(operator.matrix()[:, columns], (columns.size,), operator.out_shape)))
        changed = isinstance(node, Affine) and any(a is not b for a, b in zip(terms, node.terms, strict=True))
        nodes.append(Affine(node.name, tuple(terms), node.bias) if changed and isinstance(node, Affine) else node)
    return rebuilt(network, nodes)


def _columns(term: Term) -> np.ndarray | None:
    """The columns that are not zero, where leaving out the others pays."""
    if not isinstance(term.operator, Dense):
        return None
    weight = term.operator.weight
    columns = np.flatnonzero((weight != 0).any(axis=0))
    size = math.prod(term.operator.in_shape)
    if not columns.size or (size - columns.size) * weight.shape[0] <= INDEX * columns.size:
        return None
    return columns
