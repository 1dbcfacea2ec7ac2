"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: the atoms are reshaped with the tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.axes import UNIFORM, Axis, Listed, Uniform
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.graph import Dim, Graph, dims, get_int, get_ints
from redy.simplify.take import Take

Block = tuple[list[int], list[int]]


def blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    """Axes before and after a reshape, in the smallest runs that hold the same elements.

    Dynamic dimensions match by name; what cannot be matched is one run.
    """
    left: list[Block] = []
    i = j = 0
    while (found := _run(before[i:], after[j:])) is not None:
        left.append((list(range(i, i + found[0])), list(range(j, j + found[1]))))
        i, j = i + found[0], j + found[1]
    right: list[Block] = []
    m, n = len(before), len(after)
    while (found := _run(before[i:m][::-1], after[j:n][::-1])) is not None:
        right.insert(0, (list(range(m - found[0], m)), list(range(n - found[1], n))))
        m, n = m - found[0], n - found[1]
    rest: list[Block] = [(list(range(i, m)), list(range(j, n)))] if i < m or j < n else []
    return left + rest + right


def _run(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int] | None:
    if not before or not after:
        return None
    if not isinstance(before[0], int) or not isinstance(after[0], int):
        return (1, 1) if before[0] == after[0] and before[0] is not None else None
    i = j = 1
    p, q = before[0], after[0]
    while p != q:
        if p < q:
            size = before[i] if i < len(before) else None
            if not isinstance(size, int):
                return None
            p *= size
            i += 1
        else:
            size = after[j] if j < len(after) else None
            if not isinstance(size, int):
                return None
            q *= size
            j += 1
    return i, j


