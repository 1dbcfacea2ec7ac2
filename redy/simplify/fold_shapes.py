"""Two preparations that make channels easier to follow: static shapes as constants, and channel shuffles as one Gather.

Reshape (N, g k, ..) -> (N, g, k, ..), Transpose of the two, Reshape back permutes channels: channel c of the result is
channel (c mod g) * k + c div g. Written as a Gather, any set of channels can be taken from it; a shuffle whose groups
lose channels evenly or not at all could stay, but a Gather moves the same bytes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.graph import Graph, dims, get_int, get_ints, is_standard


def fold_shapes(graph: Graph) -> int:
    """Replace Shape, and Gather or Slice of Shape, by constants where the dimensions are static."""
    folded = 0
    for node in graph.nodes():
        if node.op_type != "Shape" or not is_standard(node) or node.attributes:
            continue
        shape = dims(node.inputs[0])
        if shape is None:
            continue
        out = node.outputs[0]
        for use in list(out.uses()):
            reader = use.node
            if reader.op_type != "Gather" or not is_standard(reader) or use.idx != 0 or reader.graph is not graph.graph:
                continue
            index = graph.constant(reader.inputs[1])
            if index is None or get_int(reader, "axis", 0) != 0:
                continue
            picked = [shape[int(i)] for i in index.ravel()]
            if all(isinstance(d, int) for d in picked) and not reader.outputs[0].is_graph_output():
                value = np.asarray(picked, dtype=np.int64).reshape(index.shape)
                graph.replace(reader.outputs[0], graph.add_constant("size", value, ir.DataType.INT64))
                folded += 1
        if all(isinstance(d, int) for d in shape) and not out.is_graph_output():
            graph.replace(out, graph.add_constant("shape", np.asarray(shape, dtype=np.int64), ir.DataType.INT64))
            folded += 1
    if folded:
        graph.remove_unread()
    return folded


def fuse_shuffles(graph: Graph) -> int:
    """Replace Reshape-Transpose-Reshape that only permutes axis 1 by a Gather."""
    fused = 0
    for node in graph.nodes():
        if node.op_type != "Transpose" or not is_standard(node) or node.graph is None or node.inputs[0] is None:
            continue
        first, last = node.inputs[0].producer(), graph.sole_reader(node.outputs[0])
        if first is None or last is None or first.op_type != "Reshape" or last.op_type != "Reshape":
            continue
        if (
            graph.sole_reader(node.inputs[0]) is not node
            or not is_standard(first)
            or last.inputs[0] is not node.outputs[0]
        ):
            continue
        before, middle, after = dims(first.inputs[0]), dims(node.inputs[0]), dims(last.outputs[0])
        index = _permutation(before, middle, after, get_ints(node, "perm", []))
        x = first.inputs[0]
        if index is None or x is None:
            continue
        out = last.outputs[0]
        indices = graph.add_constant("shuffle", index, ir.DataType.INT64)
        new = graph.add_node(
            "Gather", [x, indices], first, stem="shuffled", shape=after, dtype=out.dtype, attributes={"axis": 1}
        )
        graph.replace(out, new)
        graph.remove([first, node, last])
        fused += 1
    return fused


def _permutation(before: object, middle: object, after: object, perm: list[int]) -> np.ndarray | None:
    if not (isinstance(before, tuple) and isinstance(middle, tuple) and isinstance(after, tuple)):
        return None
    rank = len(before)
    if len(middle) != rank + 1 or len(after) != rank or perm != [0, 2, 1, *range(3, rank + 1)]:
        return None
    groups, per = middle[1], middle[2]
    if not isinstance(groups, int) or not isinstance(per, int) or before[1] != groups * per or after[1] != before[1]:
        return None
    static = [d for d in before[2:] if isinstance(d, int)]
    same = all(a == b == c for a, b, c in zip(before[2:], middle[3:], after[2:], strict=True) if isinstance(a, int))
    if not same or (len(before) - len(static) > 2 and before[2:] != after[2:]):
        return None
    return np.arange(groups * per, dtype=np.int64).reshape(groups, per).T.ravel()
