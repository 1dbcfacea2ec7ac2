"""The last rewrite: weights and biases are rounded to the type in which they are written.

    W := fl(W),  b := fl(b)      (round to nearest in float32, float16 or float64)

What it changes in the outputs is part of what is proved about the two files (`redy.reduction.compare`).
"""

from __future__ import annotations

import numpy as np

from redy.model import Affine, Array, Dense, Network, Node, Operator, Scale, Term
from redy.rewrite.dense import Refusal, dense_affine, rebuilt


def round_weights(network: Network, dtype: str) -> Network | Refusal:
    """The network with the weights of dense nodes as numbers of `dtype` ("float32", ...), kept in float64.

    Convolutions are left alone: no rewrite of this package changes them. Refused if a weight overflows.
    """
    try:
        np.dtype(dtype)
    except TypeError:
        return Refusal(f"numpy has no {dtype} to which weights could be rounded")
    nodes: list[Node] = []
    for node in network.nodes:
        if not isinstance(node, Affine) or not dense_affine(node):
            nodes.append(node)
            continue
        terms = tuple(Term(term.source, _rounded(term.operator, dtype)) for term in node.terms)
        bias = _cast(node.bias, dtype)
        if not np.isfinite(bias).all() or not all(_finite(term.operator) for term in terms):
            return Refusal(f"{node.name}: a folded weight is too large for {dtype}")
        nodes.append(Affine(node.name, terms, bias))
    return rebuilt(network, nodes)


def _rounded(operator: Operator, dtype: str) -> Operator:
    if isinstance(operator, Dense):
        return Dense(_cast(operator.weight, dtype), operator.in_shape, operator.out_shape)
    if isinstance(operator, Scale):
        return Scale(_cast(operator.factor, dtype))
    return operator


def _cast(values: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.dtype(dtype)).astype(np.float64)


def _finite(operator: Operator) -> bool:
    if isinstance(operator, Dense):
        return bool(np.isfinite(operator.weight).all())
    return not isinstance(operator, Scale) or bool(np.isfinite(operator.factor).all())
