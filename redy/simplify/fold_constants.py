"""Whole tensors that became constant.

A branch whose channels are all constant needs no layers: where it is added to (or multiplied with) a tensor of the full
shape, its place is taken by the constant, broadcast over batch and positions. Where the caller or a wall reads it, it
is expanded to its shape, taken from the graph's inputs where that is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.axes import Listed, Near
from redy.simplify.flow import Wall
from redy.simplify.flows.elementwise import Elementwise
from redy.simplify.graph import Dim, Graph, dims

_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow")


def fold_constants(graph: Graph, a: Analysis, allow: Callable[[str, str], bool]) -> int:
    """Replace whole constant tensors; returns how many."""
    folded = 0
    for node in a.nodes:
        if isinstance(a.flows[node], Wall):
            continue
        for value in node.outputs:
            facts = a.facts[value]
            shape = dims(value)
            if not facts.known.all() or shape is None:
                continue
            if not a.alive[a.atoms[value]].any():
                continue  # its readers absorb it
            readers = [use for use in value.uses() if _outlives(use.node, a)]
            if not readers and not value.is_graph_output():
                continue
            if any(isinstance(axis, Near) for axis in facts.axes) or value.dtype is None:
                continue
            table = facts.table
            for i, axis in enumerate(facts.axes):
                if isinstance(axis, Listed):
                    table = table.take(axis.index, axis=i)
            if table.size > 4 * sum(facts.known.shape) + 1024:
                continue
            where = value.name or ""
            if all(_broadcasts(use.node, use.idx, shape, a) for use in readers) and not value.is_graph_output():
                if allow("fold_constants", where):
                    constant = graph.add_constant(f"{where}_constant", table, value.dtype)
                    for use in readers:
                        use.node.replace_input_with(use.idx, constant)
                    folded += 1
            elif (
                _worth(node, a)
                and (target := _shape_of(graph, shape, node)) is not None
                and allow("fold_constants", where)
            ):
                constant = graph.add_constant(f"{where}_constant", table, value.dtype)
                new = graph.add_node(
                    "Expand", [constant, target], node, stem=f"{where}_filled", shape=shape, dtype=value.dtype
                )
                graph.replace(value, new)
                folded += 1
    return folded


def _outlives(reader: ir.Node, a: Analysis) -> bool:
    """Whether a reader stays although this input is constant: not all of its outputs are constant too."""
    if isinstance(a.flows.get(reader), Wall) or reader not in a.flows:
        return True
    return not all(a.facts[out].known.all() for out in reader.outputs)


def _broadcasts(reader: ir.Node, index: int, shape: tuple[Dim, ...], a: Analysis) -> bool:  # noqa: ARG001 - one signature for all
    """Whether the reader's output keeps its shape when this operand shrinks to a broadcast constant."""
    if reader.op_type not in _BROADCASTING or not isinstance(a.flows.get(reader), Elementwise):
        return False
    out = dims(reader.outputs[0])
    return any(
        other is not None
        and i != index
        and dims(other) == out
        and not a.graph.is_constant(other)
        and not a.facts[other].known.all()
        for i, other in enumerate(reader.inputs)
    )


def _worth(node: ir.Node, a: Analysis) -> bool:  # noqa: ARG001 - one signature for all
    """A tensor is filled only where that ends a computation, not where it is one already."""
    return node.op_type not in ("Expand", "ConstantOfShape", "Constant", "Shape")


def _shape_of(graph: Graph, shape: tuple[Dim, ...], before: ir.Node) -> ir.Value | None:
    """The shape as a tensor: a constant, or put together from the shapes of graph inputs with the same names."""
    if all(isinstance(d, int) for d in shape):
        return graph.add_constant("shape", np.asarray(shape, dtype=np.int64), ir.DataType.INT64)
    parts: list[ir.Value] = []
    found: list[tuple[ir.Value, int] | int] = []
    for d in shape:
        if isinstance(d, int):
            found.append(d)
            continue
        source = next(
            (
                (v, i)
                for v in graph.graph.inputs
                if not v.is_initializer()
                for i, e in enumerate(dims(v) or ())
                if e == d and d
            ),
            None,
        )
        if source is None:
            return None
        found.append(source)
    for entry in found:
        if isinstance(entry, int):
            parts.append(graph.add_constant("size", np.asarray([entry], dtype=np.int64), ir.DataType.INT64))
            continue
        whole = graph.add_node("Shape", [entry[0]], before, stem="shape", dtype=ir.DataType.INT64)
        index = graph.add_constant("axis", np.asarray([entry[1]], dtype=np.int64), ir.DataType.INT64)
        parts.append(graph.add_node("Gather", [whole, index], before, stem="size", dtype=ir.DataType.INT64))
    return graph.add_node("Concat", parts, before, stem="shape", dtype=ir.DataType.INT64, attributes={"axis": 0})
