"""Gates on constant channels: a squeeze-and-excitation gate g (N, C, 1, 1) times a channel that is the constant c_i.

The product c_i g_i is not constant, but the same at every position, so a convolution without padding behind it is

    y_o = sum_{i not in K} W_oi * (x_i g_i)  +  sum_{i in K} (c_i sum_taps W_oi) g_i,        K: x_i = c_i.

The second sum is a layer on the gate alone, one multiply-add per image and pair of channels, not one per position;
channels K leave the first sum and everything before it. Where x_i is a map (zero padding before it) that has a few
different rows and columns, the layer on the gate is evaluated once for each of these classes and the result gathered;
where that is too many, only the channels that are the same everywhere go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask
from redy.simplify.flows.convolution import Convolution
from redy.simplify.graph import Dim, Graph, dims, get_ints, get_string
from redy.simplify.maps import spread
from redy.simplify.propagate_constants import expressible
from redy.simplify.select_channels import insert_selector

_SMALLEST_SHARE = 0.1


def split_gates(graph: Graph, a: Analysis, allow: Callable[[str, str], bool]) -> int:
    """Split where a tenth or more of the gated channels are constant; returns how many products were split."""
    split = 0
    for node in a.nodes:
        if node.op_type != "Mul" or len(node.inputs) != 2:
            continue
        found = _gate(node, a)
        reader = graph.sole_reader(node.outputs[0])
        flow = a.flows.get(reader) if reader is not None else None
        if found is None or reader is None or not isinstance(flow, Convolution) or not _plain(reader, flow, graph):
            continue
        x, gate = found
        facts = a.facts[x] if _representable(a.facts[x], reader, flow, graph) else a.facts[x].only_uniform()
        constant = facts.known.ravel() & ~facts.zero().ravel() & a.live(node.outputs[0], 1)
        if constant.size != flow.inputs or constant.mean() < _SMALLEST_SHARE:
            continue
        constant &= flow.reached(np.ones(flow.outputs, dtype=bool))
        if constant.any() and not constant.all() and allow("split_gates", node.name or node.outputs[0].name or ""):
            _split(graph, node, reader, flow, gate, constant, facts)
            split += 1
    return split


def _gate(node: ir.Node, a: Analysis) -> tuple[ir.Value, ir.Value] | None:
    """(x, gate) of a product of x (N, C, H, W) and a gate (N, C, 1, 1)."""
    for index in (0, 1):
        x, gate = node.inputs[index], node.inputs[1 - index]
        shape, small = dims(x), dims(gate)
        if (
            x is None
            or gate is None
            or shape is None
            or small is None
            or a.graph.is_constant(gate)
            or a.graph.is_constant(x)
        ):
            continue
        if len(shape) == len(small) > 2 and all(d == 1 for d in small[2:]) and small[1] == shape[1] != 1:
            return x, gate
    return None


def _plain(reader: ir.Node, flow: Convolution, graph: Graph) -> bool:  # noqa: ARG001 - one signature for all
    """A convolution of one group without padding whose weights are its own."""
    weight = reader.inputs[1]
    padded = any(get_ints(reader, "pads", [])) or get_string(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return (
        flow.groups == 1 and not flow.transposed and not padded and weight is not None and len(list(weight.uses())) == 1
    )


def _representable(facts: Facts, reader: ir.Node, flow: Convolution, graph: Graph) -> bool:
    """Whether the second sum takes at least half fewer positions than the first."""
    if facts.uniform:
        return True
    pointwise = all(k == 1 for k in flow.kernel) and all(s == 1 for s in get_ints(reader, "strides", []))
    shape = dims(reader.outputs[0])
    if not pointwise or shape is None or not expressible(facts.axes, graph) or facts.table.shape[0] != 1:
        return False
    positions = np.prod([float(d) if isinstance(d, int) else np.inf for d in shape[2:]])
    return bool(2 * np.prod(facts.table.shape[2:]) <= positions)


def _split(
    graph: Graph, node: ir.Node, reader: ir.Node, flow: Convolution, gate: ir.Value, constant: Mask, facts: Facts
) -> None:
    weight, y = reader.inputs[1], reader.outputs[0]
    assert weight is not None
    assert weight.dtype is not None
    array = flow.weights(reader, graph).astype(np.float64)
    rest = array.copy()
    rest[:, constant] = 0
    reader.replace_input_with(1, graph.add_constant(f"{weight.name}_rest", rest, weight.dtype))
    batch, ones = (dims(gate) or ())[0], [1] * len(flow.kernel)
    index = graph.add_constant("gates", np.flatnonzero(constant), ir.DataType.INT64)
    grid = list(facts.table.shape[2:])
    count = int(constant.sum())

    def place(op: str, inputs: list[ir.Value], shape: list[Dim], **attributes: int) -> ir.Value:
        return graph.add_node(
            op, inputs, reader, stem=f"{y.name}_gates", shape=shape, dtype=y.dtype, attributes=dict(attributes)
        )

    factor = array.reshape(*array.shape[:2], *ones, -1).sum(axis=-1)[:, constant]
    table = graph.add_constant(f"{gate.name}_gated", facts.table[:, constant], weight.dtype)
    gated = place("Mul", [place("Gather", [gate, index], [batch, count, *ones], axis=1), table], [batch, count, *grid])
    layer = graph.add_constant(f"{weight.name}_gates", factor, weight.dtype)
    extra = place("Conv", [gated, layer], [batch, flow.outputs, *grid])
    total = graph.add_node("Add", [y, extra], None, after=reader, stem=f"{y.name}_total", shape=dims(y), dtype=y.dtype)
    add = total.producer()
    assert add is not None
    graph.replace(y, total, keep=[add])
    add.replace_input_with(1, spread(graph, y, extra, facts.axes, add))
    insert_selector(graph, node, list(node.inputs).index(gate))
