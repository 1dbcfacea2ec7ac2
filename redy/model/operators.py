"""Linear operators: the terms of an affine node, with the few verbs that bounds, queries and rewrites need.

Every operator maps a tensor of `in_shape` to one of `out_shape` (no batch axis); arrays given to its verbs carry a
leading axis n (samples, or rows of linear forms). Convolutions and pooling live in `redy.model.convolution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from redy.model.box import Array, frozen

Shape = tuple[int, ...]


@runtime_checkable
class Operator(Protocol):
    """A linear map between tensors, kept in the form in which it is cheap."""

    @property
    def in_shape(self) -> Shape:
        """The shape it takes."""

    @property
    def out_shape(self) -> Shape:
        """The shape it gives."""

    @property
    def macs(self) -> int:
        """Multiply-adds of one application."""

    @property
    def parameters(self) -> int:
        """Stored numbers that are weights."""

    @property
    def fan_in(self) -> int:
        """The largest number of products summed into one output: the n of the rounding bound gamma_n."""

    def apply(self, x: Array) -> Array:
        """W x: (n, *in_shape) -> (n, *out_shape)."""

    def spread(self, radius: Array) -> Array:
        """|W| r, the image of radii: (n, *in_shape) -> (n, *out_shape); linear in r, which may be negative."""

    def adjoint(self, form: Array) -> Array:
        """W^T c, the pull-back of linear forms: (n, *out_shape) -> (n, *in_shape)."""

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c|, which bounds the rounding of `adjoint`: (n, *out_shape) -> (n, *in_shape)."""

    def matrix(self) -> Array:
        """The map as a dense matrix, (size of out_shape, size of in_shape)."""


class _Common:
    """What follows from the verbs for every operator."""

    __slots__ = ()

    def matrix(self: Operator) -> Array:
        """The map as a dense matrix, (size of out_shape, size of in_shape)."""
        size = math.prod(self.in_shape)
        columns = self.apply(np.eye(size).reshape(size, *self.in_shape))
        return columns.reshape(size, math.prod(self.out_shape)).T.copy()


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A full matrix over the flattened tensors: W (out size, in size)."""

    weight: Array
    in_shape: Shape
    out_shape: Shape

    def __post_init__(self) -> None:
        weight = frozen(self.weight)
        if weight.shape != (math.prod(self.out_shape), math.prod(self.in_shape)):
            raise ValueError(f"weight {weight.shape} does not map {self.in_shape} to {self.out_shape}")
        object.__setattr__(self, "weight", weight)

    @classmethod
    def of(cls, weight: Array) -> Dense:
        """Between vectors: (out, in)."""
        rows, columns = np.shape(weight)
        return cls(weight, (columns,), (rows,))

    @property
    def macs(self) -> int:
        """Multiply-adds of one application."""
        return int(self.weight.size)

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return int(self.weight.size)

    @property
    def fan_in(self) -> int:
        """Products per output."""
        return int(self.weight.shape[1])

    def apply(self, x: Array) -> Array:
        """W x."""
        return np.asarray((x.reshape(len(x), -1) @ self.weight.T).reshape(len(x), *self.out_shape))

    def spread(self, radius: Array) -> Array:
        """|W| r."""
        return np.asarray(
            (radius.reshape(len(radius), -1) @ np.abs(self.weight).T).reshape(len(radius), *self.out_shape)
        )

    def adjoint(self, form: Array) -> Array:
        """W^T c."""
        return np.asarray((form.reshape(len(form), -1) @ self.weight).reshape(len(form), *self.in_shape))

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c|."""
        flat = np.abs(form).reshape(len(form), -1)
        return np.asarray((flat @ np.abs(self.weight)).reshape(len(form), *self.in_shape))

    def matrix(self) -> Array:
        """W itself."""
        return self.weight


