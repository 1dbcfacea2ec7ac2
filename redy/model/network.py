"""A network: affine arithmetic joined by activations, in topological order.

Every spelling of affine arithmetic ends in `Affine`; every piecewise-linear activation ends in `Activate`. What cannot
be written so is carried (`Elementwise`, `MaxPool`, `Product`, `Foreign`) and says for itself what it supports.
Shapes never include the batch axis; values carry it as a leading axis n.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from redy.model.box import Array, frozen
from redy.model.carried import Elementwise, Foreign, MaxPool, Product
from redy.model.functions import PiecewiseLinear
from redy.model.operators import Operator, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One summand of an affine node: `operator` applied to the value named `source`."""

    source: str
    operator: Operator


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """z = bias + sum over terms of operator(source).

    Several terms are a residual sum, a skip connection or a concatenation. The bias has the node's full shape, so a
    bias that varies per position is nothing special.
    """

    name: str
    terms: tuple[Term, ...]
    bias: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", frozen(self.bias))
        for term in self.terms:
            if term.operator.out_shape != self.shape:
                raise ValueError(
                    f"{self.name}: the term from {term.source} gives {term.operator.out_shape}, not {self.shape}"
                )

    @property
    def shape(self) -> Shape:
        """The shape of its value."""
        return self.bias.shape

    @property
    def sources(self) -> tuple[str, ...]:
        """The values it reads."""
        return tuple(term.source for term in self.terms)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """z for the given values (n, *shape of each source); n is taken from the values."""
        n = len(next(iter(values.values())))
        result = np.repeat(self.bias[None], n, axis=0)
        for term in self.terms:
            result += term.operator.apply(values[term.source])
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Activate:
    """y = function(x), unit by unit, for a piecewise-linear function of the table."""

    name: str
    source: str
    function: PiecewiseLinear
    shape: Shape

    @property
    def sources(self) -> tuple[str, ...]:
        """The value it reads."""
        return (self.source,)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """The activation of values[source]."""
        return self.function(values[self.source])


Node = Affine | Activate | Elementwise | MaxPool | Product | Foreign


