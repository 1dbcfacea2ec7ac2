"""The ONNX graph that is rewritten: `onnx_ir` plus what every rewrite asks of it.

A *constant* is an initializer that no caller can override, or the output of a Constant node. Initializers that are
also graph inputs can be overridden from IR version 4 on, so there they are not constants.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

if TYPE_CHECKING:
    from redy.simplify.quantised import Quantiser

Array = NDArray[np.generic]
Dim = int | str | None

STANDARD_DOMAINS = ("", "ai.onnx")
_FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS = 4


class Graph:
    """A model being rewritten in place; values and nodes are those of `onnx_ir`."""

    def __init__(self, model: ir.Model, *, maps: bool = True, block: int = 1) -> None:
        self.model = model
        self.graph = model.graph
        self.declared = {value.name for node in self.graph for value in node.outputs if value.shape is not None}
        self.maps = maps  # whether constants may become maps, see propagate_constants
        self.block = block  # layers keep a multiple of this number of channels, because runtimes compute in such blocks
        self.widths: dict[ir.Node, int] = {}  # output channels that layers had in the beginning
        self.selectors: set[ir.Node] = set()  # see select_channels
        self.zero: ir.Value | None = None  # see maps
        self.indices: dict[bytes, ir.Value] = {}
        self.mapped: set[str] = set()
        self.quantisers: dict[str, Quantiser] = {}  # by the name of the value that was dequantised
        self.opset = next((v for d, v in self.graph.opset_imports.items() if d in STANDARD_DOMAINS), 0)
        self._names = {value.name for value in self._values()}
        self._names |= {node.name for node in self.graph}
        infer_shapes(model)

    def _values(self) -> Iterable[ir.Value]:
        yield from self.graph.inputs
        yield from self.graph.initializers.values()
        for node in self.graph.all_nodes():
            yield from node.outputs
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    yield from attribute.as_graph().inputs
                    yield from attribute.as_graph().initializers.values()

    # --- what there is -------------------------------------------------------------------------------------------

    def nodes(self) -> list[ir.Node]:
        return list(self.graph)

    def is_constant(self, value: ir.Value | None) -> bool:
        if value is None:
            return False
        if value.is_initializer():
            overridable = value.is_graph_input() and self.model.ir_version >= _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS
            return value.graph is self.graph and not overridable
        producer = value.producer()
        return producer is not None and producer.op_type == "Constant" and producer.domain in STANDARD_DOMAINS

    def constant(self, value: ir.Value | None) -> Array | None:
        """The value as an array of its own type, or None where it is not a constant (or holds no numbers)."""
        if value is None or not self.is_constant(value):
            return None
        tensor = value.const_value
        if tensor is None:
            tensor = _constant_node_tensor(value.producer())
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            return None
        return tensor.numpy()

    def numbers(self, value: ir.Value | None) -> NDArray[np.float64] | None:
        """A constant as float64, or None."""
        array = self.constant(value)
        return None if array is None else np.asarray(array).astype(np.float64)

    def integers(self, node: ir.Node, name: str, index: int) -> list[int] | None:
        """An integer list: attribute `name` in older opsets, input `index` in newer ones; None if unknown."""
        attribute = node.attributes.get(name)
        if attribute is not None:
            value = attribute.value
            return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
        array = self.constant(input_of(node, index))
        return None if array is None else [int(v) for v in np.asarray(array).ravel()]

    def exported(self, value: ir.Value) -> bool:
        """Whether something that is not a node of this graph reads the value: the caller, or a subgraph."""
        return value.is_graph_output() or any(use.node.graph is not self.graph for use in value.uses())

    def sole_reader(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads the value exactly once, if there is nothing else that reads it."""
        uses = list(value.uses())
        return uses[0].node if len(uses) == 1 and not self.exported(value) else None

    # --- changes -------------------------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        """A name nothing else has."""
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def add_constant(self, stem: str, array: Array, dtype: ir.DataType) -> ir.Value:
        """A new initializer of the given type; float64 input is rounded once, to nearest."""
        name = self.fresh(stem)
        with np.errstate(over="ignore"):
            tensor = ir.tensor(np.asarray(array).astype(dtype.numpy(), order="C"), dtype=dtype, name=name)
        value = ir.Value(name=name, shape=ir.Shape(np.shape(array)), type=ir.TensorType(dtype), const_value=tensor)
        self.adopt(value)
        return value

    def adopt(self, value: ir.Value) -> None:
        """Make a value with stored numbers an initializer, in the way of the model's IR version."""
        self.graph.register_initializer(value)
        if self.model.ir_version < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS:
            self.graph.inputs.append(value)

    def add_node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node | None,
        *,
        after: ir.Node | None = None,
        stem: str | None = None,
        shape: Sequence[Dim] | None = None,
        dtype: ir.DataType | None = None,
        attributes: dict[str, int | float | str | list[int]] | None = None,
    ) -> ir.Value:
        """A new node with one output, placed `before` or `after` another; returns its output."""
        name = self.fresh(stem or op.lower())
        out = ir.Value(
            name=name,
            shape=None if shape is None else ir.Shape(shape),
            type=None if dtype is None else ir.TensorType(dtype),
        )
        node = ir.node(op, inputs, attributes, outputs=[out], name=self.fresh(f"{name}_{op.lower()}"))
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.append(node)
        return out

    def replace(self, old: ir.Value, new: ir.Value, *, keep: Iterable[ir.Node] = ()) -> None:
        """Let everything that reads `old` read `new`, except the nodes of `keep`; a graph output keeps its name."""
        keep = set(keep)
        for use in list(old.uses()):
            if use.node not in keep:
                use.node.replace_input_with(use.idx, new)
        for index, output in enumerate(self.graph.outputs):
            if output is old:
                if new.is_graph_input() or new.is_initializer() or new.is_graph_output():
                    new = self._named_copy(old, new)
                else:
                    old_name = old.name
                    old.name = self.fresh(f"{old_name}_before")
                    new.name = old_name
                    new.shape, new.type = old.shape, old.type
                self.graph.outputs[index] = new

    def _named_copy(self, old: ir.Value, new: ir.Value) -> ir.Value:
        producer = old.producer()
        copy = self.add_node("Identity", [new], None, stem="identity")
        old_name = old.name
        old.name = self.fresh(f"{old_name}_before")
        copy.name = old_name
        copy.shape, copy.type = old.shape, old.type
        assert producer is not None
        return copy

    def remove(self, nodes: Iterable[ir.Node]) -> None:
        """Remove nodes whose outputs only each other read."""
        self.graph.remove(list(nodes), safe=True)

    def remove_unread(self) -> int:
        """Remove nodes without readers and initializers that nothing reads any more; returns the number of nodes."""
        removed = 0
        for node in reversed(self.nodes()):
            if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
                self.graph.remove(node, safe=True)
                removed += 1
        return removed

    def remove_unread_initializers(self, before: set[str]) -> None:
        """Drop initializers that a rewrite left without readers; those that never had one stay (`before`: names)."""
        for name, value in list(self.graph.initializers.items()):
            if value.uses() or value.is_graph_output() or name in before:
                continue
            old_ir = self.model.ir_version < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS
            if value.is_graph_input():
                if not old_ir:
                    continue
                self.graph.inputs.remove(value)
            del self.graph.initializers[name]

    def forget_inferred_shapes(self) -> None:
        """Leave shape annotations only where the model came with them."""
        for node in self.graph:
            for value in node.outputs:
                if value.name not in self.declared and not value.is_graph_output():
                    value.shape = None
                    value.type = None


