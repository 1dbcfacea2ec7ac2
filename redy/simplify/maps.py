"""Maps: a constant that differs near the borders, added to what a layer makes.

A map is stored as a table over the few different rows and columns, and spread to all positions when the network runs:
columns by a product with a matrix of one 1 per column, because onnxruntime's Gather along the last axis copies number
by number, then rows by a Gather. Which row or column of the table a position reads depends, where sizes are dynamic, on
its distance to the two ends; where they are static it is stored, plus a zero that is computed from the input
(`anchor`). Without that zero every tool that evaluates constant nodes would store the whole map.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from redy.simplify.axes import UNIFORM, Axis, Listed, Near, Uniform
from redy.simplify.facts import Mask, Table
from redy.simplify.graph import Dim, Graph, dims
from redy.simplify.propagate_constants import MapTable

_SMALL = 1024
"""Elements up to which a map may be stored whole by other tools."""

_FEW_CLASSES = 32
"""Columns of a table up to which a product is cheaper than a Gather."""

_MULTIPLIED = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def add_map(graph: Graph, value: ir.Value, response: MapTable, live: Mask, axis: int, dtype: ir.DataType) -> None:
    """Add a table to a value, behind the node that makes it; all readers read the sum."""
    producer = value.producer()
    assert producer is not None
    table = response.table.compress(live, axis=axis) if response.table.shape[axis] == live.size else response.table
    shape = dims(value)
    assert shape is not None
    holder = graph.add_node(
        "Add", [value, value], None, after=producer, stem=f"{value.name}_map", shape=shape, dtype=dtype
    )
    add = holder.producer()
    assert add is not None
    graph.replace(value, holder, keep=[add])
    add.replace_input_with(1, _expanded(graph, value, table, response.axes, dtype, add))


def _expanded(
    graph: Graph, value: ir.Value, table: Table, axes: tuple[Axis, ...], dtype: ir.DataType, add: ir.Node
) -> ir.Value:
    shape = dims(value)
    assert shape is not None
    full = [
        int(d) if isinstance(x, Listed) and isinstance(d, int) else n
        for x, d, n in zip(axes, shape, table.shape, strict=True)
    ]
    static = [i for i, x in enumerate(axes) if isinstance(x, Listed)]
    if np.prod(full) <= 2 * table.size + sum(full[i] for i in static):
        for i in static:
            table = table.take(axes[i].classes(full[i]), axis=i)
        static = []
    listed = tuple(UNIFORM if isinstance(axis, Listed) and i not in static else axis for i, axis in enumerate(axes))
    return spread(graph, value, graph.add_constant(f"{value.name}_table", table, dtype), listed, add)


def spread(graph: Graph, value: ir.Value, table: ir.Value, axes: tuple[Axis, ...], before: ir.Node) -> ir.Value:
    """A table over classes, spread to the positions of `value`; the innermost axis first, while it is small."""
    shape, full = list(dims(table) or ()), dims(value) or ()
    folded = [n if isinstance(axis, Uniform) else full[i] for i, (axis, n) in enumerate(zip(axes, shape, strict=True))]
    large = math.prod(d for d in folded if isinstance(d, int)) > _SMALL
    for i in reversed(range(len(axes))):
        axis = axes[i]
        if isinstance(axis, Uniform):
            continue
        shape[i] = full[i]
        if isinstance(axis, Listed):
            index = _listed_index(
                graph, value, axis, guarded=large and (graph.is_constant(table) or table.name in graph.mapped)
            )
        else:
            index = _near_index(graph, value, i, axis, before)
        if i == len(axes) - 1 and i > 2 and large and table.dtype in _MULTIPLIED and axis.count <= _FEW_CLASSES:
            columns = _columns(graph, index, axis.count, full[i], table.dtype, before)
            table = graph.add_node("MatMul", [table, columns], before, stem="map", shape=shape, dtype=table.dtype)
        else:
            table = graph.add_node(
                "Gather", [table, index], before, stem="map", shape=shape, dtype=table.dtype, attributes={"axis": i}
            )
        graph.mapped.add(table.name or "")
    return table


def _columns(
    graph: Graph, index: ir.Value, classes: int, length: Dim, dtype: ir.DataType | None, before: ir.Node
) -> ir.Value:
    """(classes, positions): 1 where the position has the class; shared by maps of the same index."""
    assert dtype is not None
    key = f"{index.name} as {dtype}".encode()
    shared = index in graph.indices.values()
    if shared and _there(graph.indices.get(key)):
        return graph.indices[key]
    numbers = graph.add_constant("classes", np.arange(classes)[:, None], ir.DataType.INT64)
    shape = [classes, length]
    hit = graph.add_node(
        "Equal", [numbers, index], None if shared else before, stem="hit", shape=shape, dtype=ir.DataType.BOOL,
        after=index.producer() if shared else None,
    )  # fmt: skip
    ones = graph.add_node(
        "Cast", [hit], None if shared else before, after=hit.producer() if shared else None, stem="columns",
        shape=shape, dtype=dtype, attributes={"to": int(dtype)},
    )  # fmt: skip
    if shared:
        graph.indices[key] = ones
    return ones


def _listed_index(graph: Graph, value: ir.Value, axis: Listed, *, guarded: bool) -> ir.Value:
    index = graph.add_constant(f"{value.name}_classes", axis.index, ir.DataType.INT64)
    zero = anchor(graph) if guarded else None
    first = next(iter(graph.graph), None)
    if zero is None or first is None:
        return index
    key = axis.index.tobytes()
    if not _there(graph.indices.get(key)):
        producer = zero.producer()
        graph.indices[key] = graph.add_node(
            "Add", [index, zero], None, after=producer, stem="classes", shape=[len(axis.index)], dtype=ir.DataType.INT64
        )
    return graph.indices[key]


def anchor(graph: Graph) -> ir.Value | None:
    """A zero (one whole number) that follows from the first input: the place of the largest of one number."""
    if _there(graph.zero) or graph.opset < 7:
        return graph.zero
    source = next(
        (v for v in graph.graph.inputs if not v.is_initializer() and v.dtype in _MULTIPLIED and dims(v)), None
    )
    first = next(iter(graph.graph), None)
    if source is None or first is None:
        return None
    rank = len(dims(source) or ())
    starts, ends = [0] * rank, [1] * rank
    bounds: list[ir.Value] = []
    attributes: dict[str, int | float | str | list[int]] = {"starts": starts, "ends": ends}
    if graph.opset >= 10:
        bounds = [graph.add_constant("bound", np.array(k), ir.DataType.INT64) for k in (starts, ends)]
        attributes = {}
    corner = graph.add_node(
        "Slice", [source, *bounds], first, stem="corner", shape=ends, dtype=source.dtype, attributes=attributes
    )
    place = graph.add_node(
        "ArgMax", [corner], first, stem="place", shape=ends[1:], dtype=ir.DataType.INT64,
        attributes={"axis": rank - 1, "keepdims": 0},
    )  # fmt: skip
    one = graph.add_constant("one", np.array([1]), ir.DataType.INT64)
    graph.zero = graph.add_node("Reshape", [place, one], first, stem="zero", shape=[1], dtype=ir.DataType.INT64)
    return graph.zero


def _there(value: ir.Value | None) -> bool:
    """Whether the value was made and its node has not been removed since."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.graph is not None


