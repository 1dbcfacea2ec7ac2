"""Where a property may be violated: sign-gradient paths from good points, and local search. Nothing is proved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from redy.condensed.climb import climb
from redy.model import Activate, Affine, Array, Conjunction, Network
from redy.questions.query import outputs
from redy.questions.simulate import slopes_at
from redy.questions.situation import few_inputs

POOL, STARTS = 512, 24
"""Points of one round, and how many of them, the best, start a path."""
FIRST, SHRINK, STEPS = 0.05, 0.85, 24
"""The first step of a path as a share of the box, the share of the one before that each later step is, their number."""
CLIMB = 4
"""Every so many rounds the best point is improved by local search, which goes on where the worst rows alternate."""


def attack(network: Network, conjunction: Conjunction, rounds: range) -> Iterator[tuple[Array, Array]]:
    """Rounds of points (m, *input shape) near to a violation, the nearest first, with their largest rows (m,).

    Rounds with odd numbers start at points with many inputs at an end. The same rounds give the same points.
    """
    box = conjunction.box
    for number in rounds:
        rng = np.random.default_rng(number)
        x = box.sample(POOL, rng)
        if number % 2:
            ends = np.where(rng.random(x.shape) < 0.5, box.lower, box.upper)
            x = np.where(rng.random(x.shape) < 0.5, ends, x)
        best = np.argsort(worst_rows(network, conjunction, x), kind="stable")[:STARTS]
        points, values = descend(network, conjunction, x[best], FIRST)
        if number % CLIMB == CLIMB - 1 and values[0] > 0 and few_inputs(box):
            points = _climbed(network, conjunction, points[0])[None]
            values = worst_rows(network, conjunction, points)
        yield points, values


def _climbed(network: Network, conjunction: Conjunction, start: Array) -> Array:
    box = conjunction.box

    def value(points: Array) -> Array:
        return -worst_rows(network, conjunction, points.reshape(-1, *box.shape))

    return climb(value, box.lower.ravel(), box.upper.ravel(), start.ravel()).reshape(box.shape)


def worst_rows(network: Network, conjunction: Conjunction, points: Array) -> Array:
    """(m,) the largest row of the constraints at points: at most 0 where all of them are met."""
    return np.asarray(conjunction.values(points, outputs(network, points)).max(axis=1, initial=-np.inf))


def descend(network: Network, conjunction: Conjunction, starts: Array, first: float) -> tuple[Array, Array]:
    """Sign-gradient paths that lower the largest row from the starts (m, *shape); the best point of each path
    and its largest row, the nearest to a violation first.

    Steps are shares of the box: `first`, and then each `SHRINK` times the one before. Nodes without a gradient here
    (smooth ones, pools) stop it. Deterministic.
    """
    rng = np.random.default_rng(0)
    box, x = conjunction.box, conjunction.box.clip(starts)
    best, at, step = np.full(len(x), np.inf), x.copy(), first
    sizes = np.cumsum([0, *(int(np.prod(port.shape)) for port in network.outputs)])
    for _ in range(STEPS):
        trace = network.trace(x)
        y = np.concatenate([trace[port.name].reshape(len(x), -1) for port in network.outputs], axis=1)
        rows = conjunction.values(x, y)
        worst = rows.argmax(axis=1)
        value = rows[np.arange(len(x)), worst]
        better = value < best
        best[better], at[better] = value[better], x[better]
        seeds = {
            port.name: conjunction.outputs[worst][:, sizes[k] : sizes[k + 1]].reshape(len(x), *port.shape)
            for k, port in enumerate(network.outputs)
        }
        slope = _pulled(network, trace, seeds) + conjunction.inputs[worst].reshape(x.shape)
        reach = step * rng.random((len(x), *(1,) * (x.ndim - 1)))
        x = box.clip(x - reach * box.width * np.sign(slope))
        step *= SHRINK
    order = np.argsort(best, kind="stable")
    return at[order], best[order]


def _pulled(network: Network, trace: dict[str, Array], seeds: dict[str, Array]) -> Array:
    """The gradients of sums seed . output by the input, one for each point, (m, *input shape)."""
    gradients = dict(seeds)
    for node in reversed(network.nodes):
        gradient = gradients.pop(node.name, None)
        if gradient is None:
            continue
        if isinstance(node, Affine):
            for term in node.terms:
                pulled = term.operator.adjoint(gradient)
                gradients[term.source] = gradients[term.source] + pulled if term.source in gradients else pulled
        elif isinstance(node, Activate):
            pulled = gradient * slopes_at(node, trace[node.source])
            gradients[node.source] = gradients[node.source] + pulled if node.source in gradients else pulled
    return gradients.get(network.input.name, np.zeros_like(trace[network.input.name]))
