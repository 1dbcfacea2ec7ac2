"""Nodes that are evaluated and carried through, but are not pieces of affine arithmetic or table activations.

Each says for itself what it supports; bounds that a node cannot give are refused by its name when a proof needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from redy.model.box import Array
from redy.model.operators import Shape


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """y = f(x) element by element for a function that is not piecewise linear (Sigmoid, Tanh, Gelu, HardSwish, ...).

    Attributes:
        operator: the ONNX operator's name.
        attributes: its ONNX attributes, as name -> value.
        function: the same in float64 numpy.
    """

    name: str
    source: str
    shape: Shape
    operator: str
    attributes: Mapping[str, float]
    function: Callable[[Array], Array]

    @property
    def sources(self) -> tuple[str, ...]:
        """The value it reads."""
        return (self.source,)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """f of values[source]."""
        return np.asarray(self.function(values[self.source]))


@dataclass(frozen=True, slots=True, eq=False)
class MaxPool:
    """The largest of several elements of the source.

    `index` (*shape, window) holds flat indices into the source; -1 stands for padding, which never wins.
    `attributes` are the ONNX attributes it is written back with.
    """

    name: str
    source: str
    shape: Shape
    index: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    attributes: Mapping[str, object]

    @property
    def sources(self) -> tuple[str, ...]:
        """The value it reads."""
        return (self.source,)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """The maximum over each window."""
        x = values[self.source]
        flat = np.concatenate([x.reshape(len(x), -1), np.full((len(x), 1), -np.inf)], axis=1)
        return np.asarray(flat[:, self.index].max(axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """y = left * right element by element: a gate. Both sources are broadcast to `shape` by the reader."""

    name: str
    left: str
    right: str
    shape: Shape

    @property
    def sources(self) -> tuple[str, ...]:
        """The values it reads."""
        return (self.left, self.right)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """The product of both values."""
        return np.asarray(values[self.left] * values[self.right])


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """Any other ONNX node, kept as it is.

    Attributes:
        operator: the ONNX operator's name (with its domain where that is not the default one).
        inputs: the sources that are values of the network, in order.
        output: which output of the node this value is.
        payload: whatever the writer needs to give the node back unchanged (an ONNX NodeProto with its constants).
        function: evaluates it on (n, ...) values in the order of `inputs`.
    """

    name: str
    inputs: tuple[str, ...]
    shape: Shape
    operator: str
    payload: bytes
    function: Callable[..., Array]
    output: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """The values it reads."""
        return self.inputs

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """The node's value."""
        return np.asarray(self.function(*(values[source] for source in self.inputs)))
