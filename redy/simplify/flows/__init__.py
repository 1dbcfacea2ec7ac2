"""The table of operators: which rule each one follows, or why it is a wall."""

from __future__ import annotations

import onnx_ir as ir

from redy.simplify.flow import Flow, Wall
from redy.simplify.flows import (
    attention,
    contraction,
    convolution,
    depth,
    elementwise,
    expanding,
    joining,
    linear,
    normalize,
    padding,
    pooling,
    recurrent,
    reshaping,
    shapes,
)
from redy.simplify.graph import Graph, dims, has_subgraph, is_standard

_MODULES = (
    attention,
    contraction,
    convolution,
    depth,
    elementwise,
    expanding,
    joining,
    linear,
    normalize,
    padding,
    pooling,
    recurrent,
    reshaping,
    shapes,
)


def flow_of(node: ir.Node, graph: Graph) -> Flow:
    """The rule of a node. Whatever is not known is a wall; it never is an error."""
    if not is_standard(node):
        return Wall(f"domain {node.domain} is not the standard one")
    if has_subgraph(node):
        return Wall("it has a subgraph")
    for value in [*node.inputs, *node.outputs]:
        if value is not None and dims(value) is None and not graph.is_constant(value):
            return Wall(f"the rank of {value.name} is not known")
    for module in _MODULES:
        choose = module.RULES.get(node.op_type)
        if choose is not None:
            found = choose(node, graph)
            return found if isinstance(found, Flow) else Wall(found)
    return Wall(f"{node.op_type} is not an operator whose channels are followed")
