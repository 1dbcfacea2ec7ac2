"""What exporters write around the weights, brought to one form before channels are analysed.

Local functions are inlined, branches of an If whose condition is stored are taken, nodes that compute a weight from
stored tensors are evaluated (a mask times a weight, a transposed or dequantised weight, an Identity), and a stored
tensor that several nodes read is given to each of them apart, because each may need other channels of it. What is
equal in the end is stored once again (`share`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from redy.formats.reading.graph import Refused
from redy.formats.reading.reference import run_node
from redy.simplify.follow_shapes import follow_shapes
from redy.simplify.graph import STANDARD_DOMAINS, Array, Graph, has_subgraph, infer_shapes, is_standard
from redy.simplify.quantised import quantiser_of

Allow = Callable[[str, str], bool]

_PASSES = 8
_FEW = 64

_MOVES = ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat", "Where")
_NUMBERS = ("Cast", "DequantizeLinear", "Mul", "Add", "Sub", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Sum")
_LOGIC = ("Not", "Equal", "Greater", "Less", "And", "Or", "Clip", "Sign", "ReduceSum", "ReduceMean")
_SIZES = ("Mod", "Min", "Max", "Floor", "Ceil", "ReduceProd", "ConstantOfShape", "Range", "Shape", "Size", "Split")
_FOLDED = frozenset([*_MOVES, *_NUMBERS, *_LOGIC, *_SIZES])
"""Operators whose result from stored tensors is stored instead: deterministic, and the same in every runtime."""


def inlined(model: ir.Model, *, fix_inputs: bool) -> ir.Model:
    """The model with its local functions inlined; with `fix_inputs` no caller can override its initializers."""
    if model.functions:
        InlinePass()(model)
    if fix_inputs:
        RemoveInitializersFromInputsPass()(model)
    return model


def overridable(graph: Graph) -> list[str]:
    """Names of initializers of which a caller may give other values, so that nothing follows from what they hold."""
    values = graph.graph.initializers.values()
    return [value.name or "" for value in values if value.uses() and not graph.is_constant(value)]


def prepare(graph: Graph, allow: Allow) -> None:
    """Take constant branches, evaluate what computes weights and sizes, and cut shared tensors apart."""
    for node in graph.nodes():
        if node.op_type == "If" and is_standard(node):
            _take_branch(graph, node, allow)
    for _ in range(_PASSES):
        folded = sum(_fold(graph, node, allow) for node in graph.nodes())
        if not folded + follow_shapes(graph):
            break
        graph.remove_unread()
        infer_shapes(graph.model)
    _cut_apart(graph)


def _take_branch(graph: Graph, node: ir.Node, allow: Allow) -> None:
    """Put the nodes of the branch that the stored condition chooses in the place of the If."""
    condition = graph.constant(node.inputs[0])
    if condition is None or condition.size != 1:
        return
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    branch, other = branches if bool(condition.ravel()[0]) else branches[::-1]
    if any(has_subgraph(inner) for one in branches for inner in one) or not allow("take_branch", node.name or ""):
        return
    for value in list(branch.initializers.values()):
        assert value.const_value is not None
        kept = _copy(graph, value.const_value, value.name or "stored")
        value.replace_all_uses_with(kept, replace_graph_outputs=True)
    results = list(branch.outputs)
    nodes = list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    graph.graph.insert_before(node, nodes)
    for old, new in zip(list(node.outputs), results, strict=True):
        graph.replace(old, new)
    graph.remove([node])
    for inner in other:  # what the branch read has these readers no more
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)


def _fold(graph: Graph, node: ir.Node, allow: Allow) -> bool:
    """Store what a node makes of stored tensors, where that takes no more room than they do or is a few sizes."""
    if node.op_type not in _FOLDED or not is_standard(node) or len(node.outputs) != 1 or not node.inputs:
        return False
    given = [None if value is None else graph.constant(value) for value in node.inputs]
    if any(value is not None and array is None for value, array in zip(node.inputs, given, strict=True)):
        return False
    result = _result(graph, node, given)
    if result is None or result.size > max(_room(result), *(array.size for array in given if array is not None)):
        return False
    if node.outputs[0].is_graph_output() or not allow("fold_initializers", node.name or ""):
        return False
    stored = graph.add_constant(f"{node.outputs[0].name}_stored", result, ir.tensor(result).dtype)
    if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
        known = quantiser_of(node, given, node.inputs[0].dtype)
        if known is not None:
            graph.quantisers[stored.name or ""] = known
    graph.replace(node.outputs[0], stored)
    return True


def _room(result: Array) -> int:
    """Elements that may be stored although the node reads fewer: whole numbers are sizes or indices."""
    return _FEW if result.dtype.kind in "iub" else 1


def _result(graph: Graph, node: ir.Node, given: list[Array | None]) -> Array | None:
    first = given[0]
    if node.op_type == "Identity" and first is not None:
        return first
    if node.op_type == "DequantizeLinear":
        return _dequantised(node, given)
    opsets = {"" if domain in STANDARD_DOMAINS else domain: v for domain, v in graph.graph.opset_imports.items()}
    try:
        result = np.asarray(run_node(ir.to_proto(node), given, opsets)[0])
    except Refused:
        return None
    return result if result.dtype.kind in "fiub" else None


def _dequantised(node: ir.Node, given: list[Array | None]) -> Array | None:
    """(q - zero point) * scale; the reference implementation lacks older opsets."""
    known = quantiser_of(node, given, None if node.inputs[0] is None else node.inputs[0].dtype)
    return None if known is None or given[0] is None else known.dequantised(given[0])


def _cut_apart(graph: Graph) -> None:
    """Give every reader of a stored tensor of floating-point numbers a value of its own; the numbers stay shared."""
    for value in list(graph.graph.initializers.values()):
        uses = list(value.uses())
        tensor = value.const_value
        if len(uses) < 2 or not graph.is_constant(value) or tensor is None or not tensor.dtype.is_floating_point():
            continue
        if graph.exported(value):
            continue
        for use in uses[1:]:
            use.node.replace_input_with(use.idx, _copy(graph, tensor, f"{value.name}_own"))


def _copy(graph: Graph, tensor: ir.TensorProtocol, stem: str) -> ir.Value:
    """A value of its own name that holds the same numbers, which are not copied."""
    name = graph.fresh(stem)
    own = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    value = ir.Value(name=name, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=own)
    graph.adopt(value)
    return value


def share(graph: Graph) -> None:
    """Store equal tensors once."""
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(graph.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or not graph.is_constant(value) or graph.exported(value) or not value.uses():
            continue
        if tensor.dtype == ir.DataType.STRING:
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        if key not in first:
            first[key] = value
            continue
        graph.replace(value, first[key])
        if value.is_graph_input():
            graph.graph.inputs.remove(value)
        del graph.graph.initializers[name]
