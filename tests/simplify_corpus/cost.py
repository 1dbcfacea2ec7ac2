"""Multiply-adds and parameters of an ONNX model, counted from its text alone."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

Shape = tuple[int, ...]


def parameters(model: onnx.ModelProto) -> int:
    """Elements of all floating-point constants: initializers and Constant nodes."""
    total = 0
    for tensor in model.graph.initializer:
        total += _floats(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant":
            total += sum(_floats(a.t) for a in node.attribute if a.name == "value")
    return total


def _floats(tensor: onnx.TensorProto) -> int:
    kinds = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
    return prod(tensor.dims) if tensor.data_type in kinds else 0


def multiply_adds(model: onnx.ModelProto, inputs: dict[str, Shape]) -> int:
    """Multiply-adds of Conv, ConvTranspose, Gemm and MatMul at the given input shapes.

    Raises ValueError where a shape stays unknown.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in inputs:
            for dim, size in zip(
                value.type.tensor_type.shape.dim, inputs[value.name], strict=True
            ):
                dim.dim_value = size
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed = shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = _shapes(fixed.graph)
    return sum(_node_cost(node, shapes) for node in fixed.graph.node)


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = tuple(attribute.t.dims)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(
            d.HasField("dim_value") for d in dims
        ):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _node_cost(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    if node.domain not in ("", "ai.onnx"):
        return 0
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    names = [*node.input[:2], node.output[0]]
    unknown = [n for n in names if n not in shapes]
    if unknown:
        raise ValueError(f"node {node.name or node.op_type}: shape of {unknown} unknown")
    left, right, result = (shapes[n] for n in names)
    if node.op_type == "Conv":
        return prod(result) * prod(right[1:])
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])
    if node.op_type == "Gemm":
        trans = any(a.name == "transA" and a.i for a in node.attribute)
        return prod(result) * left[0 if trans else 1]
    return prod(result) * left[-1]


def sample(
    shape: Shape, dtype: np.dtype, rng: np.random.Generator, scale: float = 1.0
) -> np.ndarray:
    """A random input: normal numbers, or small whole numbers for integer types."""
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 4, shape).astype(dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    return (rng.standard_normal(shape) * scale).astype(dtype)


def tensor(array: np.ndarray, name: str) -> onnx.TensorProto:
    """The initializer `name` holding `array`."""
    return numpy_helper.from_array(np.ascontiguousarray(array), name)