@dataclass(frozen=True, slots=True, eq=False)
class Positionwise(_Common):
    """The same matrix at every position: (..., in) -> (..., out) with W (out, in), as MatMul on a 3-D tensor does."""

    weight: Array
    in_shape: Shape

    def __post_init__(self) -> None:
        weight = frozen(self.weight)
        if weight.ndim != 2 or not self.in_shape or weight.shape[1] != self.in_shape[-1]:
            raise ValueError(f"weight {weight.shape} does not apply to the last axis of {self.in_shape}")
        object.__setattr__(self, "weight", weight)

    @property
    def out_shape(self) -> Shape:
        """The input's shape with the last axis replaced."""
        return (*self.in_shape[:-1], int(self.weight.shape[0]))

    @property
    def macs(self) -> int:
        """Multiply-adds of one application."""
        return int(self.weight.size) * math.prod(self.in_shape[:-1])

    @property
    def parameters(self) -> int:
        """Stored weights."""
        return int(self.weight.size)

    @property
    def fan_in(self) -> int:
        """Products per output."""
        return int(self.weight.shape[1])

    def apply(self, x: Array) -> Array:
        """W x at every position."""
        return np.asarray(x @ self.weight.T)

    def spread(self, radius: Array) -> Array:
        """|W| r at every position."""
        return np.asarray(radius @ np.abs(self.weight).T)

    def adjoint(self, form: Array) -> Array:
        """W^T c at every position."""
        return np.asarray(form @ self.weight)

    def adjoint_spread(self, form: Array) -> Array:
        """|W|^T |c| at every position."""
        return np.asarray(np.abs(form) @ np.abs(self.weight))


@dataclass(frozen=True, slots=True, eq=False)
class Scale(_Common):
    """A diagonal: y = factor * x, element by element."""

    factor: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", frozen(self.factor))

    @property
    def in_shape(self) -> Shape:
        """The shape of the factor."""
        return self.factor.shape

    @property
    def out_shape(self) -> Shape:
        """The shape of the factor."""
        return self.factor.shape

    @property
    def macs(self) -> int:
        """Multiply-adds of one application; an identity costs nothing."""
        return 0 if self.is_identity else int(self.factor.size)

    @property
    def parameters(self) -> int:
        """Stored weights; an identity stores nothing."""
        return 0 if self.is_identity else int(np.unique(self.factor).size)

    @property
    def is_identity(self) -> bool:
        """True for the identity map."""
        return bool((self.factor == 1).all())

    @property
    def fan_in(self) -> int:
        """Products per output."""
        return 1

    def apply(self, x: Array) -> Array:
        """factor * x."""
        return np.asarray(x * self.factor)

    def spread(self, radius: Array) -> Array:
        """|factor| * r."""
        return np.asarray(radius * np.abs(self.factor))

    def adjoint(self, form: Array) -> Array:
        """factor * c."""
        return np.asarray(form * self.factor)

    def adjoint_spread(self, form: Array) -> Array:
        """|factor| * |c|."""
        return np.abs(form * self.factor)


def identity(shape: Shape) -> Scale:
    """The identity map on tensors of `shape` (a residual connection)."""
    return Scale(np.ones(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Gather(_Common):
    """y[p] = x.flat[index[p]], or 0 where index[p] is -1: every rearrangement of elements.

    Flatten, Reshape, Squeeze, Transpose, Slice, Split, padding with zeros, and (as one term each) Concat.
    """

    index: NDArray[np.int64]
    in_shape: Shape

    def __post_init__(self) -> None:
        index = np.array(self.index, dtype=np.int64)
        if index.size and not (index.min() >= -1 and index.max() < math.prod(self.in_shape)):
            raise ValueError(f"an index lies outside the {math.prod(self.in_shape)} elements of {self.in_shape}")
        index.flags.writeable = False
        object.__setattr__(self, "index", index)

    @property
    def out_shape(self) -> Shape:
        """The shape of the index."""
        return self.index.shape

    @property
    def macs(self) -> int:
        """Moving elements multiplies nothing."""
        return 0

    @property
    def parameters(self) -> int:
        """Moving elements stores no weights."""
        return 0

    @property
    def fan_in(self) -> int:
        """Products per output."""
        return 1

    def apply(self, x: Array) -> Array:
        """The gathered elements."""
        flat = np.concatenate([x.reshape(len(x), -1), np.zeros((len(x), 1))], axis=1)
        return np.asarray(flat[:, self.index])

    def spread(self, radius: Array) -> Array:
        """The gathered radii."""
        return self.apply(radius)

    def adjoint(self, form: Array) -> Array:
        """Scatter-add back to where the elements came from."""
        size = math.prod(self.in_shape)
        flat, index = form.reshape(len(form), -1), self.index.ravel()
        result = np.zeros((len(form), size + 1))
        if np.unique(index).size == index.size:
            result[:, index] = flat
        else:
            np.add.at(result.T, index, flat.T)
        return np.asarray(result[:, :size].reshape(len(form), *self.in_shape))

    def adjoint_spread(self, form: Array) -> Array:
        """The same for absolute values."""
        return self.adjoint(np.abs(form))
