"""Linear bounds with optimised lower slopes, and with splits of ReLUs: alpha-CROWN and beta-CROWN.

Xu et al., "Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel Incomplete Verifiers"
(ICLR 2021), section 3.1: every slope alpha in [0, 1] gives a lower line alpha x <= relu(x), so each bound may choose
its own. Wang et al., "Beta-CROWN" (NeurIPS 2021), Theorem 3.1: where a row is about the part of the box with x >= 0
(x <= 0), a multiplier beta >= 0 may add beta x (subtract it) before the form is pulled further back.

The bound is the value of the linearised network at the vertex x* that maximises the pulled-back form, so its
derivative by alpha_j is L_j z_j(x*) where the coefficient L_j is negative, and by beta_j it is +-z_j(x*); one
forward pass through the lines gives all of them. Whatever the optimisation does, each step's bound is a proof in
itself (`redy.bounds.linear`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.bounds.interval import needed_for
from redy.bounds.linear import Relaxation, RowLines
from redy.model import Activate, Affine, Array, Network, Node

STEP = 0.3
"""First step of the projected gradient; slopes live in [0, 1]."""
DECAY = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Optimised:
    """What the optimisation of some rows found.

    Attributes:
        upper: (rows,) the smallest bound of each.
        vertex: (rows, *input shape) a vertex of the box at which the relaxed form is largest.
        weights: `Activate` -> (rows, *shape) coefficients of its values at the best bound.
    """

    upper: Array
    vertex: Array
    weights: dict[str, Array]


def supports(network: Network, names: set[str]) -> bool:
    """Whether the named nodes are affine or ReLU, which is what the gradient knows."""
    return all(
        isinstance(node, Affine) or (isinstance(node, Activate) and node.function.is_relu)
        for node in network.nodes
        if node.name in names
    )


def optimise(
    relaxed: Relaxation, name: str, forms: Array, steps: int, splits: Mapping[str, NDArray[np.int8]] | None = None
) -> Optimised:
    """Upper bounds of forms (rows, *shape) of a value, each with slopes (and multipliers) of its own.

    Args:
        relaxed: a relaxation of the network, affine and ReLU nodes only (see `supports`).
        name: the value.
        forms: coefficients.
        steps: gradient steps; 0 gives the bounds of the usual slopes.
        splits: `Activate` -> (rows, *shape): 1 where the row is about inputs with x >= 0, -1 for x <= 0, else 0.
    """
    behind = needed_for(relaxed.network, {name})
    order = [node for node in relaxed.network.nodes if node.name in behind]
    splits = splits or {}
    lines = {n.name: _start(relaxed, n, len(forms), splits.get(n.name)) for n in order if isinstance(n, Activate)}
    count = len(forms)
    best = Optimised(np.full(count, np.inf), np.empty((count, *relaxed.box.shape)), {})
    best.vertex[:] = relaxed.box.center
    for step in range(steps + 1):
        seen: dict[str, Array] = {}
        upper = relaxed.upper(name, forms, lines, seen)
        vertex = np.where(_at(seen, relaxed.network.input.name, best.vertex) > 0, relaxed.box.upper, relaxed.box.lower)
        best = _better(best, Optimised(upper, vertex, {n: _at(seen, n, lines[n].shift) for n in lines}))
        if step < steps:
            values = _forward(relaxed.network.input.name, order, vertex, lines, seen)
            rate = STEP * DECAY**step
            for node in order:
                if isinstance(node, Activate) and node.name in seen:
                    z, split = values[node.source], splits.get(node.name)
                    lines[node.name] = _improve(lines[node.name], rate, seen[node.name], z, split)
    return best


def _start(relaxed: Relaxation, node: Activate, count: int, split: NDArray[np.int8] | None) -> RowLines:
    """The usual lines, those of split elements replaced by the piece that is left."""
    (lines,) = relaxed.lines[node.name]
    shape = (count, *node.shape)
    low, high, gap = (
        np.broadcast_to(each, shape).copy() for each in (lines.lower_slope, lines.upper_slope, lines.upper_intercept)
    )
    if split is not None:
        piece = (split > 0).astype(np.float64)
        low, high, gap = (np.where(split != 0, new, old) for new, old in ((piece, low), (piece, high), (0.0, gap)))
    return RowLines(np.clip(low, 0.0, 1.0), high, gap, np.zeros(shape))


def _forward(
    source: str, order: Sequence[Node], vertex: Array, lines: Mapping[str, RowLines], seen: Mapping[str, Array]
) -> dict[str, Array]:
    """The values of the linearised network of each row at its own vertex."""
    values = {source: vertex}
    for node in order:
        if isinstance(node, Activate):
            line, z = lines[node.name], values[node.source]
            above = _at(seen, node.name, line.shift) > 0
            values[node.name] = np.where(above, line.upper_slope * z + line.upper_intercept, line.lower_slope * z)
        else:
            values[node.name] = node.evaluate(values)
    return values


def _improve(line: RowLines, rate: float, weight: Array, z: Array, split: NDArray[np.int8] | None) -> RowLines:
    """One step of projected gradient on slopes and multipliers, scaled per row."""
    free = line.lower_slope != line.upper_slope
    slope = np.clip(line.lower_slope - rate * _scaled(np.where(free & (weight < 0), weight * z, 0.0)), 0.0, 1.0)
    shift = line.shift
    if split is not None and split.any():
        size = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(-1, *(1,) * (z.ndim - 1))
        beta = np.maximum(line.shift * split - rate * size * _scaled(np.where(split != 0, split * z, 0.0)), 0.0)
        shift = beta * split
    return RowLines(np.where(free, slope, line.lower_slope), line.upper_slope, line.upper_intercept, shift)


def _scaled(gradient: Array) -> Array:
    """The gradient divided by the root mean square of its non-zero elements in each row, cut off at 1."""
    flat = gradient.reshape(len(gradient), -1)
    count = np.maximum((flat != 0).sum(axis=1), 1)
    size = np.sqrt((flat**2).sum(axis=1) / count).reshape(-1, *(1,) * (gradient.ndim - 1))
    scaled: Array = np.divide(gradient, size, out=np.zeros_like(gradient), where=size > 0)
    return np.clip(scaled, -1.0, 1.0)


def _at(seen: Mapping[str, Array], name: str, like: Array) -> Array:
    return seen.get(name, np.zeros_like(like))


def _better(old: Optimised, new: Optimised) -> Optimised:
    """Row by row the answer with the smaller bound."""
    won = new.upper < old.upper

    def choose(first: Array, second: Array) -> Array:
        return np.where(won.reshape(-1, *(1,) * (first.ndim - 1)), first, second)

    weights = {n: choose(weight, old.weights.get(n, weight)) for n, weight in new.weights.items()}
    return Optimised(choose(new.upper, old.upper), choose(new.vertex, old.vertex), weights)
