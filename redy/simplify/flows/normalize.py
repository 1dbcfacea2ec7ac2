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
        others = [i for i, n in enumerate(atoms.shape) if n > 1 and i not in self.axes]
        if not any(atoms.shape[i] > 1 for i in self.axes):
            return atoms
        if others:
            return a.only_along(value, others)
        a.pin(value)
        return np.zeros((1,) * atoms.ndim, dtype=np.int64)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        for value in node.inputs[1:]:
            a.demand_all(value)
        if a.atoms[out].size > 1 or a.atoms[out].shape == a.needs[node.inputs[0]].shape:  # type: ignore[index]  # given
            need = a.needs[out] & ~a.absorbed(out)
            a.demand(node.inputs[0], need, strict=True)
        else:
            a.demand_all(node.inputs[0])

    def layout(self, node: ir.Node, a: Analysis) -> None:
        super().layout(node, a)
        for value in node.inputs[1:]:
            a.pin(value)


class InstanceNorm(Along):
    """(x - mean) / sqrt(var + eps) * scale + shift per channel; the shift where scale is 0 or x a constant."""

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
        facts = a.facts[node.inputs[0]].over([1])
        # What is the same everywhere is its own mean, so only the shift is left.
        known = (scale == 0) | (facts.known.ravel() if facts.uniform else facts.only_uniform().known.ravel())
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


def _layer(node: ir.Node, graph: Graph) -> Flow | str:
    rank = len(dims(node.inputs[0]) or ())
    axis = get_int(node, "axis", -1) % max(rank, 1)
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its mean or variance is read"
    if any(not graph.is_constant(value) for value in node.inputs[1:] if value is not None):
        return "its parameters are not constants"
    if any(len(dims(value) or ()) > rank - axis for value in node.inputs[1:] if value is not None):
        return "its parameters differ along other axes"
    return AlongOthers(list(range(axis, rank)))


RULES: dict[str, Callable[[ir.Node, Graph], Flow | str]] = {
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax"], _softmax),
    **dict.fromkeys(["LayerNormalization", "RMSNormalization"], _layer),
    "InstanceNormalization": _instance,
}
