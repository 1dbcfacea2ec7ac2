"""Sums, scalings, products and normalisations."""

from __future__ import annotations

import math
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext

import numpy as np

from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, reads
from redy.formats.reading.smooth import SMOOTH
from redy.model import Array, Elementwise, Operator, Product, Scale, Shape, identity

_DIGITS = 120
"""Decimal digits with which the factors of a normalization are computed before they are rounded once."""


@reads("Add", "Sum", "Sub")
def read_sum(graph: Graph, op: Op) -> list[Tensor]:
    """z = a + b (+ ...) or a - b, with numpy broadcasting."""
    full = np.broadcast_shapes(*(graph.full_shape(tensor) for tensor in op.inputs))
    batched = keeps_batch(graph, op, full)
    shape = full[1:] if batched else full
    bias, terms = np.zeros(shape), []
    for place, tensor in enumerate(op.inputs):
        sign = -1.0 if op.kind == "Sub" and place == 1 else 1.0
        if isinstance(tensor, Value):
            terms.append(_signed(graph, op, tensor, full, sign))
        else:
            bias = bias + sign * graph.sample(op.weights(place), full, batched=batched)
    return [graph.affine(op.output, terms, bias, batched=batched)]


def keeps_batch(graph: Graph, op: Op, full: Shape) -> bool:
    """Whether the result of broadcasting the inputs to the full shape `full` has the batch as its first axis."""
    values = [tensor for tensor in op.inputs if isinstance(tensor, Value) and tensor.batched]
    kept = any(len(value.shape) + 1 == len(full) for value in values) and full[0] == graph.batch
    if graph.batch > 1 and not kept:
        raise Refused("the batch axis does not come first after broadcasting")
    return kept


def _signed(graph: Graph, op: Op, value: Value, full: Shape, sign: float) -> tuple[Value, Operator]:
    """The value, broadcast and multiplied by `sign`, as a term."""
    value = broadcast(graph, op, value, full)
    return value, identity(value.shape) if sign > 0 else Scale(np.full(value.shape, sign))


def broadcast(graph: Graph, op: Op, value: Value, full: Shape) -> Value:
    """The value broadcast to the full shape, by a node of its own where that changes it."""
    if graph.full_shape(value) == full and value.batched == keeps_batch(graph, op, full):
        return value
    batched = keeps_batch(graph, op, full)
    if graph.batch == 1:
        ids = np.arange(math.prod(value.shape)).reshape(graph.full_shape(value))
        index = np.broadcast_to(ids, full)[0] if batched else np.broadcast_to(ids, full)
    elif value.batched and len(full) == len(value.shape) + 1:
        index = np.broadcast_to(np.arange(math.prod(value.shape)).reshape(value.shape), full[1:])
    else:
        raise Refused("the batch axis does not come first after broadcasting")
    return graph.moved(value, index, name=f"{op.output}.broadcast", batched=batched)


@reads("Mul", "Div")
def read_product(graph: Graph, op: Op) -> list[Tensor]:
    """A constant factor or divisor is a diagonal; the product of two values is a gate."""
    left, right = op.inputs
    full = np.broadcast_shapes(graph.full_shape(left), graph.full_shape(right))
    batched = keeps_batch(graph, op, full)
    if isinstance(left, Value) and isinstance(right, Value):
        if op.kind == "Div":
            right = _reciprocal(graph, op, right)
        a, b = broadcast(graph, op, left, full), broadcast(graph, op, right, full)
        return [graph.add(Product(op.output, a.name, b.name, a.shape), batched=batched)]
    if isinstance(left, Value):
        value, factor = left, graph.sample(op.weights(1), full, batched=batched)
        if op.kind == "Div":
            if not factor.all():
                raise Refused("a division by zero")
            factor = op.finite(1.0 / factor)
    else:
        if op.kind == "Div":
            raise Refused("a constant divided by a value")
        value, factor = op.value(1), graph.sample(op.weights(0), full, batched=batched)
    value = broadcast(graph, op, value, full)
    return [graph.affine(op.output, [(value, Scale(np.broadcast_to(factor, value.shape)))], None, batched=batched)]


def _reciprocal(graph: Graph, op: Op, value: Value) -> Value:
    """1 / value: a quotient is a product with it, in real arithmetic."""
    name = graph.claim(f"{op.output}.reciprocal")
    node = Elementwise(name, value.name, value.shape, "Reciprocal", {}, SMOOTH["Reciprocal"][1]())
    return graph.add(node, batched=value.batched)


@reads("Neg")
def read_negation(graph: Graph, op: Op) -> list[Tensor]:
    """z = -x."""
    value = op.value()
    return [graph.affine(op.output, [(value, Scale(np.full(value.shape, -1.0)))], None, batched=value.batched)]


@reads("BatchNormalization")
def read_batch_normalization(graph: Graph, op: Op) -> list[Tensor]:
    """z = (x - mean) / sqrt(var + epsilon) * scale + bias per channel, with the stored statistics.

    Factor and constant are the float64 numbers nearest to their exact values: each is off by one rounding, which
    `redy.bounds.rounding` counts.
    """
    op.only_first_output()
    if op.attribute("training_mode", 0) or (op.opset < 7 and not op.attribute("is_test", 0)):
        raise Refused("batch normalization in training mode")
    if not op.attribute("spatial", 1):
        raise Refused("batch normalization per element")
    value = graph.as_batched(op.value(), op.output)
    scale, bias, mean, variance = (op.weights(place) for place in range(1, 5))
    epsilon = Decimal(op.attribute("epsilon", float(np.float32(1e-5))))
    lines = [_normal_line(epsilon, *numbers) for numbers in zip(scale, bias, mean, variance, strict=True)]
    factor, constant = op.finite(np.array(lines).reshape(-1, 2)).T
    return [_per_channel(graph, op, value, factor, constant)]


def _normal_line(epsilon: Decimal, scale: float, bias: float, mean: float, variance: float) -> tuple[float, float]:
    """Factor and constant of one channel, nearest to scale / sqrt(variance + epsilon) and bias - factor * mean."""
    with localcontext(prec=_DIGITS) as context:
        context.traps[InvalidOperation] = context.traps[DivisionByZero] = False
        factor = Decimal(float(scale)) / (Decimal(float(variance)) + epsilon).sqrt()
        return float(factor), float(Decimal(float(bias)) - factor * Decimal(float(mean)))


def _per_channel(graph: Graph, op: Op, value: Value, factor: Array, bias: Array) -> Value:
    column = (-1, *(1,) * (len(value.shape) - 1))
    full = np.broadcast_to(factor.reshape(column), value.shape)
    return graph.affine(op.output, [(value, Scale(full))], bias.reshape(column), batched=True)