@dataclass(frozen=True, slots=True)
class Port:
    """How an input or output looked in the file, so that writing gives it back.

    Attributes:
        name: its name in the file.
        shape: its shape in the network, without batch axis.
        dtype: numpy name of its element type ("float32").
        batch: the batch axis as the file had it: a number, a symbolic name, or None where there is no batch axis.
        parts: where the file has several inputs, these, which the port holds flattened, one after the other.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    batch: int | str | None = "batch"
    parts: tuple[Port, ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in topological order over one input.

    Attributes:
        input: the input port; its name is the name under which nodes read the input.
        nodes: every node after the nodes it reads.
        outputs: the output ports; each names a node (or the input).
        opset: the ONNX opset the file had (written back where the rewritten form allows).
        head: what the file has behind these outputs and is no number, as bytes (`redy.formats.reading.head`); it is
            carried.

    Raises:
        ValueError: a name is used twice, a node reads a value not yet defined, or shapes do not agree.
    """

    input: Port
    nodes: tuple[Node, ...]
    outputs: tuple[Port, ...]
    opset: int = 17
    weight_dtype: str = field(default="float32")
    head: bytes = b""

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {self.input.name: self.input.shape}
        for node in self.nodes:
            if node.name in shapes:
                raise ValueError(f"{node.name}: the name is used twice")
            for source in node.sources:
                if source not in shapes:
                    raise ValueError(f"{node.name}: reads {source}, which is not defined before it")
            _check_shapes(node, shapes)
            shapes[node.name] = node.shape
        for port in self.outputs:
            if shapes.get(port.name) is None:
                raise ValueError(f"output {port.name} is not a value of the network")
            if shapes[port.name] != port.shape:
                raise ValueError(f"output {port.name} has shape {shapes[port.name]}, its port says {port.shape}")

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every value by name."""
        return {self.input.name: self.input.shape, **{node.name: node.shape for node in self.nodes}}

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Every node by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each value, in order."""
        found: dict[str, list[Node]] = {name: [] for name in self.shapes}
        for node in self.nodes:
            for source in dict.fromkeys(node.sources):
                found[source].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def activations(self) -> tuple[Activate, ...]:
        """The piecewise-linear activation nodes in order."""
        return tuple(node for node in self.nodes if isinstance(node, Activate))

    @property
    def units(self) -> int:
        """The number of neurons: elements of all piecewise-linear activations (positions counted one by one)."""
        return sum(math.prod(node.shape) for node in self.activations)

    @property
    def parameters(self) -> int:
        """Stored weights and biases (a bias constant over positions counts once per channel)."""
        return sum(node_parameters(node) for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-adds of one evaluation (bias additions and activations not counted)."""
        return sum(term.operator.macs for node in self.nodes if isinstance(node, Affine) for term in node.terms)

    def trace(self, x: Array, keep: Iterable[str] | None = None) -> dict[str, Array]:
        """Every value (or those in `keep`, which takes less memory) for inputs x (n, *input shape), in float64.

        Raises:
            ValueError: x does not have the input's shape.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.shape[1:] != self.input.shape:
            raise ValueError(f"inputs have shape {x.shape[1:]}, the network takes {self.input.shape}")
        keep = None if keep is None else set(keep)
        wanted = None if keep is None else keep | {self.input.name}
        values: dict[str, Array] = {self.input.name: x}
        last = {source: node.name for node in self.nodes for source in node.sources}
        # Infinities and NaNs are values like others, as in the file.
        with np.errstate(over="ignore", invalid="ignore"):
            for node in self.nodes:
                values[node.name] = node.evaluate(values)
                for source in () if wanted is None else set(node.sources) - wanted:
                    if last[source] == node.name:
                        del values[source]
        return values if keep is None else {name: values[name] for name in keep}

    def evaluate(self, x: Array) -> Array:
        """The first output for inputs x (n, *input shape), in float64, as (n, *output shape)."""
        return self.trace(x, keep=[self.outputs[0].name])[self.outputs[0].name]

    def __repr__(self) -> str:
        outputs = ", ".join(f"{port.name} {port.shape}" for port in self.outputs)
        sizes = f"{self.units:,} units, {self.parameters:,} parameters, {self.macs:,} multiply-adds"
        return f"Network({self.input.name} {self.input.shape} -> {outputs}; {sizes})"

    def _repr_html_(self) -> str:
        """A table of the activations, for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(node.name)}</td><td>{math.prod(node.shape):,}</td></tr>" for node in self.activations
        )
        return f"<p>{html.escape(repr(self))}</p><table><tr><th>activation</th><th>elements</th></tr>{rows}</table>"

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def _check_shapes(node: Node, shapes: Mapping[str, Shape]) -> None:
    if isinstance(node, Affine):
        for term in node.terms:
            given, taken = shapes[term.source], term.operator.in_shape
            if given != taken:
                raise ValueError(f"{node.name}: {term.source} has shape {given}, its operator takes {taken}")
    elif isinstance(node, Activate | Elementwise) and shapes[node.source] != node.shape:
        raise ValueError(f"{node.name}: {node.source} has shape {shapes[node.source]}, not {node.shape}")


def node_parameters(node: Node) -> int:
    """Stored weights and biases of one node (a bias constant over positions counts once per channel)."""
    if isinstance(node, Affine):
        bias = node.bias.reshape(node.bias.shape[0], -1) if node.bias.ndim > 1 else node.bias
        per_channel = node.bias.ndim > 1 and bool((bias == bias[:, :1]).all())
        stored = 0 if not node.bias.any() else bias.shape[0] if per_channel else node.bias.size
        return sum(term.operator.parameters for term in node.terms) + int(stored)
    return 0
