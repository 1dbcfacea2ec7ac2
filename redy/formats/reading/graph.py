"""What a reader of one ONNX operator works with: values, constants, and the network under construction.

A tensor of the file is either a constant (a numpy array) or a `Value`: a node of the network, together with whether
the tensor's first axis is the batch. Reading happens at one concrete batch size (`Graph.batch`): 1 where the file fixes
it, else a number unlikely to be a shape by itself, so that a shape computed from the batch can be told from one that
is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from redy.errors import InputError
from redy.model import Activate, Affine, Array, Gather, Node, Operator, PiecewiseLinear, Shape, Term

SYMBOLIC_BATCH = 3
"""The batch size at which files with a symbolic batch axis are read."""


class Refused(Exception):
    """An operator's reader declines this node; it is carried as `Foreign` instead."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the file that depends on the input.

    Attributes:
        name: the network node (or input) that holds it.
        shape: its shape without the batch axis.
        batched: whether the file's tensor has the batch as its first axis.
    """

    name: str
    shape: Shape
    batched: bool


Tensor = Value | np.ndarray | None
"""A value, a constant, or an optional input left out."""

Reader = Callable[["Graph", "Op"], list[Tensor]]
READERS: dict[str, Reader] = {}


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Registers a reader for ONNX operators of the default domain."""

    def register(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(operators, reader))
        return reader

    return register


@dataclass(frozen=True, slots=True)
class Op:
    """One ONNX node with its input tensors."""

    node: NodeProto
    inputs: list[Tensor]
    opset: int

    @property
    def kind(self) -> str:
        """The operator's name."""
        return str(self.node.op_type)

    @property
    def output(self) -> str:
        """The name of the first output that has one."""
        return next(str(name) for name in self.node.output if name)

    def attribute(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - attributes have many types
        """An attribute's value, or the default where it is not given."""
        for entry in self.node.attribute:
            if entry.name == name:
                return _plain(entry)
        return default

    def input(self, place: int) -> Tensor:
        """The input at a place, None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def value(self, place: int = 0) -> Value:
        """The input at a place, which must depend on the network's input."""
        tensor = self.input(place)
        if not isinstance(tensor, Value):
            raise Refused(f"input {place} is not a value")
        return tensor

    def constant(self, place: int) -> np.ndarray:
        """The input at a place, which must be a constant."""
        tensor = self.input(place)
        if not isinstance(tensor, np.ndarray):
            raise Refused(f"input {place} is not a constant")
        return tensor

    def weights(self, place: int) -> Array:
        """The constant at a place as float64; it must be finite floating-point numbers."""
        return self.finite(self.constant(place))

    def finite(self, array: np.ndarray) -> Array:
        """`array` as float64.

        Raises:
            InputError: it holds a NaN or an infinity.
        """
        result = np.asarray(array).astype(np.float64)
        if self.kind in {"Add", "Where"} and result.ndim > 1 and np.isinf(result).any() and not np.isnan(result).any():
            raise Refused("an attention mask of infinities")
        if not np.isfinite(result).all():
            raise InputError(f"{label(self.node)}: a weight is NaN or infinite; repair or retrain the network")
        return result

    def only_first_output(self) -> None:
        """Declines a node whose further outputs are named."""
        if any(self.node.output[1:]):
            raise Refused("more than one output is used")


def _plain(entry: AttributeProto) -> Any:  # noqa: ANN401 - attributes have many types
    value = helper.get_attribute_value(entry)
    return value.decode() if isinstance(value, bytes) else value


def label(node: NodeProto) -> str:
    """How an ONNX node is named in messages."""
    output = next((name for name in node.output if name), "")
    return f"{node.op_type} node {node.name or output!r}"


@dataclass(slots=True)
class Graph:
    """The network under construction.

    Attributes:
        batch: the batch size at which the file is read.
        opsets: opset version by domain.
        open_batch: the file leaves the batch open, yet is read at 1, because it reshapes to a literal 1; then nothing
            may act along the batch axis, since nothing would tell.
        nodes: the nodes so far, in order.
        tensors: every tensor of the file read so far.
        reserved: all names in the file; made-up names avoid them.
        own: the outputs of the node being read, the names that its nodes may take.
        kinds: element types of the carried values that are not floating-point.
        types: the element type of every tensor of the file that depends on the input.
        shadows: constants that depend on the batch size, at another batch size; only where `open_batch`.
    """

    batch: int
    opsets: dict[str, int]
    open_batch: bool = False
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    shadows: dict[str, np.ndarray] = field(default_factory=dict)

    def claim(self, name: str) -> str:
        """`name` for an output of the node being read, else a made-up name close to it."""
        if name in self.own:
            self.own.discard(name)
            return name
        candidate, count = name, 1
        while candidate in self.reserved:
            count += 1
            candidate = f"{name}.{count}"
        self.reserved.add(candidate)
        return candidate

    def full_shape(self, tensor: Tensor) -> Shape:
        """The shape of the file's tensor at the batch size of reading."""
        if isinstance(tensor, Value):
            return (self.batch, *tensor.shape) if tensor.batched else tensor.shape
        return np.shape(tensor)  # type: ignore[arg-type]

    def affine(self, name: str, terms: list[tuple[Value, Operator]], bias: Array | None, *, batched: bool) -> Value:
        """Adds z = bias + sum of operator(value)."""
        shape = terms[0][1].out_shape if terms else np.shape(bias)  # type: ignore[arg-type]
        full = np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)
        node = Affine(self.claim(name), tuple(Term(value.name, operator) for value, operator in terms), full)
        return self.add(node, batched=batched)

    def activate(self, name: str, value: Value, function: PiecewiseLinear) -> Value:
        """Adds a piecewise-linear activation."""
        return self.add(Activate(self.claim(name), value.name, function, value.shape), batched=value.batched)

    def add(self, node: Node, *, batched: bool) -> Value:
        """Adds a node whose name was claimed."""
        if self.open_batch and not batched:
            raise InputError(f"{node.name!r} mixes the samples of a batch")
        self.nodes.append(node)
        return Value(node.name, node.shape, batched)

    def moved(self, value: Value, index: np.ndarray, *, batched: bool, name: str) -> Value:
        """The elements of the value (flat) that `index` names, in the shape of `index`."""
        return self.affine(name, [(value, Gather(index, value.shape))], None, batched=batched)

    def reshaped(self, value: Value, shape: Shape, *, batched: bool, name: str) -> Value:
        """The same elements in another shape."""
        if value.shape == shape:
            return Value(value.name, shape, batched)
        return self.moved(value, np.arange(math.prod(shape)).reshape(shape), batched=batched, name=name)

    def as_batched(self, value: Value, name: str) -> Value:
        """The value with its first axis as the batch; an unbatched tensor must have the axis 1 there."""
        if value.batched:
            return value
        if not value.shape or value.shape[0] != 1:
            raise Refused("the tensor has no batch axis")
        return self.reshaped(value, value.shape[1:], batched=True, name=f"{name}.sample")

    def sample(self, constant: np.ndarray, full: Shape, *, batched: bool) -> np.ndarray:
        """A constant that meets a tensor of shape `full`, without the batch axis and still broadcastable.

        Raises:
            Refused: its elements differ along the batch axis.
        """
        constant = np.asarray(constant)
        if not batched or constant.ndim < len(full):
            return constant
        if constant.shape[0] > 1 and not (constant == constant[:1]).all():
            raise Refused("a constant differs along the batch axis")
        return np.asarray(constant[0])
