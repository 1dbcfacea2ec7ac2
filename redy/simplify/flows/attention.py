"""Attention of opset 23 on: y_h = softmax(scale q_h k_g' + mask) v_g per head h, which reads the keys of group g.

Everything is seen as heads x rows, whether heads are an axis or folded into the last one. A head leaves q, k, v and y
together (a group of q with its k and v where several heads of q share one), row d of all heads leaves q and k together,
and row d of v and y. A row of q whose counterpart in k is zero is not needed, nor the other way round. Where all of row
d of v is the constant c, row d of y is c, because the weights of a softmax add up to one.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, dims, get_int, input_of
from redy.simplify.take import Take


class Attention(Flow):
    """`heads` of q, k, v in this order; `rows` of one head of q, k, v."""

    def __init__(self, heads: tuple[int, int, int], rows: tuple[int, int, int], *, folded: bool) -> None:
        self.heads, self.rows, self.folded = heads, rows, folded
        self.group = heads[0] // heads[1]

    def _values(self, node: ir.Node) -> list[ir.Value]:
        """q, k, v and y."""
        return [*(value for value in node.inputs[:3] if value is not None), node.outputs[0]]

    def _sizes(self) -> list[tuple[int, int]]:
        """Heads and rows of q, k, v and y."""
        return [*zip(self.heads, self.rows, strict=True), (self.heads[0], self.rows[2])]

    def _grid(self, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """An array over labels, as heads x rows."""
        wide = np.broadcast_to(array, (1, 1, size[0] * size[1]) if self.folded else (1, size[0], 1, size[1]))
        return wide.reshape(size)

    def _flat(self, grid: np.ndarray) -> np.ndarray:
        """Heads x rows, as an array over labels."""
        return grid.reshape(1, 1, -1) if self.folded else grid[None, :, None, :]

    def _labelled(self, a: Analysis, node: ir.Node) -> bool:
        wanted = [(1, 1, h * d) if self.folded else (1, h, 1, d) for h, d in self._sizes()[:3]]
        shapes = [a.atoms[value].shape for value in self._values(node)[:3]]
        return all(shape == want for shape, want in zip(shapes, wanted, strict=True))

    def layout(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        for value in node.inputs[3:]:
            a.pin(value)
        if not self._labelled(a, node):
            for value in node.inputs[:3]:
                a.pin(value)
            a.opaque(y)
        else:
            heads, rows = self._sizes()[3]
            a.atoms[y] = self._flat(a.new_atoms(heads * rows).reshape(heads, rows))
        for value in node.outputs[1:]:
            a.opaque(value)

    def _zeros(self, a: Analysis, node: ir.Node) -> list[Mask]:
        """Rows of q, k, v that are zero, each as heads of q x rows."""
        found = []
        for value, size in zip(self._values(node)[:3], self._sizes(), strict=False):
            zero = self._grid(a.facts[value].zero(), size)
            found.append(np.asarray(zero.repeat(self.heads[0] // size[0], axis=0)))
        return found

    def forward(self, node: ir.Node, a: Analysis) -> None:
        v, y = self._values(node)[2:]
        facts = a.facts[v]
        if not self._labelled(a, node) or not facts.uniform:
            return
        known, table = (
            self._grid(array, self._sizes()[2]).repeat(self.group, axis=0) for array in (facts.known, facts.values())
        )
        a.facts[y] = Facts.of(self._flat(known), self._flat(table), Facts.nothing(a.atoms[y].shape).axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        for value in node.inputs[3:]:
            a.demand_all(value)
        need = a.needs[y] & ~a.absorbed(y)
        if not need.any():
            return
        if not self._labelled(a, node):
            for value in node.inputs[:3]:
                a.demand_all(value)
            return
        wanted = self._grid(need, self._sizes()[3])
        q, k, v = self._zeros(a, node)
        heads = np.asarray(wanted.any(axis=1, keepdims=True))
        demands = [heads & ~q & ~k, heads & ~q & ~k, wanted & ~v]
        for value, size, demand in zip(self._values(node)[:3], self._sizes(), demands, strict=False):
            of_groups = np.asarray(demand.reshape(size[0], -1, size[1]).any(axis=1))
            a.demand(value, self._flat(of_groups), strict=True)

    def close(self, node: ir.Node, a: Analysis) -> None:
        values = self._values(node)
        if not self._labelled(a, node) or not a.alive[a.atoms[values[3]]].any():
            return
        atoms = [self._grid(a.atoms[value], size) for value, size in zip(values, self._sizes(), strict=True)]
        live = [a.alive[grid] for grid in atoms]
        groups = np.logical_or.reduce([grid.any(axis=1).reshape(self.heads[1], -1).any(axis=1) for grid in live])
        inner, outer = (_some(np.asarray(np.concatenate(live[i : i + 2]).any(axis=0))) for i in (0, 2))
        for grid, there, rows in zip(atoms, live, (inner, inner, outer, outer), strict=True):
            lacking = groups.repeat(len(grid) // len(groups))[:, None] & rows[None, :] & ~there
            if lacking.any():
                a.revive(grid[lacking])

    def take(self, node: ir.Node, t: Take) -> None:
        values = self._values(node)
        if not any(t.changed(value) for value in values):
            return
        grids = [self._live(t, value, size) for value, size in zip(values, self._sizes(), strict=True)]
        if "scale" not in node.attributes:
            node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(self.rows[0]))
        for name, grid in (("q_num_heads", grids[0]), ("kv_num_heads", grids[1])):
            if name in node.attributes:
                node.attributes[name] = ir.AttrInt64(name, int(grid.any(axis=1).sum()))
        mask = input_of(node, 3)
        shape = dims(mask)
        if mask is not None and shape is not None and len(shape) == 4 and shape[1] == self.heads[0]:
            t.slice_constant(node, 3, [(1, np.asarray(grids[0].any(axis=1)))])

    def _live(self, t: Take, value: ir.Value, size: tuple[int, int]) -> Mask:
        return np.asarray(self._grid(t.a.alive[t.a.atoms[value]], size))


def _some(rows: Mask) -> Mask:
    """At least one row: a head that stays has one."""
    return rows if rows.any() else np.asarray(np.arange(rows.size) == 0)


def _attention(node: ir.Node, graph: Graph) -> Flow | str:
    shapes = [dims(value) for value in node.inputs[:3]]
    if any(input_of(node, index) is not None for index in (4, 5)):
        return "it reads keys and values of the past"
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its keys, values or scores are read"
    if any(shape is None or len(shape) != len(shapes[0] or ()) for shape in shapes):
        return "its operands have different ranks"
    folded = len(shapes[0] or ()) == 3
    count = [get_int(node, name, 0) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    heads = count if folded else [(shape or ())[1] for shape in shapes]
    widths = [(shape or ())[-1] for shape in shapes]
    if not all(isinstance(n, int) and n > 0 for n in (*heads, *widths)):
        return "the number of its heads is not known"
    rows = [w // h for w, h in zip(widths, heads, strict=True)] if folded else widths  # type: ignore[operator]  # ints
    mask, shape = input_of(node, 3), dims(input_of(node, 3))
    if mask is not None and not graph.is_constant(mask) and (shape is None or (len(shape) == 4 and shape[1] != 1)):
        return "its mask differs from head to head"
    return Attention(tuple(heads), tuple(rows), folded=folded)  # type: ignore[arg-type]  # three whole numbers each


RULES = {"Attention": _attention}
