r"""Tensors whose elements are rows over a `Space`, and affine arithmetic on them with its rounding.

A linear operator with weights W is applied to all columns as to a batch; with fan-in k its result is off by at most
gamma_{k+2} |W| (|T| reach) + |W| e, because every product passes at most k + 1 roundings and |W| acts on what the
elements' absolute terms can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .rounding import GROW, TINY
from .space import Array, Rows, Space

Batched = Callable[[Array], Array]


@dataclass(frozen=True)
class Tensor:
    """Coefficients (columns, *shape) and errors (*shape)."""

    space: Space
    T: Array
    e: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.e.shape

    def rows(self) -> Rows:
        """The elements in C order."""
        return Rows(np.ascontiguousarray(self.T.reshape(len(self.T), -1).T), self.e.ravel())

    def magnitude(self) -> Array:
        """|T| reach, rounded up."""
        return np.asarray(np.tensordot(self.space.reach[: len(self.T)], np.abs(self.T), 1) * GROW)

    def linear(self, operator: Batched, absolute: Batched, fan: int) -> Tensor:
        """`operator` and the one with absolute weights, both on (batch, *shape)."""
        weight = absolute(np.stack([self.e, self.magnitude()]))
        e = (weight[0] + self.space.gamma(fan + 2) * weight[1]) * GROW + TINY
        return Tensor(self.space, operator(self.T), e)

    def _rounded(self, T: Array, e: Array, operations: int) -> Tensor:
        """Every coefficient passed this number of roundings, without cancellation."""
        done = Tensor(self.space, T, e)
        return Tensor(self.space, T, (e + self.space.gamma(operations) * done.magnitude()) * GROW + TINY)

    def plus(self, other: Tensor | Array, sign: float = 1.0) -> Tensor:
        """self + other or self - other, elements broadcast against each other as in ONNX."""
        other = other if isinstance(other, Tensor) else constant(self.space, other)
        shape = np.broadcast_shapes(self.shape, other.shape)
        T = np.zeros((max(len(self.T), len(other.T)), *shape))
        T[: len(self.T)] = lifted(self.T, len(shape))
        T[: len(other.T)] += sign * lifted(other.T, len(shape))
        return self._rounded(T, self.e + other.e, 1)

    def times(self, factor: Array | float, roundings: int = 0) -> Tensor:
        """Elements times numbers that went through some roundings themselves."""
        rank = np.broadcast(self.e, factor).ndim
        return self._rounded(lifted(self.T, rank) * factor, self.e * np.abs(factor), roundings + 1)

    def at(self, matrix: Array) -> Tensor:
        """self @ matrix, as numpy and ONNX define it."""
        return self.linear(lambda t: product(t, matrix), lambda t: product(t, np.abs(matrix)), matrix.shape[-2])

    def under(self, matrix: Array) -> Tensor:
        """matrix @ self for tensors of at least two axes."""
        rank = max(matrix.ndim, self.e.ndim)
        x = Tensor(self.space, lifted(self.T, rank), lifted(self.e[None], rank)[0])
        return x.linear(lambda t: matrix @ t, lambda t: np.abs(matrix) @ t, matrix.shape[-1])


def constant(space: Space, value: Array) -> Tensor:
    """A tensor of numbers."""
    T = np.zeros((space.n + 1, *value.shape))
    T[space.n] = value
    return Tensor(space, T, np.zeros(value.shape))


def as_tensor(space: Space, rows: Rows, shape: tuple[int, ...]) -> Tensor:
    """Rows, in C order the elements of a tensor."""
    return Tensor(space, np.ascontiguousarray(rows.T.T).reshape(-1, *shape), rows.e.reshape(shape))


def lifted(batch: Array, axes: int) -> Array:
    """(batch, *shape) with axes of length 1 in front of the shape, for broadcasting."""
    return batch.reshape(len(batch), *[1] * (axes - batch.ndim + 1), *batch.shape[1:])


def product(batch: Array, matrix: Array) -> Array:
    """(batch, ..., k) @ matrix; one large product where the matrix is the same for all."""
    if matrix.ndim == 2:
        return (batch.reshape(-1, batch.shape[-1]) @ matrix).reshape(*batch.shape[:-1], matrix.shape[1])
    return np.asarray(lifted(batch, max(matrix.ndim, batch.ndim - 1)) @ matrix)
