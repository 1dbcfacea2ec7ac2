"""What a certificate may state, each as sets that must not be reached; the answer to one question proves it.

A set is given by constraints B z + c <= 0 (< 0 where strict) that must not all hold, z being the outputs y of the
original followed by the outputs y' of the reduced network, or for a `Property` by the inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal, Protocol

import numpy as np

from .errors import Rejected
from .space import Array, Flags, Rows, Space
from .tree import Question


@dataclass(frozen=True)
class Unsafe:
    """One set: matrix B (k, z), constants c (k,), which of the constraints are strict (k,)."""

    matrix: Array
    constants: Array
    strict: Flags


class Claim(Protocol):
    """A statement for every input of one box, in real arithmetic on the numbers of the files."""

    def unsafe(self, m: int) -> list[Unsafe]:
        """The sets that must not be reached, for networks of m outputs."""


@dataclass(frozen=True)
class Within:
    """|y_o - y'_o| <= error_o for every output o; `error` holds one number for all outputs or one for each."""

    error: Array

    def unsafe(self, m: int) -> list[Unsafe]:
        """error - (y - y') < 0; error + (y - y') < 0."""
        if len(self.error) not in {1, m}:
            raise Rejected(f"there are {len(self.error)} errors for {m} outputs")
        apart, error = np.hstack([np.eye(m), -np.eye(m)]), np.broadcast_to(self.error, m)
        return [Unsafe(s * apart[[o]], error[[o]], np.array([True])) for s in (-1.0, 1.0) for o in range(m)]

    def __str__(self) -> str:
        return f"each output of REDUCED is within {self.error.max():.9g} of ORIGINAL's"


@dataclass(frozen=True)
class SameWinner:
    """If i is a winner of the original and y_i leads y_o by more than the margin, then y'_i is not behind y'_o.

    With winner "min" all outputs change their sign. i is a winner if no output is larger.
    """

    winner: Literal["max", "min"]
    margin: float

    def unsafe(self, m: int) -> list[Unsafe]:
        """Per pair (i, o): y_k - y_i <= 0 for all k, margin - (y_i - y_o) < 0, y'_i - y'_o < 0, and the sum of both."""
        if m < 2:
            raise Rejected("a decision needs two outputs")
        sign, unit = (1.0 if self.winner == "max" else -1.0), np.eye(2 * m)
        found, strict = [], np.arange(m + 2) >= m - 1
        for i, o in permutations(range(m), 2):
            wins = [unit[k] - unit[i] for k in range(m) if k != i]
            leads, stays = unit[o] - unit[i], unit[m + i] - unit[m + o]
            constants = np.array([0.0] * (m - 1) + [self.margin, 0.0, self.margin])
            found.append(Unsafe(sign * np.array([*wins, leads, stays, leads + stays]), constants, strict))
        return found

    def __str__(self) -> str:
        lead = f"wherever it leads by more than {self.margin:.9g}"
        return f"the {self.winner} winner of ORIGINAL stays ahead in REDUCED {lead}"


@dataclass(frozen=True)
class Property:
    """No input of the box reaches one of these sets."""

    sets: tuple[Unsafe, ...]

    def unsafe(self, m: int) -> list[Unsafe]:  # noqa: ARG002 - `asked` compares sizes
        """As given."""
        return list(self.sets)

    def __str__(self) -> str:
        return f"none of {len(self.sets)} unsafe sets is reached"


def asked(space: Space, claim: Claim, outputs: int, values: Rows) -> Question:
    """The question whether every set has a constraint that fails everywhere; `values` are the rows z."""
    sets = claim.unsafe(outputs)
    if any(part.matrix.shape[1] != len(values.e) for part in sets):
        raise Rejected("a constraint does not fit the network's inputs and outputs")
    table = [np.column_stack([part.matrix, part.constants, part.strict]) for part in sets]
    rows, number = np.unique(np.concatenate(table), axis=0, return_inverse=True)
    clauses, ends = np.full((len(sets), max(map(len, table))), -1), np.cumsum([0, *map(len, table)])
    for k, part in enumerate(table):
        clauses[k, : len(part)] = number.ravel()[ends[k] : ends[k + 1]]
    return Question(space, space.combined(rows[:, :-2], values, rows[:, -2]), rows[:, -1] == 0, clauses)
