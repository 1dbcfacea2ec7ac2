"""Refit of the output layer after relaxed redundancy: its weights are fitted to the outputs of the original.

Lines near activations shift what the last layer reads; other weights there take back part of it. They are fitted on
points for the smallest largest error (iteratively reweighted least squares; Lawson, PhD thesis, UCLA, 1961) and
rounded. What counts is the bound that is then proved for the network as written: `pipeline` keeps the fit only if that
is smaller.
"""

from __future__ import annotations

import numpy as np

from redy.model import Affine, Array, Dense, Network, Term
from redy.questions.query import outputs
from redy.reduction.problem import Problem
from redy.rewrite import Refusal, round_weights
from redy.rewrite.dense import dense_affine, rebuilt

ROUNDS = 60
"""Reweightings."""
_RIDGE = 1e-9
"""Keeps weights small where the points leave them open, relative to what the layer reads."""


def refitted(problem: Problem, small: Network, worst: Array) -> Network | None:
    """The network with fitted output layers, rounded to the type of its weights; None where nothing fits better.

    Args:
        problem: the original, the points.
        small: the network to fit.
        worst: (m, *input shape) points where the error of `small` is large.
    """
    points = np.concatenate([problem.points, worst])
    wanted, start = outputs(problem.network, points), 0
    network = small
    for port in small.outputs:
        node = small.by_name[port.name]
        size = int(np.prod(port.shape))
        if isinstance(node, Affine) and dense_affine(node):
            layer = _fitted(node, small, points, wanted[:, start : start + size])
            network = replaced(network, (layer,))
        start += size
    rounded = round_weights(network, problem.network.weight_dtype)
    if isinstance(rounded, Refusal):
        return None
    before, after = (np.abs(outputs(n, points) - wanted).max() for n in (small, rounded))
    return rounded if after < before else None


def replaced(network: Network, layers: tuple[Affine, ...]) -> Network:
    """The network with other affine nodes of the same names."""
    by_name = {layer.name: layer for layer in layers}
    return rebuilt(network, [by_name.get(node.name, node) for node in network.nodes])


def _fitted(node: Affine, network: Network, points: Array, wanted: Array) -> Affine:
    """The node with weights that bring its value at the points nearest to `wanted` (m, size of the node)."""
    values = network.trace(points, keep=[*node.sources, node.name])
    read = [values[source].reshape(len(points), -1) for source in node.sources]
    columns = np.concatenate([*read, np.ones((len(points), 1))], axis=1)
    change = smallest_largest(columns, wanted - values[node.name].reshape(len(points), -1))
    terms, start = [], 0
    for term, part in zip(node.terms, read, strict=True):
        weight = term.operator.matrix() + change[start : start + part.shape[1]].T
        terms.append(Term(term.source, Dense(weight, term.operator.in_shape, node.shape)))
        start += part.shape[1]
    return Affine(node.name, tuple(terms), node.bias + change[-1].reshape(node.shape))


def smallest_largest(columns: Array, wanted: Array) -> Array:
    """(k, r): coefficients that make the largest |wanted - columns @ c| of every column of `wanted` (m, r) small.

    Never larger than for c = 0. `columns` is (m, k).
    """
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    scaled = columns / scale
    best = np.zeros((columns.shape[1], wanted.shape[1]))
    for r in range(wanted.shape[1]):
        least = float(np.abs(wanted[:, r]).max(initial=0.0))
        weight = np.full(len(scaled), 1 / max(len(scaled), 1))
        for _ in range(ROUNDS if least > 0 else 0):
            normal = scaled.T @ (weight[:, None] * scaled) + _RIDGE * np.eye(scaled.shape[1])
            found = np.linalg.solve(normal, scaled.T @ (weight * wanted[:, r]))
            apart = np.abs(wanted[:, r] - scaled @ found)
            if apart.max() < least:
                least, best[:, r] = float(apart.max()), found / scale
            weight = weight * apart
            total = float(weight.sum())
            if not total > 0:
                break
            weight /= total
    return best
