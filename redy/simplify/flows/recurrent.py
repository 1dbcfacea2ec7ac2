"""LSTM, GRU and RNN as readers: input channel i enters only as W[:, :, i] x_i, beside a bias.

A channel that is zero leaves with its column of W; one that is the constant c at every step and place adds W[:, :, i] c
to the bias of the input side. What the hidden state does is not looked at.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, dims, input_of
from redy.simplify.take import Take

_AXIS = 2
"""The axis of input channels, of x in both layouts and of W."""


class Recurrent(Flow):
    """`W` is (directions, gates * hidden, inputs)."""

    def __init__(self, weights: np.ndarray, *, bias_known: bool) -> None:
        self.weights = weights
        self.bias_known = bias_known
        self.used: Mask = (weights != 0).any(axis=(0, 1))

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        a.only_along(x, [_AXIS])
        for value in node.inputs[1:]:
            a.pin(value)
        for value in node.outputs:
            a.opaque(value)

    def _facts(self, node: ir.Node, a: Analysis) -> Facts:
        x = node.inputs[0]
        assert x is not None
        return a.facts[x].over([_AXIS])

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        for value in node.inputs[3:]:
            a.demand_all(value)
        if a.needs[x].shape[_AXIS] != self.used.size:
            a.demand_all(x)
            return
        view = [1, 1, self.used.size]
        a.demand(x, self.used.reshape(view))
        facts = self._facts(node, a)
        if not (self.bias_known and facts.uniform):
            a.demand(x, (self.used & ~facts.zero().ravel()).reshape(view), strict=True)

    def take(self, node: ir.Node, t: Take) -> None:
        x = node.inputs[0]
        assert x is not None
        live = t.live(x, _AXIS)
        if live.size != self.used.size or live.all():
            return
        facts = self._facts(node, t.a)
        going = facts.known.ravel() & ~live & ~facts.zero().ravel() & self.used
        if going.any():
            self._absorb(node, t, self.weights[:, :, going].astype(np.float64) @ facts.values().ravel()[going])
            t.absorbed_constants += int(going.sum())
        t.slice_constant(node, 1, [(_AXIS, live)])

    def _absorb(self, node: ir.Node, t: Take, extra: np.ndarray) -> None:
        """Add (directions, gates * hidden) to the first half of the bias, that of the input side."""
        value, weight = input_of(node, 3), node.inputs[1]
        assert weight is not None
        directions, rows = extra.shape
        bias = np.zeros((directions, 2 * rows)) if value is None else t.graph.numbers(value)
        assert bias is not None
        new = bias + np.concatenate([extra, np.zeros_like(extra)], axis=1)
        if len(node.inputs) < 4:
            node.resize_inputs(4)
        node.replace_input_with(3, t.new_constant(weight, new, stem=f"{weight.name}_bias"))


def _recurrent(node: ir.Node, graph: Graph) -> Flow | str:
    weights, bias = graph.constant(node.inputs[1]), input_of(node, 3)
    if weights is None or weights.ndim != 3 or len(dims(node.inputs[0]) or ()) != 3:
        return "its weights are not constants"
    return Recurrent(weights, bias_known=bias is None or graph.numbers(bias) is not None)


RULES = dict.fromkeys(["LSTM", "GRU", "RNN"], _recurrent)
