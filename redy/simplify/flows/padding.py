"""Pad in any mode, along positions and along channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.axes import Window
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, dims, get_float, get_string, input_of
from redy.simplify.take import Take


class Pad(Flow):
    """Constant padding adds channels that hold the value; other modes repeat what is there."""

    def __init__(self, begin: list[int], end: list[int], value: float | None) -> None:
        self.begin, self.end, self.value = begin, end, value
        self.grown: list[int] = []  # axes along which channels are added

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        atoms = a.atoms[x]
        shape_x = dims(x)
        assert shape_x is not None
        self.grown = grown = [
            i
            for i, n in enumerate(atoms.shape)
            if (self.begin[i] or self.end[i]) and (n > 1 or (i == 1 and shape_x[i] == 1 and self.value is not None))
        ]
        if any(self.begin[i] < 0 or self.end[i] < 0 or self.value is None for i in grown) or len(grown) > 1:
            a.pin(x)
            a.opaque(y)
            return
        for i in grown:
            shape = list(atoms.shape)
            parts = []
            for size in (self.begin[i], self.end[i]):
                shape[i] = size
                parts.append(a.new_atoms(int(np.prod(shape))).reshape(shape))
            atoms = np.concatenate([parts[0], atoms, parts[1]], axis=i)
        a.atoms[y] = atoms

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        facts, shape, out = a.facts[x], dims(x), dims(y)
        assert shape is not None
        assert out is not None
        known, table, axes = facts.known, facts.table, list(facts.axes)
        if a.atoms[y].ndim != known.ndim or a.atoms[y].size < known.size:
            return
        for i in range(known.ndim):
            if not (self.begin[i] or self.end[i]):
                continue
            if i in self.grown:
                assert self.value is not None
                widths = [(self.begin[i], self.end[i]) if j == i else (0, 0) for j in range(known.ndim)]
                known = np.pad(known, widths, constant_values=True)
                table = np.pad(table, widths, constant_values=self.value)
                continue
            if self.value is None:
                if table.shape[i] > 1:
                    return
                continue
            length, longer = (d if isinstance(d, int) else None for d in (shape[i], out[i]))
            slid = Window(length, longer, 1, begin=self.begin[i], end=self.end[i]).slide(axes[i])
            if slid is None:
                return
            axes[i], taps = slid
            table = np.concatenate([table, np.full_like(table.take([0], axis=i), self.value)], axis=i)
            table = table.take(taps[:, 0], axis=i)
        a.facts[y] = Facts.of(known, table, axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        need = a.needs[y] & ~a.absorbed(y)
        if not need.any():
            return
        if need.ndim != a.needs[x].ndim or need.size < a.needs[x].size:
            a.demand_all(x)
            return
        inner = tuple(
            slice(self.begin[i], self.begin[i] + n) if need.shape[i] > n else slice(None)
            for i, n in enumerate(a.needs[x].shape)
        )
        a.demand(x, need[inner])

    def take(self, node: ir.Node, t: Take) -> None:
        y = node.outputs[0]
        begin, end = list(self.begin), list(self.end)
        for i in range(len(begin)):
            live = t.live(y, i)
            if live.size > 1 and not live.all():
                begin[i] = int(live[: self.begin[i]].sum()) if self.begin[i] > 0 else self.begin[i]
                end[i] = int(live[live.size - self.end[i] :].sum()) if self.end[i] > 0 else self.end[i]
        if (begin, end) == (self.begin, self.end):
            return
        if "pads" in node.attributes:
            node.attributes["pads"] = ir.AttrInt64s("pads", [*begin, *end])
        else:
            new = np.asarray([*begin, *end], dtype=np.int64)
            value = t.graph.add_constant("pads", new, ir.DataType.INT64)
            node.replace_input_with(1, value)


def _pad(node: ir.Node, graph: Graph) -> Flow | str:
    rank = len(dims(node.inputs[0]) or ())
    pads = graph.integers(node, "pads", 1)
    if pads is None or (input_of(node, 3) is not None):
        return "its padding is not known"
    if len(pads) != 2 * rank:
        return "its padding does not match the rank"
    value: float | None = None
    if get_string(node, "mode", "constant") == "constant":
        value = get_float(node, "value", 0.0)
        given = input_of(node, 2)
        if given is not None:
            array = graph.numbers(given)
            if array is None:
                return "its value is not known"
            value = float(array.ravel()[0]) if array.size else 0.0
    return Pad(pads[:rank], pads[rank:], value)


RULES = {"Pad": _pad}
