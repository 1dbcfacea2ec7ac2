"""Multiply-adds and parameters of an ONNX model, counted from its text alone."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, shape_inference

Shape = tuple[int, ...]
DOMAINS = ("", "ai.onnx")
COSTLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


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

    Shapes that inference does not find (behind foreign operators) are observed in a run.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in inputs:
            for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
                dim.dim_value = size
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = _shapes(shape_inference.infer_shapes(fixed, data_prop=True).graph)
    costly = [n for n in fixed.graph.node if n.domain in DOMAINS and n.op_type in COSTLY]
    names = dict.fromkeys(name for n in costly for name in (*n.input[:2], n.output[0]))
    unknown = [name for name in names if name not in shapes]
    if unknown:
        shapes |= _observed(model, inputs, unknown)
    return sum(_node_cost(node, shapes) for node in costly)


def _observed(model: onnx.ModelProto, inputs: dict[str, Shape], names: list[str]) -> dict[str, Shape]:
    """Shapes of the tensors `names` in a run on random inputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    feed = {n: sample(s, np.dtype(helper.tensor_dtype_to_np_dtype(kinds[n])), rng) for n, s in inputs.items()}
    return {n: a.shape for n, a in zip(names, session.run(None, feed), strict=True)}


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = tuple(attribute.t.dims)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _node_cost(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    left, right, result = (shapes[n] for n in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return prod(result) * prod(right[1:])
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])
    if node.op_type == "Gemm":
        trans = any(a.name == "transA" and a.i for a in node.attribute)
        return prod(result) * left[0 if trans else 1]
    return prod(result) * left[-1]


def sample(shape: Shape, dtype: np.dtype, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """A random input: normal numbers, or small whole numbers for integer types."""
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 4, shape).astype(dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    return (rng.standard_normal(shape) * scale).astype(dtype)
