"""How a constant varies along one axis: not at all, by position, or only near the two ends.

Zero padding makes the constant output of a convolution differ at the borders. An axis of any length then falls into a
few *classes* of positions that hold the same number; a table over classes says everything about the constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Uniform:
    """The same everywhere, whatever the length."""

    @property
    def count(self) -> int:
        return 1

    def classes(self, length: int) -> Index:
        return np.zeros(length, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Listed:
    """`index[p]` is the class of position p; the length is static."""

    index: Index

    @property
    def count(self) -> int:
        return int(self.index.max()) + 1

    def classes(self, length: int) -> Index:
        if length != len(self.index):
            raise ValueError(f"axis of {len(self.index)} positions used as one of {length}")
        return self.index


@dataclass(frozen=True, eq=False)
class Near:
    """Position p of n has class min(p, left) * (right + 1) + min(n - 1 - p, right); n may be anything from 1 on."""

    left: int
    right: int

    @property
    def count(self) -> int:
        return (self.left + 1) * (self.right + 1)

    def classes(self, length: int) -> Index:
        p = np.arange(length, dtype=np.int64)
        return np.minimum(p, self.left) * (self.right + 1) + np.minimum(length - 1 - p, self.right)

    def position(self) -> tuple[Index, Index]:
        """Distances (from the left, from the right) that each class stands for, saturated at `left` and `right`."""
        c = np.arange(self.count)
        return c // (self.right + 1), c % (self.right + 1)


Axis = Uniform | Listed | Near
UNIFORM = Uniform()


def merge(a: Axis, b: Axis) -> tuple[Axis, Index, Index]:
    """The common refinement of two axes of equal length: (axis, class of `a` per class, class of `b` per class)."""
    if isinstance(a, Uniform):
        return b, np.zeros(b.count, dtype=np.int64), np.arange(b.count)
    if isinstance(b, Uniform):
        return a, np.arange(a.count), np.zeros(a.count, dtype=np.int64)
    if isinstance(a, Near) and isinstance(b, Near):
        joint = Near(max(a.left, b.left), max(a.right, b.right))
        left, right = joint.position()
        return joint, _near_class(a, left, right), _near_class(b, left, right)
    length = len(a.index) if isinstance(a, Listed) else len(b.index)  # type: ignore[union-attr]  # one is Listed
    pairs = np.stack([a.classes(length), b.classes(length)])
    unique, index = np.unique(pairs, axis=1, return_inverse=True)
    return Listed(index.reshape(-1)), unique[0], unique[1]


def _near_class(axis: Near, left: Index, right: Index) -> Index:
    return np.minimum(left, axis.left) * (axis.right + 1) + np.minimum(right, axis.right)


@dataclass(frozen=True)
class Window:
    """One axis of a sliding window: lengths are None where dynamic, pads in positions."""

    length: int | None
    out_length: int | None
    kernel: int
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0
    transposed: bool = False

    def slide(self, axis: Axis) -> tuple[Axis, Index] | None:
        """Classes of the output and, per class and tap, the class of the input read there (-1: padding or nothing).

        None where the classes of the output depend on a length that is not known.
        """
        if isinstance(axis, Uniform) and not self.transposed and self.begin <= 0 and self.end <= 0:
            return UNIFORM, np.zeros((1, self.kernel), dtype=np.int64)
        if self.length is not None and self.out_length is not None:
            return self._listed(axis, self.length, self.out_length)
        if isinstance(axis, Listed) or self.stride != 1 or self.transposed:
            return None
        return self._near(axis if isinstance(axis, Near) else Near(0, 0))

    def _listed(self, axis: Axis, length: int, out_length: int) -> tuple[Axis, Index]:
        out = np.arange(out_length)[:, None]
        tap = np.arange(self.kernel)[None, :] * self.dilation
        if self.transposed:
            position, rest = np.divmod(out + self.begin - tap, self.stride)
            position = np.where(rest == 0, position, -1)
        else:
            position = out * self.stride - self.begin + tap
        inside = (position >= 0) & (position < length)
        taps = np.where(inside, axis.classes(length)[np.clip(position, 0, length - 1)], -1)
        unique, index = np.unique(taps, axis=0, return_inverse=True)
        if len(unique) == 1:
            return UNIFORM, unique
        return Listed(index.reshape(-1)), unique

    def _near(self, axis: Near) -> tuple[Axis, Index]:
        out = Near(max(axis.left + self.begin, 0), max(axis.right + self.end, 0))
        left, right = out.position()
        tap = np.arange(self.kernel)[None, :]
        in_left = left[:, None] - self.begin + tap * self.dilation
        in_right = right[:, None] - self.end + (self.kernel - 1 - tap) * self.dilation
        inside = (in_left >= 0) & (in_right >= 0)
        classes = _near_class(axis, np.maximum(in_left, 0), np.maximum(in_right, 0))
        return out, np.where(inside, classes, -1)
