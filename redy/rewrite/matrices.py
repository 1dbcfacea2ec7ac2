r"""Structured operators of which few results and few elements are left become matrices of just these.

A convolution or a matrix at every position computes all positions with few weights. Where constants and dead units
leave R results and C elements of it, a matrix has R C weights: with R results on the others' places,

    z = b + E (W[R, C] s),      E puts the R results where they belong,

which is made where it is not costlier. Behind it values lose elements one by one.
"""

from __future__ import annotations

import math

import numpy as np

from redy.model import Affine, Array, Dense, Gather, Network, Node, Operator, Scale, Term
from redy.rewrite.columns import Mask
from redy.rewrite.constants import Constants
from redy.rewrite.dense import rebuilt, unused

LARGEST = 1 << 22
"""Numbers in one matrix, at most."""
CHUNK = 1 << 24
"""Numbers of linear forms held at once while a matrix is made."""


def as_matrices(network: Network, known: dict[str, Constants], needed: dict[str, Mask]) -> Network:
    """The network with matrices in place of structured operators, where these are not costlier.

    Args:
        network: constants have been moved (`redy.rewrite.constants`).
        known: its constant elements.
        needed: which elements of every value some output depends on (flattened).
    """
    nodes: list[Node] = []
    taken = set(network.shapes)
    for node in network.nodes:
        found = _as_matrix(node, known, needed, taken) if isinstance(node, Affine) else None
        nodes.extend((node,) if found is None else found)
    return rebuilt(network, nodes)


def _as_matrix(
    node: Affine, known: dict[str, Constants], needed: dict[str, Mask], taken: set[str]
) -> tuple[Affine, Affine] | None:
    operators = [term.operator for term in node.terms]
    if not operators or all(isinstance(operator, Dense | Gather | Scale) for operator in operators):
        return None
    if any(known[term.source].fixed.all() for term in node.terms):
        return None
    moving = ~known[node.name].fixed
    rows = np.flatnonzero(moving & needed[node.name])
    columns = [np.flatnonzero(~known[term.source].fixed) for term in node.terms]
    cost = 2 * sum(rows.size * c.size for c in columns)
    if not rows.size or cost > sum(operator.macs + operator.parameters for operator in operators):
        return None
    if max(rows.size * math.prod(operator.in_shape) for operator in operators) > LARGEST:
        return None
    terms: list[Term] = []
    bias = node.bias.copy()
    for term in node.terms:
        weight = rows_of(term.operator, rows)
        fixed = known[term.source]
        bias.reshape(-1)[rows] += weight @ fixed.values
        terms.append(Term(term.source, Dense(np.where(fixed.fixed, 0.0, weight), term.operator.in_shape, (rows.size,))))
    # What does not move is computed here, where nothing is left to compute it.
    still = np.flatnonzero(~moving)
    bias.reshape(-1)[still] = known[node.name].values[still]
    inner = Affine(unused(f"{node.name}.moving", taken), tuple(terms), bias.ravel()[rows])
    place = np.full(node.bias.size, -1)
    place[rows] = np.arange(rows.size)
    outer = np.where(place.reshape(node.shape) >= 0, 0.0, bias)
    return inner, Affine(node.name, (Term(inner.name, Gather(place.reshape(node.shape), (rows.size,))),), outer)


def rows_of(operator: Operator, rows: np.ndarray) -> Array:
    """Some rows (flattened places of the result) of the operator as a matrix, (rows, size of the source)."""
    size, width = math.prod(operator.out_shape), math.prod(operator.in_shape)
    if isinstance(operator, Dense):
        return np.asarray(operator.weight[rows])
    result = np.empty((len(rows), width))
    step = max(1, CHUNK // max(size, width))
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        forms = np.zeros((len(part), size))
        forms[np.arange(len(part)), part] = 1.0
        result[begin : begin + step] = operator.adjoint(forms.reshape(-1, *operator.out_shape)).reshape(
            len(part), width
        )
    return result
