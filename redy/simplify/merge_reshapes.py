"""Reshape, Transpose, Reshape becomes Reshape, Transpose where the second Reshape only cuts axes.

Attention merges batch and heads for a product of three axes and takes them apart behind it:
(n, h, t, d) -> (n h, t, d) -> (n h, d, t) -> (n, h, d, t). With a dynamic batch nobody knows any more which of the n h
entries are which head. Cut before the transposition instead, every axis stays what it is; the first Reshape goes too
where it would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from redy.simplify.flows.reshaping import blocks
from redy.simplify.graph import Dim, Graph, dims, get_ints, is_standard


def merge_reshapes(graph: Graph, allow: Callable[[str, str], bool]) -> int:
    """Merge wherever no other node reads what lies between; returns how many Reshapes went."""
    merged = 0
    for node in graph.nodes():
        chain = _chain(graph, node)
        if chain is None:
            continue
        first, last = chain
        x, middle, out = first.inputs[0], dims(first.outputs[0]), last.outputs[0]
        before, after = dims(x), dims(out)
        perm = get_ints(node, "perm", list(range(len(middle or ())))[::-1])
        if x is None or before is None or middle is None or after is None:
            continue
        runs = _runs([middle[axis] for axis in perm], after)
        if runs is None:
            continue
        fine = [d for axis in range(len(middle)) for d in (after[k] for k in runs[perm.index(axis)])]
        target = [] if tuple(fine) == before else _target(before, fine)
        if target is None or not allow("merge_reshapes", node.name or node.outputs[0].name or ""):
            continue
        starts = np.cumsum([0, *(len(runs[perm.index(axis)]) for axis in range(len(middle)))])
        order = [int(k) for axis in perm for k in range(starts[axis], starts[axis + 1])]
        cut = x
        if target:
            shape = graph.add_constant(f"{out.name}_cut", np.asarray(target, dtype=np.int64), ir.DataType.INT64)
            cut = graph.add_node("Reshape", [x, shape], node, stem=f"{out.name}_apart", shape=fine, dtype=out.dtype)
        moved = graph.add_node(
            "Transpose", [cut], node, stem=f"{out.name}_moved", shape=after, dtype=out.dtype, attributes={"perm": order}
        )
        graph.replace(out, moved)
        graph.remove([first, node, last])
        merged += 1 if target else 2
    if merged:
        graph.remove_unread()  # what computed the shapes
    return merged


def _chain(graph: Graph, node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The Reshapes before and behind a Transpose, where nothing else reads what lies between."""
    if node.op_type != "Transpose" or not is_standard(node) or node.inputs[0] is None:
        return None
    first, last = node.inputs[0].producer(), graph.sole_reader(node.outputs[0])
    if first is None or last is None or graph.sole_reader(node.inputs[0]) is not node:
        return None
    if not all(n.op_type == "Reshape" and is_standard(n) for n in (first, last)) or graph.opset < 5:
        return None
    return first, last


def _runs(before: Sequence[Dim], after: Sequence[Dim]) -> list[list[int]] | None:
    """The run of axes behind that each axis before is cut into; None where axes are joined."""
    found: list[list[int]] = []
    for ins, outs in blocks(before, after):
        if len(ins) != 1 or not outs:
            return None
        found.append(outs)
    return found


def _target(before: Sequence[Dim], after: Sequence[Dim]) -> list[int] | None:
    """What to ask of a Reshape: numbers, 0 for a size that stays in its place, at most one -1."""
    target: list[int] = []
    for j, d in enumerate(after):
        if isinstance(d, int):
            target.append(d)
        else:
            target.append(0 if j < len(before) and d is not None and before[j] == d else -1)
    return target if target.count(-1) <= 1 and 0 not in [d for d in after if isinstance(d, int)] else None
