"""Activations: rows of the table of piecewise-linear functions, and smooth functions element by element."""

from __future__ import annotations

import math

import numpy as np

from redy.formats.reading.arithmetic import broadcast, keeps_batch
from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, reads
from redy.formats.reading.smooth import SMOOTH
from redy.model import Activate, Array, Elementwise, PiecewiseLinear, Scale, identity
from redy.model.functions import absolute, clip, clip_above, clip_below, hard_sigmoid, leaky_relu, relu

_LARGEST = {kind: float(np.finfo(kind).max) for kind in ("float64", "float32", "float16")}
_LARGEST["bfloat16"] = 2.0**128 - 2.0**120


@reads("Relu", "LeakyRelu", "Abs", "HardSigmoid")
def read_fixed(graph: Graph, op: Op) -> list[Tensor]:
    """The same function for every unit."""
    if op.kind == "LeakyRelu":
        function = leaky_relu(op.attribute("alpha", float(np.float32(0.01))))
    elif op.kind == "HardSigmoid":
        alpha, beta = op.attribute("alpha", float(np.float32(0.2))), op.attribute("beta", 0.5)
        if not alpha > 0:
            raise Refused("HardSigmoid with a slope that is not positive")
        function = hard_sigmoid(alpha, beta)
    else:
        function = relu() if op.kind == "Relu" else absolute()
    return [graph.activate(op.output, op.value(), function)]


@reads("PRelu")
def read_prelu(graph: Graph, op: Op) -> list[Tensor]:
    """x for x >= 0, slope * x below; the slope broadcasts to x."""
    value = op.value()
    slope = graph.sample(op.weights(1), graph.full_shape(value), batched=value.batched)
    slope = slope.reshape((1,) * (len(value.shape) - slope.ndim) + slope.shape) if slope.ndim else slope
    return [graph.activate(op.output, value, leaky_relu(slope))]


@reads("Clip")
def read_clip(graph: Graph, op: Op) -> list[Tensor]:
    """min(max(x, low), high); a bound that is left out, or that no number of the type exceeds, does not bind."""
    value = op.value()
    largest = _LARGEST.get(graph.types.get(str(op.node.input[0]), "float32"), math.inf)
    low, high = (
        _bound(op.attribute(name) if op.opset < 11 else None if op.input(i) is None else op.constant(i), end)
        for i, name, end in ((1, "min", -largest), (2, "max", largest))
    )
    if low is None and high is None:
        return [value]
    if low is None or high is None:
        function = clip_above(low) if low is not None else clip_below(high if high is not None else 0.0)
    elif low > high:
        raise Refused("clip bounds that cross")
    else:
        function = clip(low, high)
    return [graph.activate(op.output, value, function)]


def _bound(given: object, end: float) -> float | None:
    """The bound; None if it is left out or lies at the end of the numbers, `end`, or beyond."""
    if given is None or np.size(np.asarray(given)) == 0:
        return None
    number = float(np.ravel(np.asarray(given))[0])
    if np.isnan(number):
        raise Refused("a clip bound is NaN")
    if np.isinf(number) and (number < 0) != (end < 0):
        raise Refused("a clip bound leaves only infinity")
    return None if (number <= end if end < 0 else number >= end) else number


@reads("Min", "Max")
def read_extreme(graph: Graph, op: Op) -> list[Tensor]:
    """With constants a clip per unit; of two values max(x, y) = y + relu(x - y), min(x, y) = x - relu(x - y)."""
    full = np.broadcast_shapes(*(graph.full_shape(tensor) for tensor in op.inputs))
    values = [tensor for tensor in op.inputs if isinstance(tensor, Value)]
    batched = keeps_batch(graph, op, full)
    constants = [
        graph.sample(op.weights(place), full, batched=batched)
        for place, tensor in enumerate(op.inputs)
        if not isinstance(tensor, Value)
    ]
    result = broadcast(graph, op, values[0], full)
    for place, other in enumerate(values[1:], start=2):
        name = op.output if place == len(values) and not constants else f"{op.output}.part"
        result = _extreme(graph, op, result, broadcast(graph, op, other, full), name)
    if constants:
        bound = constants[0]
        for constant in constants[1:]:
            bound = np.maximum(bound, constant) if op.kind == "Max" else np.minimum(bound, constant)
        return [graph.activate(op.output, result, _per_unit(bound, len(result.shape), above=op.kind == "Max"))]
    return [result]


def _per_unit(bound: Array, rank: int, *, above: bool) -> PiecewiseLinear:
    if bound.size == 1:
        return clip_above(float(bound.ravel()[0])) if above else clip_below(float(bound.ravel()[0]))
    bound = bound.reshape((1,) * (rank - bound.ndim) + bound.shape)
    zero, one = np.zeros_like(bound), np.ones_like(bound)
    return PiecewiseLinear(bound[None], np.stack([zero, one] if above else [one, zero]), bound)


def _extreme(graph: Graph, op: Op, x: Value, y: Value, name: str) -> Value:
    batched, minus = x.batched, Scale(np.full(x.shape, -1.0))
    difference = graph.affine(f"{op.output}.difference", [(x, identity(x.shape)), (y, minus)], None, batched=batched)
    positive = graph.add(
        Activate(graph.claim(f"{op.output}.positive"), difference.name, relu(), x.shape), batched=batched
    )
    if op.kind == "Max":
        return graph.affine(name, [(y, identity(x.shape)), (positive, identity(x.shape))], None, batched=batched)
    return graph.affine(name, [(x, identity(x.shape)), (positive, minus)], None, batched=batched)


@reads(*SMOOTH)
def read_smooth(graph: Graph, op: Op) -> list[Tensor]:
    """A function that is not piecewise linear, in float64."""
    value = op.value()
    defaults, make = SMOOTH[op.kind]
    attributes = {name: op.attribute(name, default) for name, default in defaults.items()}
    function = make(**attributes)
    node = Elementwise(graph.claim(op.output), value.name, value.shape, op.kind, attributes, function)
    return [graph.add(node, batched=value.batched)]
