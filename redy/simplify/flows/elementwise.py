"""Operators that work element by element: activations, arithmetic with constants and of two tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from redy.simplify.analysis import Analysis, AtomArray
from redy.simplify.axes import Axis
from redy.simplify.facts import Facts, Table, align, constant_facts
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, dims, input_of
from redy.simplify.take import Take

_UNARY = """
    Relu LeakyRelu Elu Selu Celu ThresholdedRelu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Gelu Mish Swish
    Erf Abs Neg Exp Log Sqrt Reciprocal Floor Ceil Round Sign Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh
    Identity Clip Shrink Cast Not IsNaN IsInf
"""
_OF_SEVERAL = """
    Add Sub Mul Div Pow PRelu Min Max Sum Mean Mod Equal Greater Less GreaterOrEqual LessOrEqual And Or Xor Where
"""
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def evaluate(node: ir.Node, opset: int, operands: list[np.ndarray | None]) -> np.ndarray | None:
    """The node's own function on small arrays, by the ONNX reference evaluator; None where it declines."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(operands)]
    proto = onnx.helper.make_node(node.op_type, names, ["y"])
    proto.attribute.extend(ir.to_proto(attribute) for attribute in node.attributes.values())
    feeds = {name: x for name, x in zip(names, operands, strict=True) if x is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in feeds.items()
        ],
        [onnx.ValueInfoProto(name="y")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - whatever the reference evaluator cannot do only means that nothing is known
        return None
    return np.asarray(result)


class Elementwise(Flow):
    """y = f(x_1, .., x_n) with ONNX broadcasting; constants may be any of the x."""

    def dynamic(self, node: ir.Node, a: Graph) -> list[ir.Value]:
        return [v for v in node.inputs if v is not None and not a.is_constant(v)]

    def layout(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        rank = a.rank(out)
        operands = self.dynamic(node, a.graph)
        padded = [(v, _pad(a.atoms[v], rank), _pad_dims(v, rank)) for v in operands]
        labels = np.broadcast_shapes((1,) * rank, *[atoms.shape for _, atoms, _ in padded])
        full = next((atoms for _, atoms, _ in padded if atoms.shape == labels), None)
        fits = full is not None and all(
            atoms.shape[i] == n or shape[i] == 1 for _, atoms, shape in padded for i, n in enumerate(labels) if n > 1
        )
        if not fits or full is None:
            for value in operands:
                a.pin(value)
            a.opaque(out)
            return
        a.atoms[out] = full
        for _, atoms, _ in padded:
            if atoms.size > 1 or labels == atoms.shape or not any(n > 1 for n in labels):
                a.tie(full, atoms)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        rank = a.rank(out)
        labels = a.atoms[out].shape
        if not self.dynamic(node, a.graph):
            return
        operands: list[Facts | None] = []
        for value in node.inputs:
            if value is None:
                operands.append(None)
                continue
            array = a.graph.numbers(value)
            if array is None and a.graph.is_constant(value):
                return
            if array is None:
                operands.append(_pad_facts(a.facts[value], rank))
            else:
                array = array.reshape((1,) * (rank - array.ndim) + array.shape)
                axes = [i for i in range(rank) if labels[i] > 1]
                operands.append(constant_facts(array, axes))
        a.facts[out] = self.combine(node, a, [f for f in operands if f is not None], operands, labels)

    def combine(
        self, node: ir.Node, a: Analysis, given: list[Facts], operands: list[Facts | None], labels: tuple[int, ...]
    ) -> Facts:
        nothing = Facts.nothing(labels)
        known = np.ones(labels, dtype=bool)
        for facts in given:
            if any(n > 1 and labels[i] == 1 for i, n in enumerate(facts.known.shape)):
                return nothing
            known = known & facts.known
        zero = np.zeros(labels, dtype=bool)
        if node.op_type == "Mul":
            for facts in given:
                zero = zero | facts.zero()
        if not (known | zero).any():
            return nothing
        try:
            tables, axes = align([(f.table, f.axes) for f in given])
        except ValueError:
            return nothing
        table = self.apply(node, a.graph, operands, tables) if known.any() else None
        if table is None:
            if not zero.any():
                return nothing
            known = np.zeros(labels, dtype=bool)
            table = np.zeros(labels)
        shape = np.broadcast_shapes(table.shape, labels)
        full = np.broadcast_to(table, shape)
        return Facts.of(known | zero, np.where(zero & ~known, 0.0, full), axes)

    def apply(self, node: ir.Node, graph: Graph, operands: list[Facts | None], tables: list[Table]) -> Table | None:
        queue = iter(tables)
        arrays: list[np.ndarray | None] = []
        for value, facts in zip(node.inputs, operands, strict=True):
            if facts is None:
                arrays.append(None)
                continue
            table = next(queue)
            dtype = np.float64
            assert value is not None
            if value.dtype is not None and value.dtype not in _FLOATS:
                table = table.astype(value.dtype.numpy())
            scalar = node.op_type == "Clip" and len(arrays) > 0
            arrays.append(table.reshape(()) if scalar and table.size == 1 else table)
            del dtype
        if node.op_type == "Cast" and node.outputs[0].dtype in _FLOATS:
            assert node.outputs[0].dtype is not None
            return np.asarray(arrays[0]).astype(node.outputs[0].dtype.numpy()).astype(np.float64)
        result = evaluate(node, graph.opset, arrays)
        return None if result is None else result.astype(np.float64)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        need = a.needs[out] & ~a.absorbed(out)
        if not need.any():
            return
        zeros: list[np.ndarray] = []
        if node.op_type == "Mul":
            for value in node.inputs:
                array = a.graph.numbers(value)
                if array is not None:
                    zeros.append(_zero_labels(array, need.shape))
        for value in node.inputs:
            if value is None or value not in a.needs or a.graph.is_constant(value):
                continue
            wanted = need
            for zero in zeros:
                wanted = wanted & ~zero
            if a.atoms[value].size > 0:
                a.demand(value, _reduce(wanted, a.atoms[value].shape))
            if node.op_type == "Mul" and _pad(a.facts[value].known, need.ndim).shape == need.shape:
                zeros.append(_pad(a.facts[value].zero(), need.ndim))

    def take(self, node: ir.Node, t: Take) -> None:
        out = node.outputs[0]
        rank = t.a.rank(out)
        for index, value in enumerate(node.inputs):
            if value is None or not t.graph.is_constant(value):
                continue
            shape = dims(value)
            assert shape is not None
            lead = rank - len(shape)
            cuts = [(i - lead, t.live(out, i)) for i in range(lead, rank) if shape[i - lead] != 1]
            t.slice_constant(node, index, cuts)


class Copy(Elementwise):
    """Dropout at inference: only the first input is data."""

    def dynamic(self, node: ir.Node, a: Graph) -> list[ir.Value]:  # noqa: ARG002 - one signature for all
        assert node.inputs[0] is not None
        return [node.inputs[0]]

    def forward(self, node: ir.Node, a: Analysis) -> None:
        assert node.inputs[0] is not None
        a.facts[node.outputs[0]] = a.facts[node.inputs[0]]

    def take(self, node: ir.Node, t: Take) -> None:  # noqa: ARG002 - one signature for all
        return


class Quantise(Elementwise):
    """QuantizeLinear and DequantizeLinear with one stored scale, in the runtime's own float32 arithmetic."""

    def apply(self, node: ir.Node, graph: Graph, operands: list[Facts | None], tables: list[Table]) -> Table | None:  # noqa: ARG002 - one signature for all
        x = tables[0].astype(np.float32)
        scale, zero = (graph.numbers(input_of(node, i)) for i in (1, 2))
        assert scale is not None
        step, shift = np.float32(scale.ravel()[0]), 0.0 if zero is None else float(zero.ravel()[0])
        if node.op_type == "DequantizeLinear":
            return np.asarray((x - np.float32(shift)) * step).astype(np.float64)
        kind = node.outputs[0].dtype
        if kind is None:
            return None
        bounds = np.iinfo(kind.numpy())
        return np.asarray(np.clip(np.rint(x / step).astype(np.float64) + shift, bounds.min, bounds.max))


def _quantise(node: ir.Node, graph: Graph) -> Flow | str:
    scale, zero = input_of(node, 1), input_of(node, 2)
    numbers = graph.constant(scale)
    known = graph.constant(zero)
    if numbers is None or numbers.size != 1 or numbers.dtype != np.float32 or (zero is not None and known is None):
        return "its scale is not one stored float32"
    small = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
    whole = node.outputs[0].dtype if node.op_type == "QuantizeLinear" else data_type(node)
    return Quantise() if whole in small else "its type is not one of small whole numbers"


def data_type(node: ir.Node) -> ir.DataType | None:
    """The type of the first input."""
    return None if node.inputs[0] is None else node.inputs[0].dtype


class BatchNorm(Elementwise):
    """y = (x - mean) / sqrt(var + eps) * scale + shift per channel (axis 1), at inference."""

    def dynamic(self, node: ir.Node, a: Graph) -> list[ir.Value]:  # noqa: ARG002 - one signature for all
        assert node.inputs[0] is not None
        return [node.inputs[0]]

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x, out = node.inputs[0], node.outputs[0]
        assert x is not None
        s, t = batchnorm_line(node, a.graph)
        shape = (1, len(s)) + (1,) * (a.rank(out) - 2)
        s, t = s.reshape(shape), t.reshape(shape)
        facts = a.facts[x]
        if a.atoms[out].shape[1] != s.size:
            return
        known = facts.known | ((s == 0) & np.isfinite(t))
        with np.errstate(all="ignore"):
            a.facts[out] = Facts.of(known, np.where(facts.known, facts.table, 0.0) * s + t, facts.axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, out = node.inputs[0], node.outputs[0]
        assert x is not None
        s, _ = batchnorm_line(node, a.graph)
        shape = (1, len(s)) + (1,) * (a.rank(out) - 2)
        need = a.needs[out] & ~a.absorbed(out) & (s.reshape(shape) != 0)
        if need.any():
            a.demand(x, _reduce(need, a.atoms[x].shape))

    def take(self, node: ir.Node, t: Take) -> None:
        live = t.live(node.outputs[0], 1)
        for index in range(1, 5):
            t.slice_constant(node, index, [(0, live)])


def batchnorm_line(node: ir.Node, graph: Graph) -> tuple[Table, Table]:
    """Slope and intercept per channel of a BatchNormalization whose parameters are constants."""
    scale, shift, mean, var = (graph.numbers(v) for v in node.inputs[1:5])
    assert scale is not None
    assert shift is not None
    assert mean is not None
    assert var is not None
    eps = node.attributes.get("epsilon")
    with np.errstate(all="ignore"):
        s = scale / np.sqrt(var + (1e-5 if eps is None else eps.as_float()))
        return s, shift - mean * s


def _pad(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _pad_dims(value: ir.Value, rank: int) -> tuple[int | str | None, ...]:
    shape = dims(value) or ()
    return (1,) * (rank - len(shape)) + shape


def _pad_facts(facts: Facts, rank: int) -> Facts:
    lead = rank - facts.known.ndim
    axes: list[Axis] = [*Facts.nothing((1,) * lead).axes, *facts.axes]
    return Facts(_pad(facts.known, rank), _pad(facts.table, rank), tuple(axes))


def _reduce(need: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`need` summed up over the axes along which an operand of label shape `shape` is broadcast."""
    lead = need.ndim - len(shape)
    axes = tuple(i for i in range(need.ndim) if i < lead or (need.shape[i] > 1 and shape[i - lead] == 1))
    need = np.asarray(need.any(axis=axes, keepdims=True))
    return np.broadcast_to(need.reshape(need.shape[lead:]), shape)


def _zero_labels(array: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
    array = array.reshape((1,) * (len(labels) - array.ndim) + array.shape)
    axes = tuple(i for i, n in enumerate(labels) if n == 1)
    return np.broadcast_to((array == 0).all(axis=axes, keepdims=True), labels)


def _elementwise(node: ir.Node, graph: Graph) -> Flow | str:  # noqa: ARG001 - one signature for all
    if len(node.outputs) != 1:
        return "it has several outputs"
    if node.attributes.get("axis") is not None or node.attributes.get("consumed_inputs") is not None:
        return "it uses the broadcasting of opset 6"
    return Elementwise()


def _dropout(node: ir.Node, graph: Graph) -> Flow | str:
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return "its mask is used"
    training = input_of(node, 2)
    if training is not None:
        value = graph.constant(training)
        if value is None or bool(value.any()):
            return "it may be in training mode"
    return _CopyFirst()


class _CopyFirst(Copy):
    def layout(self, node: ir.Node, a: Analysis) -> None:
        super().layout(node, a)
        for value in node.outputs[1:]:
            a.opaque(value)


def _batchnorm(node: ir.Node, graph: Graph) -> Flow | str:
    if len(node.outputs) != 1 or any(
        node.attributes.get(n) is not None and node.attributes[n].as_int() == v
        for n, v in (("training_mode", 1), ("spatial", 0))
    ):
        return "it is not in inference mode per channel"
    if any(graph.numbers(v) is None for v in node.inputs[1:5]):
        return "its parameters are not constants"
    return BatchNorm()


RULES: dict[str, Callable[[ir.Node, Graph], Flow | str]] = {
    **dict.fromkeys((_UNARY + _OF_SEVERAL).split(), _elementwise),
    "Dropout": _dropout,
    **dict.fromkeys(["QuantizeLinear", "DequantizeLinear"], _quantise),
    "BatchNormalization": _batchnorm,
}
__all__ = ["RULES", "AtomArray", "BatchNorm", "Elementwise", "batchnorm_line", "evaluate"]
