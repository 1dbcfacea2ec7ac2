"""Piecewise-linear activation functions: one table from which everything else derives.

A function is given by its breakpoints t_1 <= ... <= t_k, the slopes s_0 ... s_k of its k + 1 pieces, and its value at
t_1. Evaluation, phases (which piece), interval images, convex relaxations, MILP rows and minimax lines all derive from
these three arrays, so a new activation is one more row in `TABLE`, not new code elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.model.box import Array, frozen


@dataclass(frozen=True, slots=True, eq=False)
class PiecewiseLinear:
    """A continuous piecewise-linear function, one per unit.

    Attributes:
        breakpoints: (k, *shape), ascending along the first axis; k >= 1.
        slopes: (k + 1, *shape), slope of each piece from left to right.
        value: (*shape), the function at the first breakpoint.

    `shape` is () for one function shared by all units, else it broadcasts against the pre-activation
    (for example (C, 1, 1) for a PRelu with a slope per channel).

    Raises:
        ValueError: the arrays do not fit together, hold a non-finite number, or the breakpoints do not ascend.
    """

    breakpoints: Array
    slopes: Array
    value: Array

    def __post_init__(self) -> None:
        breakpoints, slopes, value = frozen(self.breakpoints), frozen(self.slopes), frozen(self.value)
        if breakpoints.shape[0] < 1 or slopes.shape != (breakpoints.shape[0] + 1, *value.shape):
            raise ValueError(f"{breakpoints.shape[0]} breakpoints need one slope more, got shape {slopes.shape}")
        if breakpoints.shape[1:] != value.shape:
            raise ValueError(f"breakpoints {breakpoints.shape} and value {value.shape} do not fit together")
        if not all(np.isfinite(a).all() for a in (breakpoints, slopes, value)):
            raise ValueError("breakpoints, slopes and values must be finite")
        if (np.diff(breakpoints, axis=0) < 0).any():
            raise ValueError("breakpoints must ascend")
        object.__setattr__(self, "breakpoints", breakpoints)
        object.__setattr__(self, "slopes", slopes)
        object.__setattr__(self, "value", value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PiecewiseLinear):
            return NotImplemented
        return all(
            np.array_equal(a, b)
            for a, b in (
                (self.breakpoints, other.breakpoints),
                (self.slopes, other.slopes),
                (self.value, other.value),
            )
        )

    def __hash__(self) -> int:
        return hash((self.breakpoints.tobytes(), self.slopes.tobytes(), self.value.tobytes()))

    @property
    def pieces(self) -> int:
        """The number of pieces, k + 1."""
        return int(self.slopes.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape over which the function varies; () if it is the same for all units."""
        return self.value.shape

    @property
    def is_relu(self) -> bool:
        """True if every unit is exactly max(x, 0)."""
        return bool(
            self.pieces == 2
            and (self.breakpoints == 0).all()
            and (self.value == 0).all()
            and (self.slopes[0] == 0).all()
            and (self.slopes[1] == 1).all()
        )

    def intercepts(self) -> Array:
        """The intercept of each piece, (k + 1, *shape): piece p is `slopes[p] * x + intercepts[p]`.

        Exact for the table's functions with k = 1; rounded to nearest otherwise (the engine adds the slack).
        """
        first = self.value - self.slopes[0] * self.breakpoints[0]
        jumps = (self.slopes[:-1] - self.slopes[1:]) * self.breakpoints
        return np.concatenate([first[None], first + np.cumsum(jumps, axis=0)])

    def __call__(self, x: Array) -> Array:
        """The function at pre-activations x of shape (n, *unit shape)."""
        below = self.value + self.slopes[0] * (np.minimum(x, self.breakpoints[0]) - self.breakpoints[0])
        result = below
        for piece in range(1, self.pieces):
            left = self.breakpoints[piece - 1]
            end = np.minimum(x, self.breakpoints[piece]) if piece < self.pieces - 1 else x
            result = result + self.slopes[piece] * np.maximum(end - left, 0.0)
        return np.asarray(result)

    def piece_of(self, x: Array) -> NDArray[np.int64]:
        """The index of a piece that x lies in (a breakpoint counts to the piece on its left)."""
        return np.asarray(
            (x > self.breakpoints.reshape(len(self.breakpoints), *(1,) * (x.ndim - len(self.shape)), *self.shape)).sum(
                axis=0
            )
        )

    def stuck(self, lower: Array, upper: Array) -> NDArray[np.int64]:
        """For pre-activation bounds of the unit shape: the piece that holds the whole of [lower, upper], else -1.

        Touching a breakpoint from one side is being stuck: the function is continuous.
        """
        breaks = self.broadcast_to(lower.shape).breakpoints
        inner = np.full((1, *lower.shape), np.inf)
        left, right = np.concatenate([-inner, breaks]), np.concatenate([breaks, inner])
        inside = (lower >= left) & (upper <= right)
        return np.where(inside.any(axis=0), inside.argmax(axis=0), -1)

    def restricted(self, index: object) -> PiecewiseLinear:
        """The functions of some units: `index` is applied to the unit axes (a shared function stays shared)."""
        if self.shape == ():
            return self
        key = (slice(None), *index) if isinstance(index, tuple) else (slice(None), index)
        return PiecewiseLinear(self.breakpoints[key], self.slopes[key], self.value[key[1:]])

    def broadcast_to(self, shape: tuple[int, ...]) -> PiecewiseLinear:
        """The same functions, one written out for each unit of `shape`."""
        return PiecewiseLinear(
            np.broadcast_to(
                self.breakpoints.reshape(len(self.breakpoints), *_pad(self.shape, shape)), (self.pieces - 1, *shape)
            ),
            np.broadcast_to(self.slopes.reshape(self.pieces, *_pad(self.shape, shape)), (self.pieces, *shape)),
            np.broadcast_to(self.value, shape),
        )


