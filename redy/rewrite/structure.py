"""Matrices that only select or scale are written as what they are.

A matrix whose every row holds at most a single 1 and zeros is a `Gather` (no multiplications, no weights); a diagonal
is a `Scale`. Folding makes such matrices where a residual connection or an output passes a unit on unchanged.
"""

from __future__ import annotations

import numpy as np

from redy.model import Affine, Dense, Gather, Network, Node, Operator, Scale, Term
from redy.rewrite.dense import rebuilt


def name_structure(network: Network) -> Network:
    """The network with selecting and diagonal matrices as `Gather` and `Scale` operators."""
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine):
            terms = tuple(Term(term.source, _structured(term.operator)) for term in node.terms)
            same = all(a.operator is b.operator for a, b in zip(terms, node.terms, strict=True))
            nodes.append(node if same else Affine(node.name, terms, node.bias))
        else:
            nodes.append(node)
    return rebuilt(network, nodes)


def _structured(operator: Operator) -> Operator:
    if not isinstance(operator, Dense) or operator.weight.size <= 1:
        return operator
    weight = operator.weight
    filled = weight != 0
    if (filled.sum(axis=1) > 1).any():
        return operator
    diagonal = weight.shape[0] == weight.shape[1] and operator.in_shape == operator.out_shape
    if diagonal and not filled[~np.eye(len(weight), dtype=bool)].any():
        return Scale(np.diagonal(weight).reshape(operator.out_shape))
    if not (weight[filled] == 1).all():
        return operator
    index = np.where(filled.any(axis=1), filled.argmax(axis=1), -1)
    return Gather(index.reshape(operator.out_shape), operator.in_shape)
