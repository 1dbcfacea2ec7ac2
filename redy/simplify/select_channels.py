"""Where a tensor must keep channels that one of its readers can do without: take those channels out for that reader.

A stream of a pre-activation or densely connected network, a graph output in the middle, or a network input keeps all of
its channels, while the BatchNormalization, activation or grouped convolution behind it makes some of them constant or
nobody needs them. A *selector* y_j = x_index(j) (a Gather) separates the two; the analysis then decides what it takes.
It is tried where it may pay and kept where the multiply-adds saved outweigh the elements copied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Facts
from redy.simplify.flow import Flow
from redy.simplify.flows.convolution import Convolution
from redy.simplify.flows.elementwise import Elementwise
from redy.simplify.graph import Graph, dims
from redy.simplify.take import Take, renumber

_SMALLEST_SHARE = 0.1  # of the channels; below, the copy is not worth it
_MULTIPLY_ADDS_PER_COPY = 16


class Selector(Flow):
    """A Gather along axis 1 that may leave out channels its input keeps."""

    def index(self, node: ir.Node, graph: Graph) -> NDArray[np.int64]:
        """Which channel of the input each channel of the output is."""
        index = graph.constant(node.inputs[1])
        assert index is not None
        return index.astype(np.int64)

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        a.only_along(x, [1])
        a.fresh(y, 1, len(self.index(node, a.graph)))

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        facts = a.facts[x].over([1])
        if facts.known.shape[1] > 1:
            index = self.index(node, a.graph)
            a.facts[y] = Facts.of(facts.known.take(index, axis=1), facts.table.take(index, axis=1), facts.axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        """What stays in the output must be in the input, also where it is a constant: a Gather absorbs nothing."""
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        live = a.alive[a.atoms[y]]
        wanted = live | (a.needs[y] & ~a.absorbed(y))
        shape = a.needs[x].shape
        if shape[1] == 1:
            a.demand(x, wanted, strict=True)
            return
        there = np.zeros(shape, dtype=bool)
        there[:, self.index(node, a.graph)[wanted.ravel()]] = True
        a.demand(x, there, strict=True)

    def take(self, node: ir.Node, t: Take) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        index = self.index(node, t.graph)
        there = t.live(x, 1)
        if t.a.atoms[x].size > 1:
            index = np.where(there[index], renumber(there)[index], -1)
        index = index[t.live(y, 1)] if len(index) > 1 else index
        assert (index >= 0).all(), "a selected channel was dropped"
        node.replace_input_with(1, t.graph.add_constant("selected", index, ir.DataType.INT64))


def try_selectors(graph: Graph, analyse: Callable[[], Analysis], allow: Callable[[str, str], bool]) -> int:
    """Insert selectors that pay; returns how many. Their channels are dropped by the next `drop_channels`."""
    a = analyse()
    settled = set(graph.selectors)
    for node in a.nodes:
        x = node.inputs[0] if node.inputs else None
        shape = dims(x)
        if x is None or graph.is_constant(x) or shape is None or len(shape) < 2 or not isinstance(shape[1], int):
            continue
        if node not in graph.selectors and _may_pay(node, x, a) and shape[1] > 1:
            insert_selector(graph, node)
    if graph.selectors == settled:
        return 0
    trial = analyse()
    kept = 0
    for selector in [s for s in graph.selectors if s not in settled]:
        if _pays(selector, trial) and allow("select_channels", selector.outputs[0].name or ""):
            kept += 1
        else:
            remove_selector(graph, selector)
    return kept


def settle_selectors(graph: Graph) -> None:
    """Forget the selectors: from here on they are ordinary Gathers; those that take everything are removed."""
    for selector in list(graph.selectors):
        x = selector.inputs[0]
        index = graph.constant(selector.inputs[1]) if selector.graph is not None else None
        shape = dims(x)
        if index is not None and shape is not None and shape[1] == len(index):
            remove_selector(graph, selector)
    graph.selectors.clear()


def remove_selector(graph: Graph, selector: ir.Node) -> None:
    """Let the reader read the input again."""
    graph.selectors.discard(selector)
    x = selector.inputs[0]
    assert x is not None
    graph.replace(selector.outputs[0], x)
    graph.remove([selector])


def _may_pay(node: ir.Node, x: ir.Value, a: Analysis) -> bool:
    flow = a.flows[node]
    if isinstance(flow, Elementwise):
        return len(flow.dynamic(node, a.graph)) == 1 and (
            a.atoms[x].size == 1 or (_shared(x, a) and bool(a.alive[a.atoms[x]].all()))
        )
    if not isinstance(flow, Convolution):
        return False
    if flow.groups > 1 and a.atoms[x].size == 1:
        return True
    if flow.groups > 1:
        return False
    facts = flow.input_facts(node, a)
    idle = facts.known.ravel() | ~flow.reached(np.ones(flow.outputs, dtype=bool))
    return bool((idle & a.live(x, 1)).mean() >= _SMALLEST_SHARE) if a.atoms[x].size > 1 else False


def _shared(x: ir.Value, a: Analysis) -> bool:
    producer = x.producer()
    return a.graph.sole_reader(x) is None or producer is None or producer.op_type in ("Add", "Concat", "Sum")


def insert_selector(graph: Graph, node: ir.Node, position: int = 0) -> None:
    """Put a selector of all channels in front of one input of a node."""
    x = node.inputs[position]
    shape = dims(x)
    assert x is not None
    assert shape is not None
    assert isinstance(shape[1], int)
    index = graph.add_constant("selected", np.arange(shape[1]), ir.DataType.INT64)
    y = graph.add_node(
        "Gather", [x, index], node, stem=f"{x.name}_selected", shape=shape, dtype=x.dtype, attributes={"axis": 1}
    )
    node.replace_input_with(position, y)
    producer = y.producer()
    assert producer is not None
    graph.selectors.add(producer)


def _pays(selector: ir.Node, a: Analysis) -> bool:
    y = selector.outputs[0]
    gone = a.dropped(y).ravel()
    if gone.mean() < _SMALLEST_SHARE:
        return False
    reader = a.graph.sole_reader(y)
    flow = a.flows.get(reader) if reader is not None else None
    if isinstance(flow, Convolution) and flow.groups == 1:
        saved = int(gone.sum()) * int(np.prod(flow.kernel)) * flow.outputs
        return saved > _MULTIPLY_ADDS_PER_COPY * (flow.inputs - int(gone.sum()))
    return True
