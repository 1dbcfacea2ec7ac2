"""Networks evaluated in rational arithmetic: the ground truth that no engine may contradict."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from redy.model import Activate, Affine, Array, Network, PiecewiseLinear, Port, Term
from redy.model.operators import Dense

Exact = list[Fraction]


def exact_trace(network: Network, x: Sequence[float | Fraction]) -> dict[str, Exact]:
    """Every value of a network of `Affine` and `Activate` nodes at one input, flattened, as rationals."""
    values: dict[str, Exact] = {network.input.name: [Fraction(v) for v in x]}
    for node in network.nodes:
        if isinstance(node, Affine):
            values[node.name] = _affine(node, values)
        elif isinstance(node, Activate):
            function = node.function.broadcast_to(node.shape)
            values[node.name] = [_activate(function, i, z) for i, z in enumerate(values[node.source])]
        else:
            raise NotImplementedError(node.name)
    return values


def piece_of(function: PiecewiseLinear, index: int, shape: tuple[int, ...], z: Fraction) -> int | None:
    """The piece that z lies strictly inside of, None at a breakpoint."""
    breaks = [
        Fraction(float(t)) for t in function.broadcast_to(shape).breakpoints.reshape(function.pieces - 1, -1)[:, index]
    ]
    return None if z in breaks else sum(z > t for t in breaks)


def dense_network(
    layers: Iterable[tuple[Array, Array]], function: PiecewiseLinear, *, last_active: bool = False
) -> Network:
    """x -> z1 -> y1 -> z2 -> ... for (weight, bias) per layer; the last layer stays affine unless `last_active`."""
    layers = [(np.atleast_2d(np.asarray(w, dtype=float)), np.atleast_1d(np.asarray(b, dtype=float))) for w, b in layers]
    nodes: list[Affine | Activate] = []
    source = "x"
    for number, (weight, bias) in enumerate(layers, start=1):
        nodes.append(Affine(f"z{number}", (Term(source, Dense.of(weight)),), bias))
        source = f"z{number}"
        if number < len(layers) or last_active:
            nodes.append(Activate(f"y{number}", source, function, bias.shape))
            source = f"y{number}"
    return Network(Port("x", (layers[0][0].shape[1],)), tuple(nodes), (Port(source, nodes[-1].shape),))


def grid(lower: Sequence[float], upper: Sequence[float], count: int) -> Iterable[Exact]:
    """Rational grid points of a box, corners included."""
    axes = [
        [Fraction(float(a)) + (Fraction(float(b)) - Fraction(float(a))) * k / (count - 1) for k in range(count)]
        for a, b in zip(lower, upper, strict=True)
    ]
    return (list(point) for point in itertools.product(*axes))


def _affine(node: Affine, values: dict[str, Exact]) -> Exact:
    total = [Fraction(float(b)) for b in node.bias.ravel()]
    for term in node.terms:
        matrix = term.operator.matrix()
        source = values[term.source]
        for row, weights in enumerate(matrix):
            total[row] += sum((Fraction(float(w)) * source[j] for j, w in enumerate(weights) if w != 0), Fraction(0))
    return total


def _activate(function: PiecewiseLinear, index: int, z: Fraction) -> Fraction:
    """f(z) from the first breakpoint outwards, exactly."""
    breaks = [Fraction(float(t)) for t in function.breakpoints.reshape(function.pieces - 1, -1)[:, index]]
    slopes = [Fraction(float(s)) for s in function.slopes.reshape(function.pieces, -1)[:, index]]
    value = Fraction(float(function.value.ravel()[index]))
    if z <= breaks[0]:
        return value + slopes[0] * (z - breaks[0])
    for piece in range(1, function.pieces):
        end = breaks[piece] if piece < function.pieces - 1 else z
        if z <= end:
            return value + slopes[piece] * (z - breaks[piece - 1])
        value += slopes[piece] * (end - breaks[piece - 1])
    raise AssertionError("unreachable")


def exact_ranges(
    network: Network, lower: Sequence[float], upper: Sequence[float]
) -> dict[str, list[tuple[Fraction, Fraction]]]:
    """The exact range of every pre-activation (by `Activate` name) and output of a network with two inputs.

    The box is cut into the convex polygons on which every activation so far is one piece (every feasible activation
    pattern is one of them); a pre-activation is linear on each, so its extremes lie at their vertices.
    """
    (a, c), (b, d) = ([Fraction(float(v)) for v in ends] for ends in (lower, upper))
    cells = [[(a, c), (b, c), (b, d), (a, d)]]
    traces: dict[tuple[Fraction, Fraction], dict[str, Exact]] = {}

    def value(point: tuple[Fraction, Fraction], name: str, index: int) -> Fraction:
        if point not in traces:
            traces[point] = exact_trace(network, point)
        return traces[point][name][index]

    def extremes(name: str, size: int) -> list[tuple[Fraction, Fraction]]:
        found = [[value(v, name, i) for cell in cells for v in cell] for i in range(size)]
        return [(min(values), max(values)) for values in found]

    ranges = {}
    for node in network.activations:
        ranges[node.name] = extremes(node.source, node.shape[0])
        function = node.function.broadcast_to(node.shape)
        for index in range(node.shape[0]):
            for t in function.breakpoints[:, index]:
                heights = [[value(v, node.source, index) - Fraction(float(t)) for v in cell] for cell in cells]
                cells = [part for cell, h in zip(cells, heights, strict=True) for part in _split(cell, h)]
    name = network.outputs[0].name
    ranges[name] = extremes(name, network.outputs[0].shape[0])
    return ranges


def _split(cell: list[tuple[Fraction, Fraction]], heights: list[Fraction]) -> list[list[tuple[Fraction, Fraction]]]:
    """The parts of a convex polygon where a linear height is >= 0 and <= 0 (Sutherland and Hodgman)."""
    if all(h >= 0 for h in heights) or all(h <= 0 for h in heights):
        return [cell]
    parts: list[list[tuple[Fraction, Fraction]]] = [[], []]
    for (p, h), (q, k) in itertools.pairwise([*zip(cell, heights, strict=True), (cell[0], heights[0])]):
        for part, sign in zip(parts, (1, -1), strict=True):
            if h * sign >= 0:
                part.append(p)
            if h * k < 0:
                t = h / (h - k)
                part.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return parts
