"""Parameters and multiply-adds of a graph, counted from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from redy.simplify.graph import Graph, dims, get_int, is_standard


@dataclass(frozen=True)
class Cost:
    """Numbers in initializers and constants of floating-point type, and multiply-adds of one evaluation."""

    parameters: int
    multiply_adds: int


def count(graph: Graph, sizes: Mapping[str, int] | None = None) -> Cost:
    """Count a graph; dynamic dimensions take their value from `sizes` by name, else 1."""
    total = 0
    for node in graph.graph.all_nodes():
        if is_standard(node):
            total += multiply_adds(node, sizes or {})
    return Cost(parameters(graph), total)


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


def multiply_adds(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """Multiply-adds of Conv, ConvTranspose, Gemm and MatMul; 0 for anything else and where shapes are unknown."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
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


def _sizes(value: ir.Value | None, sizes: Mapping[str, int]) -> list[int] | None:
    shape = dims(value)
    if shape is None and value is not None and value.const_value is not None:
        shape = tuple(int(d) for d in value.const_value.shape)  # type: ignore[arg-type]  # a tensor has a static shape
    if shape is None:
        return None
    return [d if isinstance(d, int) else sizes.get(d or "", 1) for d in shape]
