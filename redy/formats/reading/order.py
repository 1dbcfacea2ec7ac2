"""The nodes of a graph in an order in which they can be computed, without those that no output needs."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from redy.errors import InputError
from redy.formats.reading.graph import label

_RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)


def live_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes on which an output depends, every one after those it reads, else in the order of the file.

    Raises:
        InputError: a node reads what nothing defines, or itself through others, or draws random numbers.
    """
    known = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    makers = {str(name): node for node in graph.node for name in node.output if name}
    order: list[NodeProto] = []
    for output in graph.output:
        _visit(makers.get(str(output.name)), makers, known, order)
    place = {id(node): number for number, node in enumerate(graph.node)}
    if _in_order(ordered := sorted(order, key=lambda node: place[id(node)])):
        order = ordered
    for node in order:
        if random := next((inner for inner in nested(node) if inner.op_type in _RANDOM), None):
            raise InputError(
                f"{label(random)}: draws random numbers, so nothing can be proved about the outputs; store fixed "
                "numbers in its place, or export the network for inference"
            )
    return order


def _visit(last: NodeProto | None, makers: dict[str, NodeProto], known: set[str], order: list[NodeProto]) -> None:
    """Append to `order` the node and all that it depends on and that is not there yet, dependencies first."""
    path = [] if last is None or set(last.output) <= known else [(last, iter(_reads(last)))]
    open_names = {name for node, _ in path for name in node.output}
    while path:
        node, names = path[-1]
        name = next((name for name in names if name not in known), None)
        if name is None:
            known.update(node.output)
            order.append(path.pop()[0])
        elif name not in makers:
            raise InputError(f"{label(node)}: reads {name!r}, which nothing defines; repair or export the model again")
        elif name in open_names:
            raise InputError(f"{label(node)}: depends on its own output; repair or export the model again")
        else:
            path.append((makers[name], iter(_reads(makers[name]))))
            open_names.update(makers[name].output)


def _in_order(nodes: list[NodeProto]) -> bool:
    """Whether every node stands after those it reads."""
    made = {name for node in nodes for name in node.output}
    for node in nodes:
        if any(name in made for name in _reads(node)):
            return False
        made.difference_update(node.output)
    return True


def _reads(node: NodeProto) -> list[str]:
    """The names that the node and its subgraphs read from outside."""
    return [*(str(name) for name in node.input), *sorted(captured(node))]


def nested(node: NodeProto) -> Iterator[NodeProto]:
    """The node and all nodes of its subgraphs."""
    yield node
    for body in _bodies(node):
        for inner in body.node:
            yield from nested(inner)


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [
        body
        for attribute in node.attribute
        if attribute.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}
        for body in ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)
    ]


def captured(node: NodeProto) -> set[str]:
    """Names from outside that the node's subgraphs read."""
    return {name for body in _bodies(node) for name in _free(body)}


def _free(body: GraphProto) -> set[str]:
    known = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    free: set[str] = set()
    for node in body.node:
        free |= ({name for name in node.input if name} | captured(node)) - known
        known |= set(node.output)
    return free | {info.name for info in body.output if info.name not in known}
