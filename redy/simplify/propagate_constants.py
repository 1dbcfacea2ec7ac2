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

from redy.simplify.axes import UNIFORM, Axis, Listed, Near, Uniform
from redy.simplify.facts import Facts, Mask, Table
from redy.simplify.graph import Array, Graph, dims, input_of

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


def add_map(graph: Graph, value: ir.Value, response: MapTable, live: Mask, axis: int, dtype: ir.DataType) -> None:
    """Add a table to a value, behind the node that makes it; all readers read the sum."""
    producer = value.producer()
    assert producer is not None
    table = response.table.compress(live, axis=axis) if response.table.shape[axis] == live.size else response.table
    shape = dims(value)
    assert shape is not None
    holder = graph.add_node(
        "Add", [value, value], None, after=producer, stem=f"{value.name}_map", shape=shape, dtype=dtype
    )
    add = holder.producer()
    assert add is not None
    graph.replace(value, holder, keep=[add])
    add.replace_input_with(1, _expanded(graph, value, table, response.axes, dtype, add))


def _expanded(
    graph: Graph, value: ir.Value, table: Table, axes: tuple[Axis, ...], dtype: ir.DataType, add: ir.Node
) -> ir.Value:
    shape = dims(value)
    assert shape is not None
    full = [
        int(d) if isinstance(x, Listed) and isinstance(d, int) else n
        for x, d, n in zip(axes, shape, table.shape, strict=True)
    ]
    static = [i for i, x in enumerate(axes) if isinstance(x, Listed)]
    if np.prod(full) <= 2 * table.size + sum(full[i] for i in static):
        for i in static:
            table = table.take(axes[i].classes(full[i]), axis=i)
        static = []
    listed = tuple(UNIFORM if isinstance(axis, Listed) and i not in static else axis for i, axis in enumerate(axes))
    return spread(graph, value, graph.add_constant(f"{value.name}_table", table, dtype), listed, add)


def spread(graph: Graph, value: ir.Value, table: ir.Value, axes: tuple[Axis, ...], before: ir.Node) -> ir.Value:
    """A table over classes, gathered to the positions of `value`; the innermost axis first, while it is small."""
    shape, full = list(dims(table) or ()), dims(value) or ()
    for i in reversed(range(len(axes))):
        axis = axes[i]
        if isinstance(axis, Uniform):
            continue
        shape[i] = full[i]
        index = (
            graph.add_constant(f"{value.name}_classes", axis.index, ir.DataType.INT64)
            if isinstance(axis, Listed)
            else _near_index(graph, value, i, axis, before)
        )
        table = graph.add_node(
            "Gather", [table, index], before, stem="map", shape=shape, dtype=table.dtype, attributes={"axis": i}
        )
    return table


def _near_index(graph: Graph, value: ir.Value, axis: int, near: Near, add: ir.Node) -> ir.Value:
    """min(p, left) * (right + 1) + min(n - 1 - p, right) for p = 0 .. n - 1, n the length of `axis` at run time."""

    def number(x: int) -> ir.Value:
        return graph.add_constant("number", np.asarray(x, dtype=np.int64), ir.DataType.INT64)

    def make(op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return graph.add_node(op, inputs, add, stem="position", dtype=ir.DataType.INT64, attributes=dict(attributes))

    def at_most(x: ir.Value, limit: int) -> ir.Value:
        if graph.opset >= 12:  # Min of integers
            return make("Min", x, number(limit))
        real = graph.add_node("Cast", [x], add, stem="position", attributes={"to": int(ir.DataType.FLOAT)})
        bound = graph.add_constant("number", np.asarray(limit), ir.DataType.FLOAT)
        low = graph.add_node("Min", [real, bound], add, stem="position")
        return make("Cast", low, to=int(ir.DataType.INT64))

    length = make("Gather", make("Shape", value), number(axis), axis=0)
    p = make("Range", number(0), length, number(1))
    from_left = make("Mul", at_most(p, near.left), number(near.right + 1))
    reverse = make("Sub", make("Sub", length, number(1)), p)
    return make("Add", from_left, at_most(reverse, near.right))
