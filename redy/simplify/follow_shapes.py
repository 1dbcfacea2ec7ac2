"""Sizes that a graph computes for itself, followed symbolically.

A shape in ONNX is a tensor of integers: Shape, Gather, Slice, Unsqueeze, Concat and a little arithmetic put it
together, and Reshape reads it. Shape inference gives up on much of it. Here every small integer tensor is a list of
dimensions (a number, the name of a dynamic dimension, or None), so that the shape behind a Reshape is known.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from redy.simplify.graph import Dim, Graph, dims, get_int, input_of, is_standard

Sizes = list[Dim]
_LONGEST = 64


def follow_shapes(graph: Graph) -> int:
    """Store sizes that turn out static, and annotate outputs of Reshape whose shape follows; how many were new.

    Shape inference can go on from there, after which there may be more.
    """
    return _store(graph) + _annotate(graph)


def _store(graph: Graph) -> int:
    """Let readers of computed sizes read stored ones where all are static; the number of tensors."""
    known: dict[ir.Value, Sizes] = {}
    stored = 0
    for node in graph.nodes():
        sizes = _sizes(graph, node, known) if is_standard(node) else None
        if sizes is None:
            continue
        out = node.outputs[0]
        known[out] = sizes
        rank, numbers = dims(out), [d for d in sizes if isinstance(d, int)]
        if len(numbers) < len(sizes) or rank not in {(), (len(sizes),)} or out.dtype is None or not out.uses():
            continue
        if graph.exported(out) or node.op_type == "Constant":
            continue
        array = np.asarray(numbers, dtype=np.int64).reshape([len(sizes)] if rank else [])
        graph.replace(out, graph.add_constant("sizes", array, out.dtype))
        stored += 1
    if stored:
        graph.remove_unread()
    return stored


def _annotate(graph: Graph) -> int:
    known: dict[ir.Value, Sizes] = {}
    changed = 0
    for node in graph.nodes():
        if not is_standard(node):
            continue
        if (sizes := _sizes(graph, node, known)) is not None:
            known[node.outputs[0]] = sizes
        if node.op_type == "Reshape":
            changed |= _annotate_reshape(graph, node, known)
    return changed


def _annotate_reshape(graph: Graph, node: ir.Node, known: dict[ir.Value, Sizes]) -> bool:
    before, asked = dims(node.inputs[0]), _given(graph, input_of(node, 1), known)
    if before is None or asked is None or get_int(node, "allowzero", 0):
        return False
    after = reshaped(before, asked)
    out = node.outputs[0]
    there = dims(out)
    if there is not None and (
        len(there) != len(after) or all(d is None or d == e for d, e in zip(after, there, strict=True))
    ):
        return False
    merged = [e if d is None else d for d, e in zip(after, there or [None] * len(after), strict=True)]
    out.shape = ir.Shape(merged)
    return True


def reshaped(before: tuple[Dim, ...], asked: Sizes) -> Sizes:
    """The shape behind a Reshape: 0 copies a dimension, one -1 takes what is left if that can be told."""
    after: Sizes = [before[i] if d == 0 and i < len(before) else d for i, d in enumerate(asked)]
    if -1 in after:
        hole = after.index(-1)
        rest = after[:hole] + after[hole + 1 :]
        names = [d for d in before if not isinstance(d, int)]
        others = [d for d in rest if not isinstance(d, int)]
        after[hole] = None
        if None not in names and sorted(map(str, names)) == sorted(map(str, others)):
            whole = math.prod(d for d in before if isinstance(d, int))
            part = math.prod(d for d in rest if isinstance(d, int))
            after[hole] = whole // part if part and whole % part == 0 else None
    return after


def _given(graph: Graph, value: ir.Value | None, known: dict[ir.Value, Sizes]) -> Sizes | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    array = graph.constant(value)
    if array is None or array.dtype.kind != "i" or array.ndim > 1 or array.size > _LONGEST:
        return None
    return [int(d) for d in array.ravel()]


def _sizes(graph: Graph, node: ir.Node, known: dict[ir.Value, Sizes]) -> Sizes | None:
    """The entries of an integer tensor of rank 0 or 1, where the node makes one."""
    op, shape = node.op_type, dims(node.inputs[0]) if node.inputs else None
    if op == "Shape":
        if shape is None:
            return None
        end = node.attributes["end"].as_int() if "end" in node.attributes else None
        return list(shape[slice(get_int(node, "start", 0), end)])
    parts = [_given(graph, value, known) for value in node.inputs if value is not None]
    if not parts or parts[0] is None:
        return None
    first = parts[0]
    if op in ("Unsqueeze", "Squeeze", "Identity") or (op == "Cast" and get_int(node, "to", 0) in (6, 7)):
        return first
    if op == "Concat" and all(part is not None for part in parts):
        return [d for part in parts if part is not None for d in part]
    if op == "Gather" and len(parts) == 2 and parts[1] is not None:
        picked = parts[1]
        if all(isinstance(i, int) and -len(first) <= i < len(first) for i in picked):
            return [first[int(i)] for i in picked if isinstance(i, int)]
    if op == "Slice" and (bounds := _bounds(graph, node)) is not None:
        return first[bounds]
    return _arithmetic(op, parts)


def _bounds(graph: Graph, node: ir.Node) -> slice | None:
    starts, ends = graph.integers(node, "starts", 1), graph.integers(node, "ends", 2)
    steps = graph.integers(node, "steps", 4)
    if starts is None or ends is None or len(starts) != 1 or (steps is None and input_of(node, 4) is not None):
        return None
    step = 1 if steps is None else steps[0]
    return slice(starts[0], ends[0], step) if step > 0 else None


def _arithmetic(op: str, parts: list[Sizes | None]) -> Sizes | None:
    if op not in ("Mul", "Add", "Sub", "Div") or len(parts) != 2:
        return None
    a, b = parts
    if a is None or b is None:
        return None
    if len(a) != len(b):
        a, b = (a * len(b), b) if len(a) == 1 else (a, b * len(a))
    if len(a) != len(b):
        return None
    make = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.floor_divide}[op]
    return [
        int(make(x, y)) if isinstance(x, int) and isinstance(y, int) and (op != "Div" or (y > 0 and x >= 0)) else None
        for x, y in zip(a, b, strict=True)
    ]
