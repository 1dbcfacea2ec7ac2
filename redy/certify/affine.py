r"""Tensors whose elements are affine rows over a `Space`, and affine arithmetic on them with its rounding.

A `Tensor` of shape s has coefficients T (columns, *s) and errors e (*s). A linear operator with weights W is applied to
all columns as to a batch; with fan-in k its result is off by at most gamma_{k+2} |W| (|T| reach) + |W| e, because every
product passes at most k + 1 roundings and |W| acts on what the elements' absolute terms can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .rounding import GROW, TINY
from .space import Array, Rows, Space

Batched = Callable[[Array], Array]
CHUNK = 2**23
"""Numbers that a convolution copies at once."""


@dataclass(frozen=True)
class Tensor:
    """Coefficients (columns, *shape) and errors (*shape)."""

    T: Array
    e: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.e.shape

    def rows(self) -> Rows:
        """The elements in C order."""
        return Rows(np.ascontiguousarray(self.T.reshape(len(self.T), -1).T), self.e.ravel())

    def moved(self, move: Batched) -> Tensor:
        """Elements moved, dropped, copied, or zeros put in: `move` acts on (batch, *shape); nothing is rounded."""
        return Tensor(move(self.T), move(self.e[None])[0])


class Affine:
    """Affine arithmetic on the tensors of one space."""

    def __init__(self, space: Space) -> None:
        self.space, self.n = space, space.n

    def constant(self, value: Array) -> Tensor:
        """A tensor of numbers."""
        T = np.zeros((self.n + 1, *value.shape))
        T[self.n] = value
        return Tensor(T, np.zeros(value.shape))

    def input(self, shape: tuple[int, ...]) -> Tensor:
        """The network's input."""
        return Tensor(np.eye(self.n + 1, self.n).reshape(self.n + 1, *shape), np.zeros(shape))

    def magnitude(self, T: Array) -> Array:
        """|T| reach, rounded up."""
        return np.asarray(np.tensordot(self.space.reach[: len(T)], np.abs(T), 1) * GROW)

    def _rounded(self, T: Array, e: Array, operations: int) -> Tensor:
        """Every coefficient passed this number of roundings, without cancellation."""
        return Tensor(T, (e + self.space.gamma(operations) * self.magnitude(T)) * GROW + TINY)

    def linear(self, x: Tensor, operator: Batched, absolute: Batched, fan: int) -> Tensor:
        """`operator` and the one with absolute weights, both on (batch, *shape)."""
        weight = absolute(np.stack([x.e, self.magnitude(x.T)]))
        return Tensor(operator(x.T), (weight[0] + self.space.gamma(fan + 2) * weight[1]) * GROW + TINY)

    def add(self, x: Tensor, y: Tensor, sign: float = 1.0) -> Tensor:
        """x + y or x - y, elements broadcast against each other as in ONNX."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        T = np.zeros((max(len(x.T), len(y.T)), *shape))
        T[: len(x.T)] = lifted(x.T, len(shape))
        T[: len(y.T)] += sign * lifted(y.T, len(shape))
        return self._rounded(T, x.e + y.e, 1)

    def scale(self, x: Tensor, factor: Array, roundings: int = 0) -> Tensor:
        """Elements times numbers that went through some roundings themselves."""
        shape = np.broadcast_shapes(x.shape, factor.shape)
        return self._rounded(lifted(x.T, len(shape)) * factor, x.e * np.abs(factor), roundings + 1)

    def shift(self, x: Tensor, offset: Array) -> Tensor:
        """Elements plus numbers."""
        return self.add(x, self.constant(offset))

    def divide(self, x: Tensor, divisor: Array) -> Tensor:
        """Elements through numbers."""
        shape = np.broadcast_shapes(x.shape, divisor.shape)
        return self._rounded(lifted(x.T, len(shape)) / divisor, x.e / np.abs(divisor), 1)

    def times(self, x: Tensor, matrix: Array) -> Tensor:
        """x @ matrix, as numpy and ONNX define it."""
        return self.linear(x, lambda t: product(t, matrix), lambda t: product(t, np.abs(matrix)), matrix.shape[-2])

    def times_left(self, matrix: Array, x: Tensor) -> Tensor:
        """matrix @ x for tensors of at least two axes."""
        x = x.moved(lambda t: lifted(t, max(matrix.ndim, t.ndim - 1)))
        return self.linear(x, lambda t: matrix @ t, lambda t: np.abs(matrix) @ t, matrix.shape[-1])


def lifted(batch: Array, axes: int) -> Array:
    """(batch, *shape) with axes of length 1 in front of the shape, for broadcasting."""
    return batch.reshape(len(batch), *[1] * (axes - batch.ndim + 1), *batch.shape[1:])


def product(batch: Array, matrix: Array) -> Array:
    """(batch, ..., k) @ matrix; one large product where the matrix is the same for all."""
    if matrix.ndim == 2:
        return (batch.reshape(-1, batch.shape[-1]) @ matrix).reshape(*batch.shape[:-1], matrix.shape[1])
    return np.asarray(lifted(batch, max(matrix.ndim, batch.ndim - 1)) @ matrix)


@dataclass(frozen=True)
class Windows:
    """Where a convolution or a pool looks: strides, paddings (begin, end) and dilations per spatial axis."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    def convolve(self, batch: Array, weights: Array, groups: int) -> Array:
        """(b, 1, C, *size) with weights (O, C / groups, *kernel) -> (b, 1, O, *size'), as ONNX's Conv without bias."""
        x = np.pad(batch[:, 0], [(0, 0), (0, 0), *self.pads])
        d, b = len(self.strides), len(batch)
        span = [(k - 1) * step + 1 for k, step in zip(weights.shape[2:], self.dilations, strict=True)]
        seen = sliding_window_view(x, span, axis=tuple(range(2, 2 + d)))
        every = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        seen = seen[(slice(None), slice(None), *every)]
        out, depth, width = seen.shape[2 : 2 + d], weights.shape[1], len(weights) // groups
        result = np.empty((b, groups, width, *out))
        step = max(1, CHUNK // max(1, depth * int(np.prod(seen.shape[2:]))))
        kernels = weights.reshape(groups, width, -1)
        order = (0, *range(2, 2 + d), 1, *range(2 + d, 2 + 2 * d))
        for g in range(groups):
            for begin in range(0, b, step):
                part = seen[begin : begin + step, g * depth : (g + 1) * depth].transpose(order)
                value = part.reshape(-1, kernels.shape[2]) @ kernels[g].T
                result[begin : begin + step, g] = np.moveaxis(value.reshape(*part.shape[: 1 + d], width), -1, 1)
        return result.reshape(b, 1, groups * width, *out)
