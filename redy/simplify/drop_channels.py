"""Channels that are constant or not needed leave the layers that make them and the layers that read them.

The analysis says which; here each node is rewritten for what stays, constants of what goes are absorbed by its readers
(`propagate_constants`), and nodes that have no channel left are removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.flow import Wall
from redy.simplify.graph import Graph
from redy.simplify.maps import add_map
from redy.simplify.take import Take


@dataclass(frozen=True)
class Dropped:
    """What one pass removed: channels of layers, constants that moved into their readers, and maps that were added."""

    channels: int
    constants: int
    where: dict[str, int]
    maps: int = 0


def drop_channels(graph: Graph, a: Analysis) -> Dropped:
    """Rewrite the graph for the decision of the analysis."""
    owners = [node for node in a.nodes if a.flows[node].owns_atoms]
    channels = sum(int(a.dropped(value).sum()) for node in owners for value in node.outputs)
    if not any(a.dropped(value).any() for value in a.atoms):
        return Dropped(0, 0, {})
    t = Take(a)
    vanished = []
    where: dict[str, int] = {}
    for node in a.nodes:
        if isinstance(a.flows[node], Wall):
            continue
        if all(t.gone(value) for value in node.outputs):
            vanished.append(node)
            continue
        before = t.absorbed_constants
        a.flows[node].take(node, t)
        if t.absorbed_constants > before:
            where[node.name or node.outputs[0].name or node.op_type] = t.absorbed_constants - before
    for value in a.atoms:
        producer = value.producer()
        if producer is not None and t.changed(value) and not t.gone(value):
            t.reshape_value(value)
    for old, new in t.replacements:
        graph.replace(old, new)
    for value, response in t.later_maps:
        labelled = [i for i, n in enumerate(a.atoms[value].shape) if n > 1]
        axis = labelled[0] if labelled else 0
        add_map(graph, value, response, t.live(value, axis), axis, _dtype(value))
    graph.remove(vanished)
    graph.remove_unread()
    return Dropped(channels, t.absorbed_constants, where, len(t.later_maps))


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is not None:
        return value.dtype
    producer = value.producer()
    assert producer is not None
    return next(v.dtype for v in producer.inputs if v is not None and v.dtype is not None)
