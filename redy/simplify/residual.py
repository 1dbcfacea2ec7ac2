"""Residual connections: layers whose outputs are added to live channels, although some of them are constant.

*union* (what `drop_channels` does by itself): a channel stays while any of the added tensors needs it; layers compute
their constant channels too. *expand*: a layer L with live outputs K and constants c elsewhere computes K only, and

    y = Gather([L_K(x), 0], index) + c,    index_o = position of o in K, or that of the appended zero channel.

The Gather moves every element of y once; it pays only where the multiply-adds saved per element outweigh that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts, Mask
from redy.simplify.flows import flow_of
from redy.simplify.flows.convolution import Convolution
from redy.simplify.graph import Graph, dims, input_of

# Moving one element through Pad, Gather and Add costs about as much as this many multiply-adds inside a convolution.
_MULTIPLY_ADDS_PER_MOVE = 150


def expand_residuals(graph: Graph, residual: str, allow: Callable[[str, str], bool]) -> int:
    """Apply the expansion where it is asked for (`expand`) or cheaper (`auto`); returns the number of layers."""
    a = Analysis(graph, flow_of)
    expanded = 0
    for node in a.nodes:
        flow = a.flows[node]
        if not isinstance(flow, Convolution) or flow.groups != 1 or flow.transposed:
            continue
        y = node.outputs[0]
        facts, shape = a.facts[y], dims(y)
        live = ~facts.known.ravel()
        reader = graph.sole_reader(y)
        if reader is None or reader.op_type != "Add" or live.size != flow.outputs or live.all() or not live.any():
            continue
        if not facts.uniform or shape is None or len(list(node.inputs[1].uses())) != 1:  # type: ignore[union-attr]
            continue
        saved = (flow.outputs - int(live.sum())) * flow.inputs * int(np.prod(flow.kernel))
        if residual == "auto" and saved <= _MULTIPLY_ADDS_PER_MOVE * flow.outputs:
            continue
        if graph.opset >= 11 and allow("expand_residuals", node.name or y.name or ""):
            _expand(graph, node, y, facts, live)
            expanded += 1
    return expanded


def _expand(graph: Graph, node: ir.Node, y: ir.Value, facts: Facts, live: Mask) -> None:
    weight, bias = node.inputs[1], input_of(node, 2)
    shape = dims(y)
    assert weight is not None
    assert shape is not None
    assert weight.dtype is not None
    array = graph.constant(weight)
    assert array is not None
    node.replace_input_with(1, graph.add_constant(f"{weight.name}_live", array[live], weight.dtype))
    if bias is not None:
        numbers = graph.numbers(bias)
        assert numbers is not None
        node.replace_input_with(2, graph.add_constant(f"{bias.name}_live", numbers[live], weight.dtype))
    kept = int(live.sum())
    reader = graph.sole_reader(y)
    assert reader is not None
    pads = np.zeros(2 * len(shape), dtype=np.int64)
    pads[len(shape) + 1] = 1
    padding = graph.add_constant(f"{y.name}_pads", pads, ir.DataType.INT64)
    index = np.where(live, np.cumsum(live) - 1, kept)
    indices = graph.add_constant(f"{y.name}_places", index, ir.DataType.INT64)
    padded = graph.add_node("Pad", [y, padding], reader, stem=f"{y.name}_padded", dtype=y.dtype)
    spread = graph.add_node(
        "Gather", [padded, indices], reader, stem=f"{y.name}_spread", shape=shape, dtype=y.dtype, attributes={"axis": 1}
    )
    constants = np.where(facts.known, facts.table, 0.0)
    if constants.any():
        term = graph.add_constant(f"{y.name}_constants", constants, weight.dtype)
        spread = graph.add_node("Add", [spread, term], reader, stem=f"{y.name}_full", shape=shape, dtype=y.dtype)
    for position, value in enumerate(reader.inputs):
        if value is y:
            reader.replace_input_with(position, spread)
    y.shape = ir.Shape([shape[0], kept, *shape[2:]])
