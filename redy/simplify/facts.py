"""What is known about the channels of one tensor, and how constants of several tensors are brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redy.simplify.axes import UNIFORM, Axis, Listed, Uniform, merge

Mask = NDArray[np.bool_]
Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Facts:
    """Constant channels of a tensor of rank r.

    `known` has one entry per label (see `Analysis.atoms`): shape 1 along axes without labels. `table` has the values:
    along an axis with labels one entry per label, along the others one per class of `axes`. Values of channels that are
    not known are 0 and mean nothing; values of known ones are finite.
    """

    known: Mask
    table: Table
    axes: tuple[Axis, ...]

    @staticmethod
    def nothing(shape: Sequence[int]) -> Facts:
        """No channel of this label shape is known."""
        return Facts(np.zeros(shape, dtype=bool), np.zeros(shape), (UNIFORM,) * len(shape))

    @staticmethod
    def of(known: Mask, table: Table, axes: Sequence[Axis]) -> Facts:
        """Drop what is not finite, and classes that no known channel tells apart."""
        spread = tuple(i for i, n in enumerate(known.shape) if n == 1 and table.shape[i] > 1)
        finite = np.isfinite(table)
        known = known & (finite.all(axis=spread, keepdims=True) if spread else finite)
        table = np.where(known, table, 0.0)
        kept = list(axes)
        for axis in spread:
            first = table.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, table.shape), table):
                table, kept[axis] = first, UNIFORM
        return Facts(known, table, tuple(kept))

    @property
    def uniform(self) -> bool:
        """Whether each known channel holds one number everywhere."""
        return all(isinstance(axis, Uniform) for axis in self.axes)

    def only_uniform(self) -> Facts:
        """What is known of channels that hold one number everywhere."""
        spread = tuple(i for i, n in enumerate(self.known.shape) if n == 1 and self.table.shape[i] > 1)
        if not spread:
            return self
        first = self.table[tuple(slice(0, 1) if i in spread else slice(None) for i in range(self.table.ndim))]
        same = np.asarray((self.table == first).all(axis=spread, keepdims=True))
        return Facts.of(self.known & same, self.table, self.axes)

    def values(self) -> Table:
        """The number of each label where the facts are uniform."""
        return np.broadcast_to(self.table, self.known.shape)

    def zero(self) -> Mask:
        """Channels known to be zero everywhere."""
        spread = tuple(i for i, n in enumerate(self.known.shape) if n == 1 and self.table.shape[i] > 1)
        nought = self.table == 0
        return np.asarray(self.known & (nought.all(axis=spread, keepdims=True) if spread else nought))

    def full(self, axis: int, length: int | None) -> Facts | None:
        """The facts with every position of `axis` listed; None where the length is dynamic and matters."""
        if self.known.shape[axis] > 1 or (isinstance(self.axes[axis], Uniform) and length is None):
            return self
        if length is None:
            return None
        table = self.table.take(self.axes[axis].classes(length), axis=axis)
        axes = list(self.axes)
        axes[axis] = Listed(np.arange(length, dtype=np.int64))
        return Facts(self.known, table, tuple(axes))

    def over(self, axes: Sequence[int]) -> Facts:
        """The facts with labels along `axes` only: others become positions, known where all of them are."""
        facts: Facts = self
        for axis, labels in enumerate(self.known.shape):
            if axis in axes or labels == 1:
                continue
            known = np.asarray(facts.known.all(axis=axis, keepdims=True))
            table = np.where(known, np.broadcast_to(facts.table, _joint(facts)), 0.0)
            kept = list(facts.axes)
            kept[axis] = Listed(np.arange(labels, dtype=np.int64))
            facts = Facts.of(known, table, kept)
        return facts


def _joint(facts: Facts) -> tuple[int, ...]:
    return tuple(max(k, t) for k, t in zip(facts.known.shape, facts.table.shape, strict=True))


def align(tables: Sequence[tuple[Table, Sequence[Axis]]]) -> tuple[list[Table], tuple[Axis, ...]]:
    """Tables of equal rank over the common refinement of their classes; labelled axes are Uniform and broadcast."""
    current = [table for table, _ in tables]
    joint = list(tables[0][1])
    for done, (_, axes) in enumerate(tables[1:], start=1):
        for i, axis in enumerate(axes):
            if isinstance(axis, Uniform) and isinstance(joint[i], Uniform):
                continue
            joint[i], before, new = merge(joint[i], axis)
            for k in range(done):
                current[k] = current[k].take(before, axis=i)
            current[done] = current[done].take(new, axis=i)
    return current, tuple(joint)


def constant_facts(array: Table, label_axes: Sequence[int]) -> Facts:
    """A constant tensor as facts with labels along `label_axes` (where its own size is not 1)."""
    known = np.ones([n if i in label_axes else 1 for i, n in enumerate(array.shape)], dtype=bool)
    axes: list[Axis] = []
    for i, n in enumerate(array.shape):
        axes.append(UNIFORM if n == 1 or i in label_axes else Listed(np.arange(n, dtype=np.int64)))
    return Facts.of(known, array, axes)
