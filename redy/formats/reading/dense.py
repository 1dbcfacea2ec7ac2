"""Matrix products."""

from __future__ import annotations

import math

import numpy as np

from redy.formats.reading.arithmetic import broadcast
from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, reads
from redy.model import Array, Dense, Operator, Positionwise, Scale


@reads("Gemm")
def read_gemm(graph: Graph, op: Op) -> list[Tensor]:
    """z = alpha * A' B' + beta * C, A' and B' transposed where the attributes say so; C may be a value."""
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    left, right = op.input(0), op.input(1)
    if isinstance(left, Value) and isinstance(right, np.ndarray):
        weight = op.weights(1)
        weight = weight if op.attribute("transB", 0) else weight.T
        value = _transposed(graph, op, left) if op.attribute("transA", 0) else left
        product = _times(graph, value, alpha * weight, f"{op.output}.product")
    elif isinstance(left, np.ndarray) and isinstance(right, Value):
        weight = op.weights(0).T if op.attribute("transA", 0) else op.weights(0)
        value = _transposed(graph, op, right) if op.attribute("transB", 0) else right
        product = _before(graph, op, alpha * weight, value, f"{op.output}.product")
    else:
        raise Refused("the product of two values")
    addend = op.input(2)
    return [_plus(graph, op, product, addend, beta)]


def _plus(graph: Graph, op: Op, product: Value, addend: Tensor, beta: float) -> Value:
    """product + beta * addend under the node's own name."""
    full = graph.full_shape(product)
    terms: list[tuple[Value, Operator]] = [(product, Scale(np.ones(product.shape)))]
    bias: Array | None = None
    if isinstance(addend, Value):
        spread = broadcast(graph, op, addend, full)
        terms.append((spread, Scale(np.full(product.shape, beta))))
    elif addend is not None:
        bias = graph.sample(beta * op.weights(2), full, batched=product.batched)
    return graph.affine(op.output, terms, bias, batched=product.batched)


def _transposed(graph: Graph, op: Op, value: Value) -> Value:
    if value.batched and graph.batch > 1:
        raise Refused("a transposition mixes the samples of a batch")
    rows, columns = graph.full_shape(value)
    index = np.arange(rows * columns).reshape(rows, columns).T
    return graph.moved(value, index, name=f"{op.output}.transposed", batched=False)


@reads("MatMul")
def read_matmul(graph: Graph, op: Op) -> list[Tensor]:
    """x W or W x for a constant W, with numpy's rules for more than two axes."""
    left, right = op.input(0), op.input(1)
    if isinstance(left, Value) and isinstance(right, np.ndarray):
        weight = op.weights(1)
        if weight.ndim == 1:
            product = _times(graph, left, weight[None], f"{op.output}.product")
            return [graph.reshaped(product, product.shape[:-1], batched=left.batched, name=op.output)]
        if weight.ndim == 2 or (math.prod(weight.shape[:-2]) == 1 and weight.ndim <= len(graph.full_shape(left))):
            return [_times(graph, left, weight.reshape(weight.shape[-2:]).T, op.output)]
        raise Refused("a stack of matrices")
    if isinstance(left, np.ndarray) and isinstance(right, Value):
        weight = op.weights(0)
        if weight.ndim == 1:
            product = _before(graph, op, weight[None], right, f"{op.output}.rows")
            full = graph.full_shape(product)
            shape = (*full[:-2], full[-1])
            sample = shape[1:] if product.batched else shape
            return [graph.reshaped(product, sample, batched=product.batched, name=op.output)]
        if weight.ndim == 2:
            return [_before(graph, op, weight, right, op.output)]
    raise Refused("the product of two values or a stack of matrices")


def _times(graph: Graph, value: Value, weight: Array, name: str) -> Value:
    """W (out, in) applied to the last axis of the file's tensor."""
    if not value.shape:
        raise Refused("a product that mixes the samples of a batch")
    if value.shape[-1] != weight.shape[1]:
        raise Refused(f"a weight for {weight.shape[1]} elements meets {value.shape[-1]}")
    out_shape = (*value.shape[:-1], weight.shape[0])
    operator: Operator
    if math.prod(value.shape[:-1]) == 1:
        operator = Dense(weight, value.shape, out_shape)
    else:
        operator = Positionwise(weight, value.shape)
    return graph.affine(name, [(value, operator)], None, batched=value.batched)


def _before(graph: Graph, op: Op, weight: Array, value: Value, name: str) -> Value:
    """W (out, in) applied to the last axis but one: transposed there, multiplied, and transposed back."""
    if value.batched and len(value.shape) < 2 and graph.batch > 1:
        raise Refused("a product that mixes the samples of a batch")
    full = graph.full_shape(value)
    if len(full) == 1:
        return _times(graph, value, weight, name)
    # With batch size 1 a matrix whose first axis was the batch is multiplied along just that axis.
    batched = value.batched and len(value.shape) >= 2
    shape = value.shape if batched else full
    ids = np.swapaxes(np.arange(math.prod(shape)).reshape(shape), -1, -2)
    moved = graph.moved(value, ids, name=f"{op.output}.columns", batched=batched)
    product = _times(graph, moved, weight, f"{op.output}.product")
    back = np.swapaxes(np.arange(math.prod(product.shape)).reshape(product.shape), -1, -2)
    return graph.moved(product, back, name=name, batched=batched)
