r"""Units with parallel weights become one.

For a positively homogeneous f (its only breakpoint is 0 and f(0) = 0: ReLU, LeakyReLU, Abs) and c > 0,

    w_j = c w_i,  b_j = c b_i   give  f(z_j) = f(c z_i) = c f(z_i),  so  W[:, i] := W[:, i] + c W[:, j],  W[:, j] := 0.

For any other function the same with c = 1. Candidates are found on scaled rows in floating point and decided by exact
rational arithmetic on the weights as they are.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from redy.model import Activate, Affine, Array, Dense, Network, Node
from redy.rewrite.dense import flat_function, free_values, reading, rebuilt

Merge = tuple[str, int, int, float]
"""(activation, unit that went, unit that stays, factor c)."""


def merge_parallel(network: Network) -> tuple[Network, tuple[Merge, ...]]:
    """The network with the outgoing weights of parallel units added up, and which unit went into which."""
    free = free_values(network)
    merges: list[Merge] = []
    replaced: dict[str, Node] = {}
    for node in network.activations:
        source = network.by_name.get(node.source)
        if node.name not in free or not isinstance(source, Affine):
            continue
        found = _parallel(node, replaced.get(source.name, source))
        for reader in network.readers[node.name] if found else ():
            current = replaced.get(reader.name, reader)
            if isinstance(current, Affine):
                replaced[reader.name] = _redirected(current, node.name, found)
        merges.extend(found)
    return rebuilt(network, [replaced.get(node.name, node) for node in network.nodes]), tuple(merges)


def _parallel(node: Activate, source: Node) -> list[Merge]:
    if not isinstance(source, Affine) or not source.terms:
        return []
    rows = np.concatenate([*(t.operator.matrix() for t in source.terms), source.bias.reshape(-1, 1)], axis=1)
    function = flat_function(node)
    homogeneous = (function.breakpoints == 0).all(axis=0) & (function.value == 0)
    groups: dict[bytes, list[int]] = {}
    for j, row in enumerate(rows):
        scale = np.abs(row).max() if homogeneous[j] and row.any() else 1.0
        # Adding 0.0 turns -0.0 into 0.0, so that both have the same bytes.
        key = np.round(row / scale, 12) + 0.0
        kind = np.concatenate([function.breakpoints[:, j], function.slopes[:, j], function.value[[j]]])
        groups.setdefault(key.tobytes() + kind.tobytes(), []).append(j)
    merges: list[Merge] = []
    for members in groups.values():
        stays: list[int] = []
        for j in members:
            for i in stays:
                factor = _ratio(rows[j], rows[i])
                if factor is not None and (factor == 1 or homogeneous[j]):
                    merges.append((node.name, j, i, float(factor)))
                    break
            else:
                stays.append(j)
    return merges


def _ratio(row: Array, other: Array) -> Fraction | None:
    """c > 0 with row = c * other exactly, else None."""
    if ((row != 0) != (other != 0)).any() or not row.any():
        return Fraction(1) if not row.any() and not other.any() else None
    places = np.flatnonzero(row)
    factor = Fraction(row[places[0]]) / Fraction(other[places[0]])
    if factor <= 0 or any(Fraction(row[k]) != factor * Fraction(other[k]) for k in places):
        return None
    return factor


def _redirected(reader: Affine, name: str, merges: list[Merge]) -> Affine:
    weights = {term.source: term.operator.matrix().copy() for term in reader.terms}
    if name not in weights or not all(isinstance(term.operator, Dense) for term in reader.terms):
        return reader
    weight = weights[name]
    for _, gone, stays, factor in merges:
        weight[:, stays] += factor * weight[:, gone]
        weight[:, gone] = 0.0
    return reading(reader, weights, reader.bias)
