"""Expand and Tile to stored sizes: labels pass along every axis that keeps its size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.axes import Axis, Uniform
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, data, dims
from redy.simplify.take import Take


class Spread(Flow):
    """`target` is the stored input 1, one number per axis of the result; an axis of size 1 is repeated."""

    def __init__(self, target: np.ndarray, rank: int, *, tiles: bool) -> None:
        self.target, self.tiles = target, tiles
        self.lead = len(target) - rank

    def _repeated(self, node: ir.Node) -> list[int]:
        """Axes of the input along which it is repeated."""
        before, after = dims(data(node)) or (), dims(node.outputs[0]) or ()
        return [i for i, d in enumerate(before) if after[i + self.lead] != d]

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = data(node), node.outputs[0]
        if any(a.atoms[x].shape[i] > 1 for i in self._repeated(node)):
            a.pin(x)
            a.opaque(y)
        else:
            a.atoms[y] = a.atoms[x].reshape((1,) * self.lead + a.atoms[x].shape)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        facts = a.facts[data(node)]
        repeated = self._repeated(node)
        if any(facts.known.shape[i] > 1 or not isinstance(facts.axes[i], Uniform) for i in repeated):
            return
        lead = (1,) * self.lead
        axes: list[Axis] = [*Facts.nothing(lead).axes, *facts.axes]
        known, table = facts.known.reshape(lead + facts.known.shape), facts.table.reshape(lead + facts.table.shape)
        a.facts[node.outputs[0]] = Facts(known, table, tuple(axes))

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = data(node), node.outputs[0]
        need = a.needs[y] & ~a.absorbed(y)
        if not need.any():
            return
        if need.size != a.needs[x].size:
            a.demand_all(x)
        else:
            a.demand(x, need.reshape(a.needs[x].shape))

    def take(self, node: ir.Node, t: Take) -> None:
        y = node.outputs[0]
        if self.tiles or not t.changed(y):
            return
        target = self.target.copy()
        for axis, n in enumerate(t.a.atoms[y].shape):
            if n > 1 and target[axis] > 1:
                target[axis] = int(t.live(y, axis).sum())
        node.replace_input_with(1, t.graph.add_constant("shape", target, ir.DataType.INT64))


def _spread(node: ir.Node, graph: Graph) -> Flow | str:
    target, shape = graph.constant(node.inputs[1]), dims(node.inputs[0])
    after = dims(node.outputs[0])
    if target is None or shape is None or after is None:
        return "what it expands to is not known"
    if graph.is_constant(node.inputs[0]) or target.size != len(after) or target.size < len(shape):
        return "it does not expand a computed tensor"
    return Spread(target.astype(np.int64), len(shape), tiles=node.op_type == "Tile")


RULES = {"Expand": _spread, "Tile": _spread}
