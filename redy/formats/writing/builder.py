"""The ONNX graph under construction: nodes, initializers and names that are used once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from redy.errors import InputError
from redy.model import Shape


@dataclass(slots=True)
class Builder:
    """An ONNX graph under construction.

    Inside the graph every value has the batch as its first axis; `shapes` are without it.

    Attributes:
        dtype: the element type in which the network computes.
        taken: names in use.
        shapes: the shape of every value of the network.
        tensors: the ONNX tensor that holds each value, where it is not the one of its own name.
        batch_source: the tensor whose first axis is the batch.
        opset: the opset of the model.
        plain: whether every Gemm has a bias and spells out its attributes.
    """

    dtype: np.dtype[Any]
    taken: set[str]
    shapes: dict[str, Shape]
    batch_source: str
    opset: int
    plain: bool = False
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    _flat: dict[str, str] = field(default_factory=dict)
    _weights: dict[tuple[tuple[int, ...], bytes], str] = field(default_factory=dict)
    _places: dict[tuple[int, ...], str] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        """A name not yet used, close to `name`."""
        candidate, count = name, 1
        while candidate in self.taken:
            count += 1
            candidate = f"{name}.{count}"
        self.taken.add(candidate)
        return candidate

    def tensor(self, value: str) -> str:
        """The ONNX tensor that holds a value of the network."""
        return self.tensors.get(value, value)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - attributes have many types
        """Adds a node named after its output and returns that."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str, array: ArrayLike) -> str:
        """An initializer in the network's element type; equal ones are stored once.

        Raises:
            InputError: a finite number is too large for that type.
        """
        exact = np.asarray(array, dtype=np.float64)
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(exact).astype(self.dtype).reshape(exact.shape)
        if not np.isfinite(rounded).all():
            raise InputError(f"{name}: a weight is too large for {self.dtype.name}")
        key = (rounded.shape, rounded.tobytes())
        if key not in self._weights:
            self._weights[key] = self._initializer(name, rounded)
        return self._weights[key]

    def whole_numbers(self, name: str, array: ArrayLike) -> str:
        """An initializer of int64; equal short lists (shapes, axes) are stored once."""
        numbers = np.asarray(array, dtype=np.int64)
        if numbers.ndim == 1 and numbers.size <= 8:
            key = tuple(int(number) for number in numbers)
            if key not in self._places:
                self._places[key] = self._initializer(name, numbers)
            return self._places[key]
        return self._initializer(name, numbers)

    def _initializer(self, name: str, array: np.ndarray) -> str:
        unique = self.fresh(name)
        self.initializers.append(numpy_helper.from_array(array, unique))
        return unique

    def flat(self, value: str) -> str:
        """The value as (batch, size)."""
        shape, tensor = self.shapes[value], self.tensor(value)
        if len(shape) == 1:
            return tensor
        if value not in self._flat:
            self._flat[value] = self.reshape(tensor, (math.prod(shape),), self.fresh(f"{value}.flat"))
        return self._flat[value]

    def reshape(self, tensor: str, shape: Shape, output: str) -> str:
        """The tensor with its axes after the batch reshaped."""
        return self.node("Reshape", [tensor, self.whole_numbers(f"{output}.shape", [-1, *shape])], output)


def compressed(array: np.ndarray) -> np.ndarray:
    """The smallest array that broadcasts to `array`: constant axes kept once, leading axes of length 1 dropped."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array