class Reshape(Flow):
    """Reshape, Flatten, Squeeze, Unsqueeze by the shapes before and after."""

    def __init__(self, node: ir.Node) -> None:
        before, after = dims(node.inputs[0]), dims(node.outputs[0])
        assert before is not None
        assert after is not None
        self.before, self.after = before, after
        self.blocks = blocks(before, after)
        self.reshapes = node.op_type == "Reshape"
        self.allowzero = get_int(node, "allowzero", 0) == 1

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        shapes = self._shapes(a.atoms[x].shape)
        if shapes is None:
            a.pin(x)
            a.opaque(y)
            return
        a.atoms[y] = np.broadcast_to(a.atoms[x], shapes[0]).reshape(shapes[1])

    def _shapes(self, labels: tuple[int, ...]) -> tuple[list[int], list[int]] | None:
        """Label shapes before (broadcast where a run has labels) and after."""
        wide, out = list(labels), [1] * len(self.after)
        for ins, outs in self.blocks:
            if not any(labels[i] > 1 for i in ins):
                continue
            for i in ins:
                size = self.before[i]
                if not isinstance(size, int):
                    return None
                wide[i] = size
            for j in outs:
                size = self.after[j]
                if not isinstance(size, int):
                    return None
                out[j] = size
            if int(np.prod([wide[i] for i in ins])) != int(np.prod([out[j] for j in outs])):
                return None
        return wide, out

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        facts = a.facts[x]
        shapes = self._shapes(facts.known.shape)
        if shapes is None or a.atoms[y].shape != tuple(shapes[1]) or not facts.known.any():
            return
        wide, out = shapes
        axes: list[Axis] = [UNIFORM] * len(out)
        table = facts.table
        table_out = list(out)
        for ins, outs in self.blocks:
            labelled = any(facts.known.shape[i] > 1 for i in ins)
            if not labelled and all(isinstance(facts.axes[i], Uniform) for i in ins):
                continue
            if not labelled and len(ins) == 1 and len(outs) == 1:
                axes[outs[0]] = facts.axes[ins[0]]
                table_out[outs[0]] = table.shape[ins[0]]
                continue
            if any(not isinstance(self.before[i], int) for i in ins):
                return
            for i in ins:
                size = int(self.before[i])  # type: ignore[arg-type]
                if facts.known.shape[i] == 1:
                    table = table.take(facts.axes[i].classes(size), axis=i)
            for j in outs:
                size = int(self.after[j])  # type: ignore[arg-type]
                table_out[j] = size
                if not labelled:
                    axes[j] = Listed(np.arange(size, dtype=np.int64))
        known = np.broadcast_to(facts.known, wide).reshape(out)
        a.facts[y] = Facts.of(known, table.reshape(table_out), axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        need = a.needs[y] & ~a.absorbed(y)
        if not need.any():
            return
        shapes = self._shapes(a.needs[x].shape)
        if shapes is None or need.shape != tuple(shapes[1]):
            a.demand_all(x)
            return
        wide = need.reshape(shapes[0])
        axes = tuple(i for i, n in enumerate(a.needs[x].shape) if n == 1 and wide.shape[i] > 1)
        a.demand(x, np.asarray(wide.any(axis=axes, keepdims=True)) if axes else wide)

    def _target(self, sizes: list[int | None]) -> list[int] | None:
        """The shape to ask for: numbers, 0 for a dimension copied from the input, one -1."""
        target: list[int] = []
        for j, d in enumerate(self.after):
            if isinstance(d, int):
                target.append(sizes[j] or d)
            elif j < len(self.before) and self.before[j] == d and d is not None and not self.allowzero:
                target.append(0)
            else:
                target.append(-1)
        return target if target.count(-1) <= 1 else None

    def take(self, node: ir.Node, t: Take) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        if not self.reshapes or not (t.changed(x) or t.changed(y)):
            return
        sizes: list[int | None] = []
        for j, n in enumerate(t.a.atoms[y].shape):
            sizes.append(int(t.live(y, j).sum()) if n > 1 else None)
        target = self._target(sizes)
        if target is None:
            self._edit(node, sizes, t)
            return
        if "shape" in node.attributes:
            node.attributes["shape"] = ir.AttrInt64s("shape", target)
            return
        value = t.graph.add_constant(f"{y.name}_shape", np.asarray(target, dtype=np.int64), ir.DataType.INT64)
        node.replace_input_with(1, value)

    def _edit(self, node: ir.Node, sizes: list[int | None], t: Take) -> None:
        """Put the sizes that are known in their places of a shape that is computed."""
        asked, length = node.inputs[1], len(self.after)
        known = t.graph.add_constant("known", np.array([n is not None for n in sizes]), ir.DataType.BOOL)
        given = t.graph.add_constant("sizes", np.array([n or 0 for n in sizes], dtype=np.int64), ir.DataType.INT64)
        whole = t.graph.add_node(
            "Where", [known, given, asked], node, stem="shape", shape=[length], dtype=ir.DataType.INT64
        )
        node.replace_input_with(1, whole)


class Transpose(Flow):
    """The axes in another order."""

    def __init__(self, perm: list[int]) -> None:
        self.perm = perm

    def layout(self, node: ir.Node, a: Analysis) -> None:
        assert node.inputs[0] is not None
        a.atoms[node.outputs[0]] = a.atoms[node.inputs[0]].transpose(self.perm)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        assert node.inputs[0] is not None
        facts = a.facts[node.inputs[0]]
        axes = tuple(facts.axes[i] for i in self.perm)
        a.facts[node.outputs[0]] = Facts(facts.known.transpose(self.perm), facts.table.transpose(self.perm), axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        need = a.needs[y] & ~a.absorbed(y)
        a.demand(node.inputs[0], need.transpose(np.argsort(self.perm)))


def _reshape(node: ir.Node, graph: Graph) -> Flow | str:
    return Reshape(node) if not graph.is_constant(node.inputs[0]) else "its input is a constant"


def _transpose(node: ir.Node, graph: Graph) -> Flow | str:  # noqa: ARG001 - one signature for all
    rank = len(dims(node.inputs[0]) or ())
    return Transpose(get_ints(node, "perm", list(range(rank))[::-1]))


RULES = {**dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], _reshape), "Transpose": _transpose}
