r"""Constants flow forward into biases.

A unit is constant if its activation is a line of slope 0, or if nothing reaches it (its row of weights is zero, so its
pre-activation is its bias): y_j = f(b_j) = c_j. For every affine reader z = b + W y,

    b := b + sum_{j constant} W[:, j] c_j,     W[:, j] := 0.

It is the real function at the real constant, never f(0). Readers of another kind keep reading the unit. What became
unread is dropped by `redy.rewrite.dead`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Array, Dense, Network, Node
from redy.rewrite.dense import flat_function, lines_of, reading, rebuilt

Constant = tuple[NDArray[np.bool_], Array]
"""Which elements of a value are constant, and the values they have (flattened)."""


def propagate_constants(network: Network) -> Network:
    """The network with constant elements moved into the biases of dense readers, through all layers at once."""
    nodes: list[Node] = []
    known: dict[str, Constant] = {}
    for node in network.nodes:
        current: Node = node
        if isinstance(node, Affine) and all(isinstance(term.operator, Dense) for term in node.terms):
            current = _absorbed(node, known)
            known[node.name] = _constant_rows(current)
        elif isinstance(node, Activate):
            known[node.name] = _constant_units(node, known.get(node.source))
        nodes.append(current)
    return rebuilt(network, nodes)


def _absorbed(node: Affine, known: dict[str, Constant]) -> Affine:
    weights: dict[str, Array] = {}
    bias = node.bias
    for term in node.terms:
        weight = term.operator.matrix()
        if term.source in known and known[term.source][0].any():
            mask, values = known[term.source]
            bias = bias + (weight[:, mask] @ values[mask]).reshape(node.shape)
            weight = np.where(mask, 0.0, weight)
        weights[term.source] = weight
    return reading(node, weights, bias)


def _constant_rows(node: Affine) -> Constant:
    moving = np.zeros(node.bias.size, dtype=bool)
    for term in node.terms:
        moving |= term.operator.matrix().any(axis=1)
    return ~moving, node.bias.ravel()


def _constant_units(node: Activate, source: Constant | None) -> Constant:
    function = flat_function(node)
    is_line, slope, intercept = lines_of(function)
    constant = is_line & (slope == 0)
    values = intercept.copy()
    if source is not None:
        fixed, at = source
        # A line that was proved for the box stays: it may differ by rounding from the function at the bias.
        values = np.where(fixed & ~constant, function(at[None])[0], values)
        constant = constant | fixed
    return constant, values
