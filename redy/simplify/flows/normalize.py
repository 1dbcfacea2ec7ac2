"""Normalisations. Over channels they are walls: every channel changes every other one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis, AtomArray
from redy.simplify.facts import Facts
from redy.simplify.flow import Along, Flow
from redy.simplify.graph import Graph, dims, get_float, get_int
from redy.simplify.take import Take


class AlongOthers(Along):
    """Softmax and its like: labels pass along every axis but the one that is normalised."""

    def __init__(self, axes: list[int]) -> None:
        self.axes = axes

    def view(self, node: ir.Node, value: ir.Value, a: Analysis) -> AtomArray:  # noqa: ARG002 - one signature for all
        atoms = a.atoms[value]
        if any(atoms.shape[i] > 1 for i in self.axes):
            a.pin(value)
            return np.zeros((1,) * atoms.ndim, dtype=np.int64)
        return atoms

    def backward(self, node: ir.Node, a: Analysis) -> None:
        if a.atoms[node.outputs[0]].shape == a.needs[node.inputs[0]].shape:  # type: ignore[index]  # input 0 is given
            super().backward(node, a)
        else:
            a.demand_all(node.inputs[0])


class InstanceNorm(Along):
    """(x - mean) / sqrt(var + eps) * scale + shift per channel and sample. A zero scale leaves the shift."""

    def view(self, node: ir.Node, value: ir.Value, a: Analysis) -> AtomArray:  # noqa: ARG002 - one signature for all
        return a.only_along(value, [1])

    def forward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        scale, shift = a.graph.numbers(node.inputs[1]), a.graph.numbers(node.inputs[2])
        assert scale is not None
        assert shift is not None
        assert node.inputs[0] is not None
        shape = a.atoms[y].shape
        if shape[1] != scale.size:
            return
        known = (scale == 0) | a.facts[node.inputs[0]].over([1]).zero().ravel()
        a.facts[y] = Facts.of(known.reshape(shape), shift.reshape(shape), Facts.nothing(shape).axes)

    def take(self, node: ir.Node, t: Take) -> None:
        live = t.live(node.outputs[0], 1)
        for index in (1, 2):
            t.slice_constant(node, index, [(0, live)])


def _softmax(node: ir.Node, graph: Graph) -> Flow | str:
    rank = len(dims(node.inputs[0]) or ())
    axis = get_int(node, "axis", 1 if graph.opset < 13 else -1) % max(rank, 1)
    return AlongOthers([axis] if graph.opset >= 13 else list(range(axis, rank)))


def _instance(node: ir.Node, graph: Graph) -> Flow | str:
    if graph.numbers(node.inputs[1]) is None or graph.numbers(node.inputs[2]) is None:
        return "its parameters are not constants"
    return InstanceNorm() if get_float(node, "epsilon", 1e-5) > 0 else "its epsilon is zero"


RULES: dict[str, Callable[[ir.Node, Graph], Flow | str]] = {
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax"], _softmax),
    "InstanceNormalization": _instance,
}