def infer_shapes(model: ir.Model) -> None:
    """Annotate the values of the main graph with the shapes that can be inferred; failure leaves them unknown."""
    level = logging.getLogger("onnx_ir").level
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logging.getLogger("onnx_ir").setLevel(level)


def dims(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """Shape of a value: integers where static, names where symbolic, None where unknown; None for an unknown rank."""
    if value is None or value.shape is None:
        return None
    # Some exporters store a dynamic size as -1.
    return tuple((d if d >= 0 else None) if isinstance(d, int) else d.value for d in value.shape)


def data(node: ir.Node) -> ir.Value:
    """The first input, which the operator cannot do without."""
    value = node.inputs[0]
    assert value is not None
    return value


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input, None where the node leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_standard(node: ir.Node) -> bool:
    """Whether the node belongs to the ONNX domain itself."""
    return node.domain in STANDARD_DOMAINS


def has_subgraph(node: ir.Node) -> bool:
    """Whether the node holds graphs of its own (If, Loop, Scan)."""
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def get_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def get_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def get_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.as_string())


def get_ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    """A list of integers."""
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else [int(v) for v in attribute.as_ints()]


def _constant_node_tensor(node: ir.Node | None) -> ir.TensorProtocol | None:
    if node is None:
        return None
    for name, attribute in node.attributes.items():
        if name == "value":
            tensor: ir.TensorProtocol = attribute.value  # `as_tensor` asks for its type, which takes long
            return tensor
        if name in ("value_float", "value_floats"):
            return ir.tensor(np.asarray(attribute.value, dtype=np.float32))
        if name in ("value_int", "value_ints"):
            return ir.tensor(np.asarray(attribute.value, dtype=np.int64))
    return None