def _near_index(graph: Graph, value: ir.Value, axis: int, near: Near, add: ir.Node) -> ir.Value:
    """min(p, left) * (right + 1) + min(n - 1 - p, right) for p = 0 .. n - 1, n the length of `axis` at run time."""

    def number(x: int) -> ir.Value:
        return graph.add_constant("number", np.asarray(x, dtype=np.int64), ir.DataType.INT64)

    def make(op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return graph.add_node(op, inputs, add, stem="position", dtype=ir.DataType.INT64, attributes=dict(attributes))

    def at_most(x: ir.Value, limit: int) -> ir.Value:
        if graph.opset >= 12:  # Min of integers
            return make("Min", x, number(limit))
        real = graph.add_node("Cast", [x], add, stem="position", attributes={"to": int(ir.DataType.FLOAT)})
        bound = graph.add_constant("number", np.asarray(limit), ir.DataType.FLOAT)
        low = graph.add_node("Min", [real, bound], add, stem="position")
        return make("Cast", low, to=int(ir.DataType.INT64))

    length = make("Gather", make("Shape", value), number(axis), axis=0)
    p = make("Range", number(0), length, number(1))
    from_left = make("Mul", at_most(p, near.left), number(near.right + 1))
    reverse = make("Sub", make("Sub", length, number(1)), p)
    return make("Add", from_left, at_most(reverse, near.right))
