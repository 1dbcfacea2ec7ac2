"""An axis-aligned box of inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SHOWN = 16
"""Inputs that the table of a notebook shows."""


def frozen(values: ArrayLike) -> Array:
    """A C-contiguous float64 copy that cannot be written to."""
    array = np.array(values, dtype=np.float64, order="C")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """All inputs x with `lower <= x <= upper` element by element.

    `lower` and `upper` have the shape of one input sample (no batch axis) and the units of the network's input.

    Raises:
        ValueError: an element is not finite, the shapes differ, or a lower bound is above its upper bound.
    """

    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        lower, upper = frozen(self.lower), frozen(self.upper)
        if lower.shape != upper.shape:
            raise ValueError(f"lower has shape {lower.shape} but upper has shape {upper.shape}")
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise ValueError("every bound must be a finite number")
        if (lower > upper).any():
            place = tuple(int(i) for i in np.argwhere(lower > upper)[0])
            raise ValueError(f"lower bound {lower[place]} is above upper bound {upper[place]} at element {place}")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def __repr__(self) -> str:
        ends = zip(self.lower.ravel()[:4], self.upper.ravel()[:4], strict=True)
        shown = " x ".join(f"[{lower:.4g}, {upper:.4g}]" for lower, upper in ends)
        return f"Box(shape={self.shape}, {shown}{' x ...' if self.size > 4 else ''})"

    def _repr_html_(self) -> str:
        """A table of the first inputs, for notebooks."""
        ends = list(zip(self.lower.ravel()[:SHOWN], self.upper.ravel()[:SHOWN], strict=True))
        rows = "".join(
            f"<tr><td>{index}</td><td>{lower:.6g}</td><td>{upper:.6g}</td></tr>"
            for index, (lower, upper) in enumerate(ends)
        )
        more = f"<p>and {self.size - len(ends):,} more</p>" if self.size > len(ends) else ""
        return f"<table><tr><th>input</th><th>lower</th><th>upper</th></tr>{rows}</table>{more}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Box):
            return NotImplemented
        return np.array_equal(self.lower, other.lower) and np.array_equal(self.upper, other.upper)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input sample."""
        return self.lower.shape

    @property
    def size(self) -> int:
        """The number of inputs."""
        return int(self.lower.size)

    @property
    def center(self) -> Array:
        """A point of the box, the middle up to rounding."""
        return np.clip(self.lower + (self.upper - self.lower) / 2, self.lower, self.upper)

    @property
    def width(self) -> Array:
        """upper - lower, element by element (rounded to nearest)."""
        return self.upper - self.lower

    @property
    def digest(self) -> str:
        """SHA-256 of shape and bounds, in hexadecimal."""
        hasher = hashlib.sha256(repr(self.shape).encode())
        hasher.update(self.lower.astype("<f8").tobytes())
        hasher.update(self.upper.astype("<f8").tobytes())
        return hasher.hexdigest()

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """For points (n, *shape): which of them lie in the box, as (n,)."""
        axes = tuple(range(1, points.ndim))
        return np.asarray(((points >= self.lower) & (points <= self.upper)).all(axis=axes))

    def clip(self, points: Array) -> Array:
        """The nearest points of the box to points (n, *shape)."""
        return np.clip(points, self.lower, self.upper)

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """`count` uniform points of the box, as (count, *shape)."""
        points = self.lower + rng.random((count, *self.shape)) * (self.upper - self.lower)
        return self.clip(points)

    def corners(self, count: int, rng: np.random.Generator) -> Array:
        """Every corner if there are at most `count`, else `count` random ones, as (m, *shape)."""
        free = np.flatnonzero(self.width.ravel() > 0)
        if free.size < 31 and 2**free.size <= count:
            bits = (np.arange(2**free.size)[:, None] >> np.arange(free.size)) & 1
        else:
            bits = rng.integers(0, 2, (count, free.size))
        flat = np.repeat(self.lower.reshape(1, -1), len(bits), axis=0)
        flat[:, free] = np.where(bits == 1, self.upper.ravel()[free], self.lower.ravel()[free])
        return flat.reshape(-1, *self.shape)

    def grid(self, splits: tuple[int, ...]) -> GridOfBoxes:
        """The sub-boxes of equal width that `splits` parts per input give, in C order (last input fastest)."""
        return GridOfBoxes(self, splits)


@dataclass(frozen=True, slots=True)
class GridOfBoxes:
    """The cells of a regular grid over a box; `grid[i]` is the i-th cell in C order.

    Neighbouring cells share the very same float64 face, so together they cover the box without a gap.

    Raises:
        ValueError: `splits` does not have one positive number per input.
    """

    box: Box
    splits: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.splits) != self.box.size or min(self.splits, default=1) < 1:
            raise ValueError(
                f"splits {self.splits} must hold one positive number for each of the {self.box.size} inputs"
            )

    def __len__(self) -> int:
        return int(np.prod(self.splits, dtype=np.int64))

    def edges(self, axis: int) -> Array:
        """The `splits[axis] + 1` cut positions along one (flattened) input, both ends included exactly."""
        lower, upper = self.box.lower.ravel()[axis], self.box.upper.ravel()[axis]
        parts = self.splits[axis]
        edges = lower + (upper - lower) * np.arange(parts + 1) / parts
        edges[0], edges[-1] = lower, upper
        return np.maximum.accumulate(np.clip(edges, lower, upper))

    def __getitem__(self, index: int) -> Box:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = np.unravel_index(index, self.splits)
        edges = [self.edges(axis) for axis in range(self.box.size)]
        lower = [edge[i] for edge, i in zip(edges, place, strict=True)]
        upper = [edge[i + 1] for edge, i in zip(edges, place, strict=True)]
        return Box(np.reshape(lower, self.box.shape), np.reshape(upper, self.box.shape))
