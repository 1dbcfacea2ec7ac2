"""Parameters, multiply-adds and an estimate of onnxruntime's time, counted from shapes.

Sizes that are dynamic count as `NOMINAL` says, a batch as 1. The estimate is in nanoseconds of one thread, coarse, and
there to compare forms of one model: what a layer multiplies, with its channels rounded up to the blocks that
onnxruntime computes at once, and what every node moves that is not merged into the layer before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from redy.simplify.graph import Dim, Graph, dims, get_int, infer_shapes, is_standard

NOMINAL = {4: 224, 5: 32}
"""Size of a dynamic axis, but the first, of an input of this rank; of others it is `OTHER_NOMINAL`."""
OTHER_NOMINAL = 128

_BLOCK = 8
_PER_MULTIPLY_ADD = 0.04
_PER_MULTIPLY_ADD_UNBLOCKED = 0.12
_PER_ELEMENT = 0.25
_PER_ELEMENT_MOVED = 1.0
_FREE = frozenset(["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Shape", "Dropout", "Size"])
_MOVING = frozenset(["Gather", "Pad", "Transpose", "Concat", "Slice", "Split", "Expand", "Tile", "ScatterND"])
_ABSORBED = frozenset(["Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "BatchNormalization"])
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Sizes = Mapping[ir.Value, tuple[Dim, ...]]


@dataclass(frozen=True)
class Cost:
    """Numbers in initializers and constants of floating-point type, multiply-adds and nanoseconds of one evaluation."""

    parameters: int
    multiply_adds: int
    estimate: float = 0.0


def count(graph: Graph) -> Cost:
    """Count a graph at its nominal sizes."""
    sizes = nominal(graph)
    total, time = 0, 0.0
    for node in graph.graph.all_nodes():
        if is_standard(node):
            work = multiply_adds(node, sizes)
            total += work
            time += _time(node, work, graph, sizes)
    return Cost(parameters(graph), total, time)


def nominal(graph: Graph) -> Sizes:
    """The shapes of values where all sizes of the inputs are given numbers; empty where only a batch is dynamic."""
    inputs = [(v, shape) for v in graph.graph.inputs if not v.is_initializer() and (shape := dims(v)) is not None]
    if all(isinstance(d, int) for _, shape in inputs for d in shape[1:]):
        return {}
    values = [v for v in [*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs)] if v is not None]
    kept = [(v, v.shape) for v in values]
    named: dict[str, int] = {}
    for value, shape in inputs:
        free = NOMINAL.get(len(shape), OTHER_NOMINAL)
        given = [
            d if isinstance(d, int) else named.setdefault(d or "", 1 if i == 0 else free) for i, d in enumerate(shape)
        ]
        value.shape = ir.Shape(given)
    for node in graph.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    infer_shapes(graph.model)
    found = {v: shape for v in values if (shape := dims(v)) is not None}
    for value, old in kept:
        value.shape = old
    return found


def parameters(graph: Graph) -> int:
    """Elements of all floating-point constants, each counted once however often it is used."""
    seen = 0
    values = [v for v in graph.graph.initializers.values() if v.const_value is not None]
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        if tensor.dtype.is_floating_point():
            seen += tensor.size
    for node in graph.nodes():
        if node.op_type == "Constant" and is_standard(node):
            array = graph.constant(node.outputs[0])
            if array is not None and not np.issubdtype(array.dtype, np.integer):
                seen += array.size
    return seen


def multiply_adds(node: ir.Node, sizes: Sizes) -> int:
    """Multiply-adds of Conv, ConvTranspose, Gemm and MatMul; 0 for anything else and where shapes are unknown."""
    if node.op_type not in _LAYERS:
        return 0
    x, w, y = (_sizes(v, sizes) for v in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if x is None or w is None or y is None:
        return 0
    if node.op_type == "Conv":
        return int(np.prod(y)) * int(np.prod(w[1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(x)) * int(np.prod(w[1:]))
    inner = x[0] if get_int(node, "transA", 0) else x[-1]
    return int(np.prod(y)) * inner


def _time(node: ir.Node, work: int, graph: Graph, sizes: Sizes) -> float:
    """Nanoseconds of one node."""
    if work and node.op_type in _LAYERS:
        return work * _rate(node, sizes)
    if node.op_type in _FREE or not node.outputs:
        return 0.0
    shape = _sizes(node.outputs[0], sizes)
    elements = float(np.prod(shape)) if shape else 1.0
    if _merged(node, graph):
        return 0.0
    return elements * (_PER_ELEMENT_MOVED if node.op_type in _MOVING else _PER_ELEMENT)


def _rate(node: ir.Node, sizes: Sizes) -> float:
    """Nanoseconds of one multiply-add: more where channels do not fill blocks."""
    y = _sizes(node.outputs[0], sizes)
    if node.op_type not in ("Conv", "ConvTranspose") or y is None or len(y) < 2:
        return _PER_MULTIPLY_ADD
    channels, groups = y[1], get_int(node, "group", 1)
    if groups > 1:
        return _PER_MULTIPLY_ADD if channels % _BLOCK == 0 else _PER_MULTIPLY_ADD_UNBLOCKED
    return _PER_MULTIPLY_ADD * (-(-channels // _BLOCK) * _BLOCK) / max(channels, 1)


def _merged(node: ir.Node, graph: Graph) -> bool:
    """Whether onnxruntime makes it part of a convolution: an activation behind one, or a sum with what one makes."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is None or producer.op_type != "Conv" or value is None or graph.sole_reader(value) is not node:
            continue
        if node.op_type in _ABSORBED:
            return True
        if node.op_type in ("Add", "Sum"):
            return all(dims(v) == dims(value) and not graph.is_constant(v) for v in node.inputs)
    return False


def _sizes(value: ir.Value | None, sizes: Sizes) -> list[int] | None:
    shape = None if value is None else sizes.get(value, dims(value))
    if shape is None and value is not None and value.const_value is not None:
        shape = tuple(int(d) for d in value.const_value.shape)  # type: ignore[arg-type]  # a tensor has a static shape
    if shape is None:
        return None
    return [d if isinstance(d, int) else 1 for d in shape]
