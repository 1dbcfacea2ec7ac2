r"""What concrete points show: the smallest and largest pre-activation of every unit, sure in spite of rounding.

A point ends the question whether a unit is in one phase only if the float64 evaluation cannot be wrong about the side
of the breakpoint. With e the bound on the rounding of z that follows from

    e_z = sum_s |W_s| e_s + gamma_n (sum_s |W_s| max|x_s| + |b|),     e_y = L e_z + 8 u (max|y| + L max|z|),

[min z + e, max z - e] is what was certainly reached from both ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from redy.model import Activate, Affine, Array, Box, MaxPool, Network

UNIT = 2.0**-53
CHUNK = 8192
"""Points traced at once, at most."""
NUMBERS = 1 << 24
"""Numbers in all their values (128 MiB)."""

Seen = Mapping[str, tuple[Array, Array]]
"""Activation -> (at least the smallest z, at most the largest z) over the points in real arithmetic, of its shape."""


def sample_points(box: Box, count: int, corners: int, seed: int) -> Array:
    """Uniform points, corners and the centre of the box, the same for the same seed, as (m, *shape)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([box.sample(count, rng), box.corners(corners, rng), box.center[None]])


def seen_at(network: Network, points: Array) -> Seen:
    """What the points show of every activation whose rounding can be bounded; the others are left out."""
    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    step = min(CHUNK, max(1, NUMBERS // sum(math.prod(shape) for shape in network.shapes.values())))
    for start in range(0, len(points), step):
        for name, values in network.trace(points[start : start + step]).items():
            first, last = values.min(axis=0), values.max(axis=0)
            low[name] = np.minimum(low[name], first) if name in low else first
            high[name] = np.maximum(high[name], last) if name in high else last
    error = rounding(network, {name: np.maximum(np.abs(low[name]), np.abs(high[name])) for name in low})
    return {
        node.name: (low[node.source] + error[node.source], high[node.source] - error[node.source])
        for node in network.activations
        if node.source in error
    }


def rounding(network: Network, reached: Mapping[str, Array]) -> dict[str, Array]:
    """e, how far float64 values may be off, for every value behind affine, piecewise-linear and pooling nodes only.

    Args:
        network: the network.
        reached: (*shape) the largest absolute value of every node at the points in question.
    """
    error = {network.input.name: np.zeros(network.input.shape)}
    for node in network.nodes:
        if not all(source in error for source in node.sources):
            continue
        if isinstance(node, Affine):
            total, size, count = np.zeros(node.shape), np.abs(node.bias), 2
            for term in node.terms:
                total = total + term.operator.spread(error[term.source][None])[0]
                size = size + term.operator.spread((reached[term.source] + error[term.source])[None])[0]
                count += term.operator.fan_in + 1
            error[node.name] = (total + 2 * count * UNIT * size) * (1 + 2.0**-30)
        elif isinstance(node, Activate):
            steepest = np.abs(node.function.slopes).max(axis=0)
            largest = np.abs(node.function.breakpoints).max(axis=0) + reached[node.source] + np.abs(node.function.value)
            rounding = 0.0 if node.function.is_relu else 8 * node.function.pieces * UNIT * (1 + steepest) * largest
            error[node.name] = (steepest * error[node.source] + rounding) * (1 + 2.0**-30)
        elif isinstance(node, MaxPool):
            flat = np.append(error[node.source].ravel(), 0.0)
            error[node.name] = flat[node.index].max(axis=-1)
    return error
