"""Simulation: what points say about replacing activations by lines. It proposes and discards; it never decides.

Points are samples, corners, what ascent on a difference finds, and every witness that a query returned. At each point
the effect of replacing one unit is linearised,

    y'(x) - y(x)  ~  dy/dv_u (x) (line_u(z_u(x)) - f_u(z_u(x))),

and effects add up, so that a set of units can be guessed by adding them one at a time. The guess is then evaluated for
what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from redy.condensed.climb import climb
from redy.model import Activate, Affine, Array, Box, Line, Network, Unit
from redy.questions.query import outputs

LEAST = 1e-3
"""Smaller loads count as this when units are ordered by load times cost."""
CHUNK = 256
"""Points whose sensitivities are held at once."""


def sensitivities(network: Network, points: Array) -> dict[str, Array]:
    """Activation -> dy/dv (m, outputs, elements): how all outputs react to a change of its values v, at points."""
    values = network.trace(points)
    sizes = [math.prod(port.shape) for port in network.outputs]
    m, total = len(points), sum(sizes)
    gradients: dict[str, Array] = {}
    start = 0
    for port, size in zip(network.outputs, sizes, strict=True):
        seed = gradients.setdefault(port.name, np.zeros((m, total, *port.shape)))
        seed.reshape(m, total, -1)[:, np.arange(start, start + size), np.arange(size)] = 1.0
        start += size
    found: dict[str, Array] = {}
    for node in reversed(network.nodes):
        gradient = gradients.pop(node.name, None)
        if gradient is None:
            continue
        if isinstance(node, Affine):
            for term in node.terms:
                flat = gradient.reshape(m * total, *node.shape)
                pulled = term.operator.adjoint(flat).reshape(m, total, *term.operator.in_shape)
                gradients[term.source] = gradients[term.source] + pulled if term.source in gradients else pulled
        elif isinstance(node, Activate):
            found[node.name] = gradient.reshape(m, total, -1)
            pulled = gradient * slopes_at(node, values[node.source])[:, None]
            gradients[node.source] = gradients[node.source] + pulled if node.source in gradients else pulled
    return found


def slopes_at(node: Activate, z: Array) -> Array:
    """The slope of the piece that each pre-activation (m, *shape) lies in."""
    function = node.function.broadcast_to(node.shape)
    return np.asarray(np.take_along_axis(function.slopes, function.piece_of(z), axis=0))


def effects(network: Network, points: Array, lines: Mapping[Unit, Line]) -> Array:
    """(m, outputs, units): the linearised effect of every line alone on all outputs, at points (m, *input shape)."""
    units = list(lines)
    total = sum(math.prod(port.shape) for port in network.outputs)
    result = np.zeros((len(points), total, len(units)))
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        values, gradients = network.trace(part), sensitivities(network, part)
        for node in network.activations:
            chosen = [k for k, unit in enumerate(units) if unit.node == node.name]
            if not chosen or node.name not in gradients:
                continue
            index = [units[k].index for k in chosen]
            z = values[node.source].reshape(len(part), -1)[:, index]
            v = values[node.name].reshape(len(part), -1)[:, index]
            slope = np.array([lines[units[k]].slope for k in chosen])
            intercept = np.array([lines[units[k]].intercept for k in chosen])
            residual = slope * z + intercept - v
            result[start : start + CHUNK][:, :, chosen] = gradients[node.name][:, :, index] * residual[:, None]
    return result


def guess(
    loads: Array,
    works: Callable[[Sequence[int]], bool],
    thresholds: Sequence[float],
    most: int,
    cost: Array | None = None,
) -> list[int]:
    """A large set of units whose loads stay allowed when added up, and which `works` in simulation.

    Args:
        loads: (conditions, units) the share of what is allowed that each unit uses up; a sum is allowed up to 1.
        works: whether a set of units stands when it is evaluated for what it is.
        thresholds: sums to allow in the linearised model, each tried in turn; the largest set wins.
        most: units, at most.
        cost: (units,) how hard a unit is to prove, > 0; all alike by default.

    Everything is tried first; otherwise the units with the smallest largest load, times cost, go first.
    """
    everything = list(range(loads.shape[1]))
    if len(everything) <= most and works(everything):
        return everything
    weight = np.ones(loads.shape[1]) if cost is None else cost
    order = np.argsort(np.maximum(loads.max(axis=0, initial=0.0), LEAST) * weight, kind="stable")
    best: list[int] = []
    for threshold in thresholds:
        total, chosen = np.zeros(len(loads)), []
        for unit in order:
            grown = total + loads[:, unit]
            if grown.max(initial=0.0) <= threshold:
                total = grown
                chosen.append(int(unit))
        chosen = chosen[:most]
        if len(chosen) > len(best):
            kept = _prefix(chosen, works)
            best = kept if len(kept) > len(best) else best
    return best


def _prefix(chosen: list[int], works: Callable[[Sequence[int]], bool]) -> list[int]:
    """The longest prefix that works, found by bisection (as if shorter prefixes of a working one worked)."""
    low, high = 0, len(chosen)
    if works(chosen):
        return chosen
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(chosen[:middle]) else (low, middle)
    return chosen[:low]


def ascend(original: Network, reduced: Network, box: Box, starts: Array) -> Array:
    """Points (m, *input shape) where the outputs differ at least as much as at the starts, found by local search."""
    lower, upper = box.lower.ravel(), box.upper.ravel()

    def apart(points: Array) -> Array:
        return np.asarray(np.abs(outputs(original, points) - outputs(reduced, points)).max(axis=1))

    found = [climb(apart, lower, upper, start.ravel()) for start in starts]
    return np.array(found).reshape(-1, *box.shape)


def borders(network: Network, points: Array, winners: NDArray[np.int64], sign: float, count: int, seed: int) -> Array:
    """At most 2 count points (m, *input shape) on both sides of borders between decisions, by bisection."""
    rng = np.random.default_rng(seed)
    # A winner met at a few points only is drawn as often as the others.
    members = [np.flatnonzero(winners == winner) for winner in np.unique(winners)]
    left = np.concatenate([rng.choice(where, 8 * count // len(members)) for where in members])
    rng.shuffle(left)
    right = rng.integers(0, len(points), len(left))
    differ = winners[left] != winners[right]
    a, b = points[left[differ]][:count], points[right[differ]][:count]
    if not len(a):
        return np.zeros((0, *points.shape[1:]))
    first = winners[left[differ]][:count]
    for _ in range(40):
        middle = a / 2 + b / 2
        same = (sign * outputs(network, middle)).argmax(axis=1) == first
        keep = same.reshape(-1, *(1,) * (points.ndim - 1))
        a, b = np.where(keep, middle, a), np.where(keep, b, middle)
    return np.concatenate([a, b])
