"""Gemm and MatMul with constant weights: y = x W + b along the last axis, or y = W x along the one before."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask, Table
from redy.simplify.flow import Flow
from redy.simplify.flows.contraction import computed_product
from redy.simplify.flows.joining import lookup
from redy.simplify.graph import Graph, dims, get_float, get_int, input_of
from redy.simplify.propagate_constants import MapTable
from redy.simplify.take import Take


class Linear(Flow):
    """`weight` is the input that holds W; `axis` counts from the end of x and of y."""

    owns_atoms = True

    def __init__(self, node: ir.Node, graph: Graph, weight: int) -> None:
        self.weight = weight
        self.x = 1 - weight
        self.gemm = node.op_type == "Gemm"
        array = graph.constant(node.inputs[weight])
        assert array is not None
        trans = self.gemm and get_int(node, "transB", 0) == 1
        self.in_axis = 1 if trans or weight == 0 else 0
        self.back = 1 if weight == 1 else 2
        self.nonzero: Mask = (array != 0) if self.in_axis == 1 else (array != 0).T
        self.outputs, self.inputs = self.nonzero.shape
        self.alpha = get_float(node, "alpha", 1.0) if self.gemm else 1.0
        self.beta = get_float(node, "beta", 1.0) if self.gemm else 1.0

    def columns(self, node: ir.Node, graph: Graph, channels: Mask) -> Table:
        """(outputs, channels taken) in float64, alpha included."""
        array = graph.constant(node.inputs[self.weight])
        assert array is not None
        taken = array.compress(channels, axis=self.in_axis).astype(np.float64)
        return (taken if self.in_axis == 1 else taken.T) * self.alpha

    def operand(self, node: ir.Node) -> ir.Value:
        value = node.inputs[self.x]
        assert value is not None
        return value

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = self.operand(node), node.outputs[0]
        a.only_along(x, [a.rank(x) - self.back])
        a.fresh(y, a.rank(y) - self.back, self.outputs)
        added = input_of(node, 2)
        if added is not None and not a.graph.is_constant(added):
            a.pin(added)
            a.pin(y)

    def input_facts(self, node: ir.Node, a: Analysis) -> Facts:
        x = self.operand(node)
        rank = a.rank(x)
        facts = a.facts[x].over([rank - self.back])
        if facts.known.size != self.inputs:
            return Facts.nothing([self.inputs if i == rank - self.back else 1 for i in range(rank)])
        return facts

    def response(self, node: ir.Node, a: Analysis, facts: Facts, channels: Mask) -> MapTable:
        axis = facts.known.ndim - self.back
        table = np.moveaxis(facts.table, axis, -1).compress(channels, axis=-1)
        out = table @ self.columns(node, a.graph, channels).T
        return MapTable(np.moveaxis(out, -1, axis), facts.axes)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        facts = self.input_facts(node, a)
        known_in = facts.known.ravel()
        known = ~self.nonzero[:, ~known_in].any(axis=1)
        added = input_of(node, 2)
        bias = np.zeros(self.outputs)
        if added is not None:
            array = a.graph.numbers(added)
            if array is None or (array.ndim > 1 and array.shape[0] != 1):
                return
            bias = np.broadcast_to(array.reshape(-1), (self.outputs,)) * self.beta
        if not known.any():
            return
        shape = a.atoms[y].shape
        table: Table = np.where(known, bias, 0.0).reshape(shape)
        axes = Facts.nothing(shape).axes
        useful = known_in & ~facts.zero().ravel() & self.nonzero[known].any(axis=0)
        if useful.any():
            response = self.response(node, a, facts, useful)
            table, axes = np.where(known.reshape(shape), response.table + table, 0.0), response.axes
        a.facts[y] = Facts.of(np.asarray(known).reshape(shape), table, axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = self.operand(node), node.outputs[0]
        a.demand_all(input_of(node, 2))
        outputs = (a.needs[y] & ~a.absorbed(y)).ravel()
        if not outputs.any():
            return
        shape = a.needs[x].shape
        axis = len(shape) - self.back
        if shape[axis] != self.inputs:
            a.demand_all(x)
            return
        view = [self.inputs if i == axis else 1 for i in range(len(shape))]
        a.demand(x, np.asarray(self.nonzero[outputs].any(axis=0)).reshape(view))

    def take(self, node: ir.Node, t: Take) -> None:
        x, y = self.operand(node), node.outputs[0]
        axis = t.a.rank(x) - self.back
        live_in, live_out = t.live(x, axis), t.live(y, t.a.rank(y) - self.back)
        if live_in.size == self.inputs and not live_in.all():
            self._absorb(node, t, live_in)
        cuts = [(1 - self.in_axis, live_out)]
        if live_in.size == self.inputs:
            cuts.append((self.in_axis, live_in))
        t.slice_constant(node, self.weight, cuts)
        added = input_of(node, 2)
        if added is not None:
            shape = dims(added)
            if shape and shape[-1] == self.outputs:
                t.slice_constant(node, 2, [(len(shape) - 1, live_out)])

    def _absorb(self, node: ir.Node, t: Take, live: Mask) -> None:
        facts = self.input_facts(node, t.a)
        going = facts.known.ravel() & ~live & ~facts.zero().ravel()
        if not going.any():
            return
        response = self.response(node, t.a, facts, going)
        t.absorbed_constants += int(going.sum())
        if not response.table.any():
            return
        added = input_of(node, 2)
        array = None if added is None else t.graph.numbers(added)
        small = array is None or array.ndim < 2 or array.shape[0] == 1
        if self.gemm and response.uniform and small:
            weight = node.inputs[self.weight]
            assert weight is not None
            extra = response.table.reshape(self.outputs)
            total = extra if array is None else array.reshape(-1) * self.beta + extra
            bias = t.new_constant(weight, total, stem=f"{weight.name}_bias")
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, bias)
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        else:
            t.later_maps.append((node.outputs[0], response))


def _matmul(node: ir.Node, graph: Graph) -> Flow | str:
    constant = [i for i, v in enumerate(node.inputs) if graph.is_constant(v)]
    if not constant:
        return computed_product(node)
    if len(constant) == 2:
        return "its operands are both constant"
    weight, x = node.inputs[constant[0]], node.inputs[1 - constant[0]]
    if constant == [0] and len(dims(weight) or ()) > 2 and len(dims(x) or ()) == 2:
        return lookup(node, graph, len(dims(weight) or ()) - 1) or "its weights are not a matrix"
    if len(dims(weight) or ()) != 2 or len(dims(x) or ()) < 2:
        return "its weights are not a matrix"
    return Linear(node, graph, constant[0])


def _gemm(node: ir.Node, graph: Graph) -> Flow | str:
    if get_int(node, "transA", 0) or not graph.is_constant(node.inputs[1]) or graph.is_constant(node.inputs[0]):
        return "its weights are not the second operand"
    return Linear(node, graph, 1)


RULES = {"MatMul": _matmul, "Gemm": _gemm}
