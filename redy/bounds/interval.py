"""Interval bounds of every value of a network: the cheapest sound method, one forward pass.

An affine node z = b + sum_i W_i x_i with x_i in [c_i - r_i, c_i + r_i] lies in W c + b -+ |W| r. Rounding: with g =
gamma_n for n products and additions per output (`redy.bounds.rounding`), the computed W c + b is off by at most g
(|W| |c| + |b|), and the computed |W| r by at most g |W| r, so that

    radius = (1 + g) * fl(|W| ((1 + g) r + g |c|) + g |b|)  +  n * UNDERFLOW where any product is non-zero

encloses both; the last subtraction and addition are rounded outwards. Piecewise-linear activations use their knots
(`redy.bounds.relaxation`). A value whose node cannot be bounded is refused by the node's name when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from redy.bounds.elementwise import elementwise_image
from redy.bounds.relaxation import image
from redy.bounds.result import Bounds, Range
from redy.bounds.rounding import LARGE, UNDERFLOW, down, gamma, up
from redy.bounds.smooth import curved, smooth_image
from redy.errors import Unsupported
from redy.model import Activate, Affine, Array, Box, Elementwise, Foreign, MaxPool, Network, Node, Product


def interval_bounds(network: Network, box: Box, *, leave_unsupported: bool = False) -> Bounds:
    """Interval bounds of every pre-activation.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        leave_unsupported: pre-activations behind a node that cannot be bounded get (-inf, inf) instead of a refusal.

    Raises:
        Unsupported: a pre-activation depends on a node that cannot be bounded; the text names the node.
        ValueError: the box does not have the input's shape.
    """
    needed = needed_for(network, [node.source for node in network.activations])
    found = ranges(network, box, wanted=needed, leave_unsupported=leave_unsupported)
    return Bounds(box, {node.name: _copy(found[node.source]) for node in network.activations}, "interval")


def ranges(
    network: Network,
    box: Box,
    bounds: Bounds | None = None,
    *,
    wanted: Iterable[str] | None = None,
    leave_unsupported: bool = False,
) -> dict[str, Range]:
    """Interval bounds of every value by name, the input included; each of the value's shape.

    Args:
        network: its input has the box's shape.
        box: the inputs.
        bounds: sound pre-activation bounds that the pass intersects with its own (and so passes on).
        wanted: only these values and what they depend on; all by default.
        leave_unsupported: a value that cannot be bounded gets (-inf, inf) instead of a refusal.

    Raises:
        Unsupported: a wanted value depends on a node that cannot be bounded; the text names the node.
        ValueError: the box does not have the input's shape.
    """
    if box.shape != network.input.shape:
        raise ValueError(f"the box has shape {box.shape}, the network takes {network.input.shape}")
    keep = set(network.shapes) if wanted is None else needed_for(network, wanted)
    found: dict[str, Range] = {network.input.name: (box.lower, box.upper)}
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for node in network.nodes:
            if node.name in keep:
                if bounds is not None and isinstance(node, Activate) and node.name in bounds.intervals:
                    found[node.source] = intersect(found[node.source], bounds.intervals[node.name])
                found[node.name] = node_range(node, found, leave_unsupported=leave_unsupported)
    return found


def needed_for(network: Network, names: Iterable[str]) -> set[str]:
    """The named values and every value that they depend on."""
    needed = set(names)
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.sources)
    return needed


def node_range(node: Node, found: Mapping[str, Range], *, leave_unsupported: bool = False) -> Range:
    """The range of one node from the ranges of its sources.

    Raises:
        Unsupported: the node cannot be bounded and `leave_unsupported` is not set.
    """
    try:
        lower, upper = _node_range(node, found)
    except Unsupported:
        if not leave_unsupported:
            raise
        return np.full(node.shape, -np.inf), np.full(node.shape, np.inf)
    return np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)


def intersect(first: Range, second: Range) -> Range:
    """The common part of two sound ranges of the same value."""
    return np.maximum(first[0], second[0]), np.minimum(first[1], second[1])


def fan_in(node: Affine) -> int:
    """How many products and additions give one output: the n of gamma_n."""
    return sum(term.operator.fan_in + 1 for term in node.terms) + 1


def _node_range(node: Node, found: Mapping[str, Range]) -> Range:
    if isinstance(node, Affine):
        return _affine_range(node, found)
    if isinstance(node, Activate):
        return image(node.function, *found[node.source])
    if isinstance(node, Elementwise):
        return _smooth_range(node, *found[node.source])
    if isinstance(node, MaxPool):
        lower, upper = found[node.source]
        return _windows(node, lower).max(axis=-1), _windows(node, upper).max(axis=-1)
    if isinstance(node, Product):
        return _product_range(found[node.left], found[node.right])
    return _foreign_range(node)


def _smooth_range(node: Elementwise, lower: Array, upper: Array) -> Range:
    """By the table of monotone functions and valleys; of other smooth functions by cells."""
    try:
        return elementwise_image(node, lower, upper)
    except Unsupported:
        if not curved(node):
            raise
        return smooth_image(node, lower, upper)


_WITHIN = {"Softmax": (0.0, 1.0)}
"""Carried operators whose values lie in an interval, whatever they read."""


def _foreign_range(node: Foreign) -> Range:
    if node.operator in _WITHIN:
        lower, upper = _WITHIN[node.operator]
        return np.full(node.shape, lower), np.full(node.shape, upper)
    raise Unsupported(f"{node.name}: {node.operator} cannot be bounded; a proof needs its range")


def _affine_range(node: Affine, found: Mapping[str, Range]) -> Range:
    n = fan_in(node) + 8
    g = gamma(n)
    middle = np.array(node.bias)
    radius, live = g * np.abs(node.bias), node.bias != 0
    for term in node.terms:
        lower, upper = found[term.source]
        center = lower / 2 + upper / 2
        reach = np.maximum(upper - center, center - lower) * (1 + 2 * g)
        weighed = np.stack([reach + g * np.abs(center), np.where((lower != 0) | (upper != 0), LARGE, 0.0)])
        middle = middle + term.operator.apply(center[None])[0]
        spread, signs = term.operator.spread(weighed)
        radius, live = radius + spread, live | (signs > 0)
    radius = (1 + 2 * g) * radius + np.where(live, 4 * n * UNDERFLOW, 0.0)
    return np.where(live, down(middle - radius), middle), np.where(live, up(middle + radius), middle)


def _windows(node: MaxPool, values: Array) -> Array:
    """Values of each window, (*shape, window); padding never wins."""
    return np.append(values.ravel(), -np.inf)[node.index]


def _product_range(left: Range, right: Range) -> Range:
    """The extremes of a product lie at the ends of its factors; each is one rounding away from the computed one."""
    products = np.stack([a * b for a in left for b in right])
    exact = np.stack([(a == 0) | (b == 0) for a in left for b in right])
    lower = np.where(exact, products, down(products)).min(axis=0)
    upper = np.where(exact, products, up(products)).max(axis=0)
    return lower, upper


def _copy(found: Range) -> Range:
    return found[0].copy(), found[1].copy()
