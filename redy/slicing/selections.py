"""Which arrays of a folded network are rows and columns of the original's: a mask names them, so they need no room.

Folding multiplies weights only where active units are skipped; every other matrix is W[R, C] of an original matrix W,
where R and C are the kept units, the units that are not inactive, or all units of the two layers. Such a matrix is
written as a number, its *reference*, and comes back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from redy.model import Network
from redy.slicing.masks import KEPT, Codes
from redy.slicing.program import Program, Weights, selected

REFERENCE = 1 << 31
"""References count from here; smaller numbers are offsets in a pool of weights."""
KINDS = 3
"""Selections of a layer's units: kept, not inactive, all."""

Index = NDArray[np.int64]
_Item = tuple[Weights, Index, Index | None]


class Selections:
    """The sub-arrays of the original that one mask names.

    A reference is REFERENCE + (a * 3 + r) * 3 + c: array a of the original's program (per step its bias, then its
    weights), the selection r of rows and c of columns (0 for a bias); 0 kept, 1 not inactive, 2 all.
    """

    def __init__(self, network: Network, whole: Program, codes: Codes) -> None:
        everything = np.ones(codes.size, dtype=bool)
        kinds = [selected(network, whole, wanted) for wanted in (codes == KEPT, codes != 0, everything)]
        self._items: dict[int, _Item] = dict(_items(whole, kinds))

    def references(self) -> dict[bytes, int]:
        """The bytes of every sub-array with its reference; of equal ones the first."""
        found: dict[bytes, int] = {}
        for reference in self._items:
            found.setdefault(self.array(reference).tobytes(), reference)
        return found

    def array(self, reference: int) -> Weights:
        """The array of a reference.

        Raises:
            KeyError: there is none of this number.
        """
        array, rows, columns = self._items[reference]
        return np.ascontiguousarray(array[rows] if columns is None else array[np.ix_(rows, columns)])


def _items(whole: Program, kinds: list[list[Index]]) -> Iterator[tuple[int, _Item]]:
    for number, (value, source, array) in enumerate(whole.arrays()):
        for r, rows in enumerate(kinds):
            for c, columns in enumerate(kinds if source is not None else kinds[:1]):
                reference = REFERENCE + (number * KINDS + r) * KINDS + c
                yield reference, (array, rows[value], None if source is None else columns[source])
