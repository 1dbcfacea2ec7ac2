"""Parameters, multiply-adds and an estimate of onnxruntime's time, counted from shapes.

Sizes that are dynamic count as `NOMINAL` says, a batch as 1. The estimate is in nanoseconds of one thread, coarse, and
there to compare forms of one model: what a layer multiplies, with its channels rounded up to the blocks that
onnxruntime computes at once, and what every node moves that is not merged into the layer before it. What is computed
from stored tensors alone costs nothing, because it is computed when the model is loaded.
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
# Nanoseconds, measured with one thread (benchmarks/runtime_costs.py); only their proportions matter.
_PER_NODE = 320.0
_PER_MULTIPLY_ADD = 0.01
_PER_MULTIPLY_ADD_DEPTHWISE = 0.035
_PER_MULTIPLY_ADD_UNBLOCKED = 0.125
_PER_ELEMENT = 0.1
_PER_ELEMENT_BEHIND_CONVOLUTION = 0.4  # the blocks are put in order before, and back behind it
_PER_ELEMENT_OF_MAP = 1.0  # a sum with a tensor of all positions, which also keeps the activation apart
_PER_ELEMENT_PICKED = 2.4  # a Gather along the last axis copies number by number
_FREE = frozenset(["Identity", "Constant", "Dropout"])
_NO_WORK = frozenset(["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape", "Size"])
_ABSORBED = frozenset(["Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "BatchNormalization"])
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Sizes = Mapping[ir.Value, tuple[Dim, ...]]


@dataclass(frozen=True)
class Cost:
    """What one evaluation takes.

    Attributes:
        parameters: numbers in initializers and constants of floating-point type.
        multiply_adds: of convolutions and matrix products.
        estimate: nanoseconds of one thread.
        unblocked: how many of these go to grouped convolutions whose channels do not fill blocks.
    """

    parameters: int
    multiply_adds: int
    estimate: float = 0.0
    unblocked: float = 0.0


def count(graph: Graph) -> Cost:
    """Count a graph at its nominal sizes."""
    sizes = nominal(graph)
    total, time, unblocked = 0, 0.0, 0.0
    stored = set(graph.graph.initializers.values())
    for node in graph.graph.all_nodes():
        if node.inputs and all(value is None or value in stored for value in node.inputs):
            stored.update(node.outputs)  # computed once, when the model is loaded
        elif is_standard(node):
            work = multiply_adds(node, sizes)
            total += work
            spent = _time(node, work, graph, sizes)
            time += spent
            unblocked += spent if work and _rate(node, sizes) == _PER_MULTIPLY_ADD_UNBLOCKED else 0.0
    return Cost(parameters(graph), total, time, unblocked)


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
        return _PER_NODE + work * _rate(node, sizes)
    if node.op_type in _FREE or not node.outputs or _merged(node, graph):
        return 0.0
    shape = _sizes(node.outputs[0], sizes)
    if node.op_type in _NO_WORK or not shape:
        return _PER_NODE
    rate = _PER_ELEMENT
    if node.op_type == "Gather" and get_int(node, "axis", 0) % len(shape) == len(shape) - 1:
        rate = _PER_ELEMENT_PICKED
    elif _behind_convolution(node, graph):
        rate = _PER_ELEMENT_OF_MAP if _adds_map(node, sizes) else _PER_ELEMENT_BEHIND_CONVOLUTION
    return _PER_NODE + float(np.prod(shape)) * rate


def _rate(node: ir.Node, sizes: Sizes) -> float:
    """Nanoseconds of one multiply-add: more where channels do not fill blocks."""
    y = _sizes(node.outputs[0], sizes)
    if node.op_type not in ("Conv", "ConvTranspose") or y is None or len(y) < 2:
        return _PER_MULTIPLY_ADD
    channels, groups = y[1], get_int(node, "group", 1)
    if groups > 1:
        depthwise = groups == channels
        blocked = _PER_MULTIPLY_ADD_DEPTHWISE if depthwise else _PER_MULTIPLY_ADD
        return blocked if channels % _BLOCK == 0 else _PER_MULTIPLY_ADD_UNBLOCKED
    return _PER_MULTIPLY_ADD * (-(-channels // _BLOCK) * _BLOCK) / max(channels, 1)


def _behind_convolution(node: ir.Node, graph: Graph) -> bool:
    """Whether it reads what a convolution makes, perhaps with what is merged into that."""
    producers = [p for value in node.inputs if value is not None and (p := value.producer()) is not None]
    return any(p.op_type == "Conv" or (_merged(p, graph) and p.op_type in _ABSORBED) for p in producers)


def _adds_map(node: ir.Node, sizes: Sizes) -> bool:
    """Whether it adds a table of positions: a stored one, or one gathered at run time."""
    if node.op_type != "Add":
        return False
    for value in node.inputs:
        producer = None if value is None else value.producer()
        shape = _sizes(value, sizes) or []
        if producer is not None and producer.op_type == "Gather":
            return True
        if producer is None and value is not None and value.is_initializer() and any(n > 1 for n in shape[2:]):
            return True
    return False


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
