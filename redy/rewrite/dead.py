"""Units that no output needs are dropped, from the back to the front.

An element of a free value is needed if a needed row of some reader has a non-zero weight for it. What is left of every
matrix is W[needed rows, needed columns]. Elements of values that are not free (outputs, convolutions) are all needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from redy.model import Activate, Affine, Dense, Network, Node, Shape, Term
from redy.rewrite.dense import free_values, rebuilt

Kept = dict[str, NDArray[np.int64]]
"""Value name -> the indices (flattened) of the elements that stay, ascending."""


def drop_dead(network: Network) -> tuple[Network, Kept]:
    """The network without the units and nodes that no output needs, and what stayed of every remaining value."""
    needed = _needed(network)
    kept = {name: np.flatnonzero(mask) for name, mask in needed.items() if mask.any()}
    nodes: list[Node] = []
    for node in network.nodes:
        if node.name not in kept:
            continue
        free = kept[node.name].size < math.prod(node.shape)
        shape: Shape = (kept[node.name].size,) if free else node.shape
        if isinstance(node, Affine) and all(isinstance(t.operator, Dense) for t in node.terms):
            nodes.append(_restricted(node, shape, kept, network))
        elif isinstance(node, Activate) and free:
            nodes.append(Activate(node.name, node.source, node.function.restricted(kept[node.name]), shape))
        else:
            nodes.append(node)
    return rebuilt(network, nodes), kept


def _restricted(node: Affine, shape: Shape, kept: Kept, network: Network) -> Affine:
    rows = kept[node.name]
    terms = []
    for term in node.terms:
        if term.source not in kept:
            continue
        columns = kept[term.source]
        whole = columns.size == math.prod(network.shapes[term.source])
        weight = term.operator.matrix()[np.ix_(rows, columns)]
        if weight.any():
            terms.append(Term(term.source, Dense(weight, term.operator.in_shape if whole else (columns.size,), shape)))
    return Affine(node.name, tuple(terms), node.bias.ravel()[rows].reshape(shape))


def _needed(network: Network) -> dict[str, NDArray[np.bool_]]:
    free = free_values(network)
    needed = {name: np.zeros(math.prod(shape), dtype=bool) for name, shape in network.shapes.items()}
    for port in network.outputs:
        needed[port.name][:] = True
    for node in reversed(network.nodes):
        mask = needed[node.name]
        if not mask.any():
            continue
        if node.name not in free:
            mask[:] = True
        if isinstance(node, Activate) and node.name in free:
            # The pre-activation keeps exactly its activation's units; `_share` settles it if others read it too.
            needed[node.source] |= mask
        elif isinstance(node, Affine) and all(isinstance(t.operator, Dense) for t in node.terms):
            for term in node.terms:
                needed[term.source] |= (term.operator.matrix()[mask] != 0).any(axis=0)
        else:
            for source in node.sources:
                needed[source][:] = True
    needed[network.input.name][:] = True
    return _share(network, free, needed)


def _share(
    network: Network, free: frozenset[str], needed: dict[str, NDArray[np.bool_]]
) -> dict[str, NDArray[np.bool_]]:
    """An activation and its pre-activation keep the same elements (another reader may need more of the latter)."""
    for node in network.nodes:
        if isinstance(node, Activate) and node.name in free and needed[node.name].any():
            needed[node.name] |= needed[node.source]
    return needed
