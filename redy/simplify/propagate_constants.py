"""Constants of dropped channels move into the layer that reads them.

With D the dropped channels that hold the constants c_i, a layer y_o = b_o + sum_i W_oi * x_i becomes

    y_o = (b_o + sum_{i in D} W_oi * c_i) + sum_{i not in D} W_oi * x_i.

Without zero padding the bracket is a number: the new bias. With zero padding it differs at the borders; then
- *map*: it is added behind the layer, from a table of its few different rows and columns. The table has at most one
  entry per tap, so never more parameters than the weights that go; height and width may be dynamic, as a position's
  row of the table follows from its distance to the two ends.
- *carrier*: one constant channel j stays and speaks for all: W_oj' = W_oj + sum_{i in D} W_oi c_i / c_j. The padding
  does the rest. Used where the map depends on sizes that are not known (a stride over a dynamic axis), or costs more.
- otherwise the channels stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir

from redy.simplify.axes import Axis, Near, Uniform
from redy.simplify.facts import Facts, Mask, Table
from redy.simplify.graph import Array, Graph, input_of

if TYPE_CHECKING:
    from redy.simplify.analysis import Analysis
    from redy.simplify.take import Take

# A map costs one more pass over the output, so it must save this share of the layer's multiply-adds.
_SMALLEST_SHARE_FOR_MAP = 0.05
_SMALLEST_CARRIER = 1e-3


@dataclass(frozen=True, eq=False)
class MapTable:
    """What is added to an output, labels along one axis and classes along the others."""

    table: Table
    axes: tuple[Axis, ...]

    @property
    def uniform(self) -> bool:
        return all(isinstance(axis, Uniform) for axis in self.axes)


class Layer(Protocol):
    """What a convolution offers to this rewrite."""

    groups: int
    inputs: int
    outputs: int
    kernel: list[int]

    def weights(self, node: ir.Node, graph: Graph) -> Array: ...

    def input_facts(self, node: ir.Node, a: Analysis) -> Facts: ...

    def reached(self, outputs: Mask) -> Mask: ...

    def response(self, node: ir.Node, graph: Graph, facts: Facts, channels: Mask) -> MapTable | None: ...


def choose(layer: Layer, node: ir.Node, a: Analysis, facts: Facts, constants: Mask, live: Mask) -> Mask:
    """Of the needed channels that hold a constant other than zero: those that must stay. Notes the carrier, if any."""
    nothing = np.zeros_like(constants)
    going = constants & ~live
    if not going.any():
        return nothing
    probe = layer.response(node, a.graph, facts, _first(going))
    if probe is not None and probe.uniform:
        return nothing
    if (
        probe is not None
        and int(going.sum()) >= _SMALLEST_SHARE_FOR_MAP * layer.inputs
        and expressible(probe.axes, a.graph)
    ):
        return nothing
    if not facts.uniform or layer.groups > 1:
        return constants
    values = np.abs(np.where(constants, facts.values().ravel(), 0.0))
    staying = np.where(live, values, 0.0)
    best = staying if staying.max() >= _SMALLEST_CARRIER * values.max() else values
    carrier = int(np.argmax(best))
    a.carriers[node] = carrier
    return np.asarray(np.arange(len(constants)) == carrier)


def absorb(layer: Layer, node: ir.Node, t: Take, live: Mask) -> None:
    """Move the constants of the dropped input channels of a convolution into its bias, a map, or its carrier."""
    facts = layer.input_facts(node, t.a)
    y = node.outputs[0]
    outputs = (t.a.needs[y] & ~t.a.absorbed(y)).ravel()
    going = facts.known.ravel() & ~live & ~facts.zero().ravel() & layer.reached(outputs)
    if not going.any():
        return
    carrier = t.a.carriers.get(node)
    if carrier is not None and live[carrier]:
        weights = layer.weights(node, t.graph).astype(np.float64)
        values = facts.values().ravel()
        weights[:, carrier] += np.tensordot(weights[:, going], values[going] / values[carrier], axes=([1], [0]))
        t.set_weights(node, weights)
        t.absorbed_constants += int(going.sum())
        return
    response = layer.response(node, t.graph, facts, going)
    assert response is not None, "a constant was dropped that its reader cannot absorb"
    t.absorbed_constants += int(going.sum())
    if not response.table.any():
        return
    if response.uniform:
        _add_to_bias(layer, node, t, response.table.reshape(layer.outputs))
    else:
        t.later_maps.append((node.outputs[0], response))


def expressible(axes: tuple[Axis, ...], graph: Graph) -> bool:
    """Whether maps are wanted, and the opset has what they need at run time (Range, for axes of dynamic length)."""
    return graph.maps and (graph.opset >= 11 or not any(isinstance(axis, Near) for axis in axes))


def _first(mask: Mask) -> Mask:
    return np.asarray(np.arange(len(mask)) == np.argmax(mask))


def _add_to_bias(layer: Layer, node: ir.Node, t: Take, extra: Table) -> None:
    weight = node.inputs[1]
    assert weight is not None
    value = input_of(node, 2)
    bias = np.zeros(layer.outputs) if value is None else t.graph.numbers(value)
    assert bias is not None
    new = t.new_constant(weight if value is None else value, bias + extra, stem=f"{weight.name}_bias")
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, new)
