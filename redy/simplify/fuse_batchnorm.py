"""Fusing per-channel affine nodes (BatchNormalization; Mul, Add, Sub, Div by constants) into the layer beside them.

After a layer:   s_o * (b_o + sum_i W_oi * x_i) + t_o   =  (s_o b_o + t_o) + sum_i (s_o W_oi) * x_i
Before a layer:  b_o + sum_i W_oi * (s_i x_i + t_i)     =  (b_o + sum_i W_oi * t_i) + sum_i (W_oi s_i) * x_i,
                 the latter only where no zero padding comes between, or t = 0.

All arithmetic is done in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.facts import Table
from redy.simplify.flows.elementwise import batchnorm_line
from redy.simplify.graph import Graph, dims, get_float, get_int, get_ints, get_string, input_of, is_standard

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Line = tuple[Table, Table]


def fuse_batchnorm(graph: Graph, allow: Callable[[str, str], bool]) -> int:
    """Fuse until nothing is left to fuse; returns the number of nodes that went."""
    fused = 0
    for node in graph.nodes():
        if node.graph is None or not is_standard(node):
            continue
        line = affine_line(node, graph)
        if line is None:
            continue
        (x, slope, shift) = line
        where = node.name or node.outputs[0].name or ""
        if _fuse_after(node, x, slope, shift, graph, allow, where) or _fuse_before(
            node, x, slope, shift, graph, allow, where
        ):
            fused += 1
    return fused


def affine_line(node: ir.Node, graph: Graph) -> tuple[ir.Value, Table, Table] | None:
    """(x, slope, shift) of a node that computes slope * x + shift per channel; arrays broadcast against x, or None."""
    op = node.op_type
    if op == "BatchNormalization":
        return _batchnorm(node, graph)
    if op not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2 or "axis" in node.attributes:
        return None
    constants = [graph.numbers(v) for v in node.inputs]
    if (constants[0] is None) == (constants[1] is None):
        return None
    side = 0 if constants[0] is not None else 1
    c, x = constants[side], node.inputs[1 - side]
    shape = dims(x)
    if x is None or c is None or shape is None or c.ndim > len(shape) or not np.isfinite(c).all():
        return None
    if any(n not in (1, d) for n, d in zip(c.shape[::-1], shape[::-1], strict=False)) or x.dtype not in _FLOATS:
        return None
    c = c.reshape((1,) * (len(shape) - c.ndim) + c.shape)
    one, nought = np.ones_like(c), np.zeros_like(c)
    if op == "Mul":
        return x, c, nought
    if op == "Add":
        return x, one, c
    if op == "Sub":
        return (x, one, -c) if side == 1 else (x, -one, c)
    return (x, 1 / c, nought) if side == 1 and (c != 0).all() else None


_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _batchnorm(node: ir.Node, graph: Graph) -> tuple[ir.Value, Table, Table] | None:
    x = node.inputs[0]
    shape = dims(x)
    if len(node.outputs) != 1 or get_int(node, "training_mode", 0) or not get_int(node, "spatial", 1):
        return None
    if x is None or shape is None or any(graph.numbers(v) is None for v in node.inputs[1:5]):
        return None
    slope, shift = batchnorm_line(node, graph)
    if not (np.isfinite(slope).all() and np.isfinite(shift).all()):
        return None
    view = (1, -1) + (1,) * (len(shape) - 2)
    return x, slope.reshape(view), shift.reshape(view)


def _per_channel(array: Table, axis: int, count: int) -> Table | None:
    """The array as one number per channel, if it varies along the channel axis only."""
    if any(n != 1 for i, n in enumerate(array.shape) if i != axis % array.ndim):
        return None
    return np.broadcast_to(array.reshape(-1), (count,))


def _channel_axis(layer: ir.Node, rank: int) -> int:
    return 1 if layer.op_type in ("Conv", "ConvTranspose") else rank - 1


def _movable(graph: Graph, layer: ir.Node) -> bool:
    """A layer with constant weights of its own: fusing into shared ones would copy them."""
    if layer.op_type == "Gemm" and get_int(layer, "transA", 0):
        return False
    weight, bias = layer.inputs[1], input_of(layer, 2)
    if weight is None or not graph.is_constant(weight) or len(list(weight.uses())) != 1:
        return False
    if bias is not None and not graph.is_constant(bias):
        return False
    return layer.op_type != "MatMul" or len(dims(weight) or ()) == 2


def _outputs_axis(layer: ir.Node) -> int:
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and get_int(layer, "transB", 0)):
        return 0
    return 1


def _scale(weight: Table, layer: ir.Node, factor: Table, outputs: bool) -> Table | None:
    """Weights with a factor per output (or per input) channel."""
    groups = get_int(layer, "group", 1)
    axis = _outputs_axis(layer) if outputs else 1 - _outputs_axis(layer)
    view = [1] * weight.ndim
    if groups == 1 or weight.shape[axis] == factor.size:
        view[axis] = -1
        return weight * factor.reshape(view)
    other = 1 - axis  # the axis that is laid out group by group
    grouped = weight.reshape(*weight.shape[:other], groups, -1, *weight.shape[other + 1 :])
    per_group = factor.reshape(groups, -1)
    shape = [1] * grouped.ndim
    shape[other], shape[axis + (1 if axis > other else 0)] = per_group.shape
    return (grouped * per_group.reshape(shape)).reshape(weight.shape)


def _outputs(layer: ir.Node) -> int:
    shape = dims(layer.inputs[1])
    assert shape is not None
    n = int(shape[_outputs_axis(layer)])  # type: ignore[arg-type]  # a constant
    return n * get_int(layer, "group", 1) if layer.op_type == "ConvTranspose" else n


def _fuse_after(
    node: ir.Node, x: ir.Value, slope: Table, shift: Table, graph: Graph, allow: Callable[[str, str], bool], where: str
) -> bool:
    layer = x.producer()
    if layer is None or graph.sole_reader(x) is not node:
        return False
    addition: ir.Node | None = None
    if layer.op_type == "Add" and (slope != 1).any():
        inner = affine_line(layer, graph)
        if inner is not None and inner[0].producer() is not None and graph.sole_reader(inner[0]) is layer:
            first = inner[0].producer()
            if first is not None and first.op_type == "MatMul":
                addition, layer, shift = layer, first, slope * inner[2] + shift
    if not is_standard(layer) or layer.op_type not in _LAYERS or not _movable(graph, layer):
        return False
    rank = len(dims(x) or ())
    count = _outputs(layer)
    axis = _channel_axis(layer, rank)
    s, t = _per_channel(slope, axis, count), _per_channel(shift, axis, count)
    if s is None or t is None or (layer.op_type == "MatMul" and addition is None and (s == 1).all()):
        return False
    if not allow("fuse_batchnorm", where):
        return False
    weight = graph.numbers(layer.inputs[1])
    assert weight is not None
    assert layer.inputs[1] is not None
    old = layer.inputs[1]
    dtype = _dtype(graph, old)
    scaled = _scale(weight, layer, s, outputs=True)
    assert scaled is not None
    layer.replace_input_with(1, graph.add_constant(f"{old.name}_fused", scaled, dtype))
    if layer.op_type == "MatMul":
        if t.any():
            bias_value = graph.add_constant(f"{old.name}_bias", t, dtype)
            y = layer.outputs[0]
            shape = dims(x)
            out = graph.add_node(
                "Add", [y, bias_value], None, after=layer, stem=f"{y.name}_biased", shape=shape, dtype=x.dtype
            )
            producer = out.producer()
            assert producer is not None
            graph.replace(node.outputs[0], out, keep=[producer])
        else:
            graph.replace(node.outputs[0], layer.outputs[0])
        graph.remove([node] if addition is None else [node, addition])
        return True
    _set_bias(graph, layer, s, t, count, dtype)
    graph.replace(node.outputs[0], layer.outputs[0])
    graph.remove([node])
    return True


def _set_bias(graph: Graph, layer: ir.Node, s: Table, t: Table, count: int, dtype: ir.DataType) -> None:  # noqa: ARG001 - one signature for all
    old = input_of(layer, 2)
    factor = get_float(layer, "beta", 1.0) if layer.op_type == "Gemm" else 1.0
    bias = graph.numbers(old) if old is not None else np.zeros(1)
    assert bias is not None
    total = bias * factor * s + t
    if old is None and not total.any():
        return
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    name = (
        layer.inputs[1].name if old is None and layer.inputs[1] is not None else (old.name if old is not None else "")
    )
    layer.replace_input_with(2, graph.add_constant(f"{name}_bias", total, dtype))
    if layer.op_type == "Gemm":
        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _fuse_before(
    node: ir.Node, x: ir.Value, slope: Table, shift: Table, graph: Graph, allow: Callable[[str, str], bool], where: str
) -> bool:
    y = node.outputs[0]
    layer = graph.sole_reader(y)
    if layer is None or not is_standard(layer) or layer.op_type not in _LAYERS or layer.inputs[0] is not y:
        return False
    if not _movable(graph, layer):
        return False
    rank = len(dims(x) or ())
    axis = _channel_axis(layer, rank)
    count = (dims(x) or ())[axis]
    if not isinstance(count, int):
        return False
    s, t = _per_channel(slope, axis, count), _per_channel(shift, axis, count)
    if s is None or t is None:
        return False
    padded = get_string(layer, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or any(get_ints(layer, "pads", []))
    if t.any() and (layer.op_type in ("ConvTranspose", "MatMul") or padded or get_int(layer, "group", 1) != 1):
        return False
    if not allow("fuse_batchnorm", where):
        return False
    weight = graph.numbers(layer.inputs[1])
    assert weight is not None
    assert layer.inputs[1] is not None
    old = layer.inputs[1]
    dtype = _dtype(graph, old)
    scaled = _scale(weight, layer, s, outputs=False)
    assert scaled is not None
    if t.any():
        outs = weight if _outputs_axis(layer) == 0 else weight.swapaxes(0, 1)
        extra = np.tensordot(outs.reshape(*outs.shape[:2], -1).sum(axis=2), t, axes=1)
        extra = extra * (get_float(layer, "alpha", 1.0) if layer.op_type == "Gemm" else 1.0)
        _set_bias(graph, layer, np.ones(len(extra)), extra, len(extra), dtype)
    layer.replace_input_with(1, graph.add_constant(f"{old.name}_fused", scaled, dtype))
    layer.replace_input_with(0, x)
    graph.remove([node])
    return True


def _dtype(graph: Graph, value: ir.Value) -> ir.DataType:
    if value.dtype is not None:
        return value.dtype
    return ir.tensor(np.asarray(graph.constant(value))).dtype
