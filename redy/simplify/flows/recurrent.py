"""LSTM, GRU and RNN: input channels, and hidden units that are zero or that nobody reads.

Input channel i enters only as W[:, :, i] x_i, beside a bias: one that is zero leaves with its column of W, one that is
the constant c at every step and place adds W[:, :, i] c to the bias of the input side.

Hidden unit j starts at zero where no other state is given. Where the rows of its candidate (the cell gate of an LSTM,
the hidden gate of a GRU, the only one of an RNN) are zero in W, R and both biases, the candidate is tanh(0) = 0, and so
the unit stays zero: c = f c + i 0 and h = o tanh(c); h = z h + (1 - z) 0; h = 0. A unit leaves with its rows of every
gate, its columns of R and its entries of the outputs, in all directions at once.
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

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_CANDIDATE = {"LSTM": 3, "GRU": 2, "RNN": 0}
"""Which of the gates, in the order of ONNX, makes the new value."""


class Recurrent(Flow):
    """`W` is (directions, gates * hidden, inputs), `R` (directions, gates * hidden, hidden); None: units all stay."""

    owns_atoms = True

    def __init__(
        self, node: ir.Node, weights: np.ndarray, recurrence: np.ndarray | None, bias: np.ndarray | None
    ) -> None:
        self.weights, self.bias = weights, bias
        self.recurrence = recurrence
        self.gates = _GATES[node.op_type]
        self.hidden = weights.shape[1] // self.gates
        self.candidate = _CANDIDATE[node.op_type]
        self.bias_known = bias is not None or input_of(node, 3) is None

    # --- units ---------------------------------------------------------------------------------------------------

    def _by_gate(self, rows: np.ndarray) -> np.ndarray:
        """(directions, gates * hidden, ...) as (directions, gates, hidden, ...)."""
        return rows.reshape(rows.shape[0], self.gates, self.hidden, *rows.shape[2:])

    def _zero_units(self) -> Mask:
        """Units whose candidate is zero in every direction."""
        if self.recurrence is None:
            return np.zeros(self.hidden, dtype=bool)
        parts = [self.weights, self.recurrence]
        if self.bias is not None:
            halves = self.bias.reshape(self.bias.shape[0], 2, -1)
            parts += [halves[:, 0, :, None], halves[:, 1, :, None]]
        rows = [(self._by_gate(part)[:, self.candidate] == 0).all(axis=(0, 2)) for part in parts]
        return np.asarray(np.logical_and.reduce(rows))

    def _read_units(self, wanted: Mask) -> Mask:
        """Units that `wanted` ones depend on, through any number of steps."""
        if self.recurrence is None:
            return np.ones(self.hidden, dtype=bool)
        reads = (self._by_gate(self.recurrence) != 0).any(axis=(0, 1)) & ~self._zero_units()[None, :]
        while True:
            more = wanted | reads[wanted].any(axis=0)
            if (more == wanted).all():
                return wanted
            wanted = np.asarray(more)

    def _used(self, units: Mask) -> Mask:
        """Input channels that these units read."""
        return np.asarray((self._by_gate(self.weights)[:, :, units] != 0).any(axis=(0, 1, 2)))

    # --- rules ---------------------------------------------------------------------------------------------------

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        a.only_along(x, [_AXIS])
        for value in node.inputs[1:]:
            a.pin(value)
        units = a.new_atoms(self.hidden)
        for value in node.outputs:
            if self.recurrence is None or not a.rank(value):
                a.opaque(value)
            else:
                a.atoms[value] = units.reshape([1] * (a.rank(value) - 1) + [self.hidden])

    def forward(self, node: ir.Node, a: Analysis) -> None:
        for value in node.outputs:
            shape = a.atoms[value].shape
            if shape[-1:] == (self.hidden,) and self.recurrence is not None:
                a.facts[value] = Facts.of(self._zero_units().reshape(shape), np.zeros(shape), Facts.nothing(shape).axes)

    def _facts(self, node: ir.Node, a: Analysis) -> Facts:
        x = node.inputs[0]
        assert x is not None
        return a.facts[x].over([_AXIS])

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        for value in node.inputs[3:]:
            a.demand_all(value)
        wanted = np.zeros(self.hidden, dtype=bool)
        for value in node.outputs:
            need = a.needs[value] & ~a.absorbed(value)
            wanted |= need.reshape(-1) if need.size == self.hidden else need.any()
        units = self._read_units(wanted)
        for value in node.outputs:
            shape = a.needs[value].shape
            a.demand(value, np.broadcast_to(units, shape) if a.needs[value].size > 1 else np.full(shape, units.any()))
        used = self._used(units)
        if a.needs[x].shape[_AXIS] != used.size:
            a.demand_all(x)
            return
        view = [1, 1, used.size]
        a.demand(x, used.reshape(view))
        facts = self._facts(node, a)
        if not (self.bias_known and facts.uniform):
            a.demand(x, (used & ~facts.zero().ravel()).reshape(view), strict=True)

    def take(self, node: ir.Node, t: Take) -> None:
        x = node.inputs[0]
        assert x is not None
        live = t.live(x, _AXIS)
        if live.size == self.weights.shape[_AXIS] and not live.all():
            facts = self._facts(node, t.a)
            going = facts.known.ravel() & ~live & ~facts.zero().ravel() & (self.weights != 0).any(axis=(0, 1))
            if going.any():
                self._absorb(node, t, self.weights[:, :, going].astype(np.float64) @ facts.values().ravel()[going])
                t.absorbed_constants += int(going.sum())
            t.slice_constant(node, 1, [(_AXIS, live)])
        units = t.live(node.outputs[0], t.a.rank(node.outputs[0]) - 1)
        if units.size == self.hidden and not units.all():
            self._take_units(node, t, units)

    def _take_units(self, node: ir.Node, t: Take, units: Mask) -> None:
        rows = np.tile(units, self.gates)
        t.slice_constant(node, 1, [(1, rows)])
        t.slice_constant(node, 2, [(1, rows), (2, units)])
        t.slice_constant(node, 3, [(1, np.tile(rows, 2))])
        t.slice_constant(node, 7, [(1, np.tile(units, 3))])
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(units.sum()))

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
    numbers = graph.numbers(bias)
    recurrence = graph.constant(node.inputs[2])
    given = any(input_of(node, index) is not None for index in (5, 6))
    others = input_of(node, 7) is not None and graph.constant(node.inputs[7]) is None
    if given or others or "activations" in node.attributes or (bias is not None and numbers is None):
        recurrence = None
    return Recurrent(node, weights, recurrence, numbers)


RULES = dict.fromkeys(["LSTM", "GRU", "RNN"], _recurrent)
