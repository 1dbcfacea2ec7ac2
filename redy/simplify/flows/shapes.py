"""Shape: it reads sizes, not values, and so stands in no channel's way as long as only other sizes are read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, dims, get_int, is_standard


class SizesOf(Flow):
    """The sizes along `axes` are read; a value with channels along one of them keeps them all."""

    def __init__(self, axes: set[int]) -> None:
        self.axes = axes

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        if any(a.atoms[x].shape[axis] > 1 for axis in self.axes):
            a.pin(x)
        a.opaque(node.outputs[0])

    def backward(self, node: ir.Node, a: Analysis) -> None:
        """No value is read: `Analysis` keeps one channel, because the node reads a tensor all the same."""


def axes_read(node: ir.Node, graph: Graph) -> set[int] | None:
    """Which axes' sizes the readers of a Shape take; None where the rank is not known."""
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    given = list(range(len(shape)))[slice(get_int(node, "start", 0), end)]
    out = node.outputs[0]
    if out.is_graph_output():
        return set(given)
    read: set[int] = set()
    for use in out.uses():
        picked = _picked(use.node, use.idx, graph, len(given))
        if picked is None or use.node.graph is not graph.graph:
            return set(given)
        read |= {given[i] for i in picked}
    return read


def _picked(reader: ir.Node, index: int, graph: Graph, count: int) -> list[int] | None:
    """Which entries a Gather or Slice takes of a vector; None for any other reader."""
    if index != 0 or not is_standard(reader):
        return None
    if reader.op_type == "Gather":
        indices = graph.constant(reader.inputs[1])
        return None if indices is None else [int(i) % count for i in np.asarray(indices).ravel()]
    if reader.op_type == "Slice":
        starts, ends, steps = (
            graph.integers(reader, name, i) for name, i in (("starts", 1), ("ends", 2), ("steps", 4))
        )
        if starts is None or ends is None or (steps is None and len(reader.inputs) > 4):
            return None
        return list(range(count))[slice(starts[0], ends[0], 1 if steps is None else steps[0])]
    return None


def _shape(node: ir.Node, graph: Graph) -> Flow | str:
    axes = axes_read(node, graph)
    return SizesOf(axes) if axes is not None else "the rank of what it measures is not known"


RULES = {"Shape": _shape}