def _pad(inner: tuple[int, ...], outer: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (len(outer) - len(inner)) + inner


def _row(breakpoints: list[float], slopes: list[float], value: float) -> PiecewiseLinear:
    return PiecewiseLinear(frozen(breakpoints), frozen(slopes), frozen(value))


def relu() -> PiecewiseLinear:
    """max(x, 0)."""
    return _row([0.0], [0.0, 1.0], 0.0)


def leaky_relu(alpha: float | Array = 0.01) -> PiecewiseLinear:
    """x for x >= 0, alpha * x below; `alpha` may be an array (PRelu)."""
    slope = np.asarray(alpha, dtype=np.float64)
    zero = np.zeros_like(slope)
    return PiecewiseLinear(zero[None], np.stack([slope, zero + 1.0]), zero)


def clip(low: float, high: float) -> PiecewiseLinear:
    """min(max(x, low), high); ReLU6 is clip(0, 6), HardTanh is clip(-1, 1)."""
    if not low <= high:
        raise ValueError(f"clip needs low <= high, got {low} and {high}")
    return _row([low, high], [0.0, 1.0, 0.0], low)


def clip_above(low: float) -> PiecewiseLinear:
    """max(x, low)."""
    return _row([low], [0.0, 1.0], low)


def clip_below(high: float) -> PiecewiseLinear:
    """min(x, high)."""
    return _row([high], [1.0, 0.0], high)


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> PiecewiseLinear:
    """max(0, min(1, alpha * x + beta)), alpha > 0; breakpoints are rounded to nearest (see `formats`)."""
    if not alpha > 0:
        raise ValueError(f"hard_sigmoid needs alpha > 0, got {alpha}")
    return _row([-beta / alpha, (1 - beta) / alpha], [0.0, alpha, 0.0], 0.0)


def absolute() -> PiecewiseLinear:
    """|x|."""
    return _row([0.0], [-1.0, 1.0], 0.0)


TABLE: dict[str, Callable[..., PiecewiseLinear]] = {
    "Relu": relu,
    "LeakyRelu": leaky_relu,
    "PRelu": leaky_relu,
    "Clip": clip,
    "HardSigmoid": hard_sigmoid,
    "Abs": absolute,
}
"""ONNX operator -> the function it computes; the one place where an activation is described."""
