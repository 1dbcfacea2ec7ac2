"""What a certificate may state, and the question about rows whose answer proves it. See docs/certificate.md."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .affine import Affine, Tensor
from .errors import Rejected
from .space import Array, Rows
from .tree import Question


class Claim(Protocol):
    """A statement for every input of one box, in real arithmetic on the numbers of the files."""

    def question(self, affine: Affine, first: Rows, second: Rows | None) -> Question:
        """Rows and clauses, from the rows of the outputs of both networks (of one: None)."""


@dataclass(frozen=True)
class Within:
    """|y_o - y'_o| <= error_o for every output o; `error` holds one number for all outputs or one for each."""

    error: Array

    def question(self, affine: Affine, first: Rows, second: Rows | None) -> Question:
        """error - (y - y') >= 0 and error + (y - y') >= 0."""
        assert second is not None
        m = len(first.e)
        if len(self.error) not in {1, m}:
            raise Rejected(f"there are {len(self.error)} errors for {m} outputs")
        apart = combined(affine, np.eye(m), first, second)
        rows = [shifted(affine, apart, np.broadcast_to(self.error, m), sign) for sign in (1.0, -1.0)]
        return asked(rows, [(k,) for k in range(2 * m)], [])

    def __str__(self) -> str:
        return f"each output of REDUCED is within {self.error.max():.9g} of ORIGINAL's"


@dataclass(frozen=True)
class SameWinner:
    """If i is a winner of the original and y_i leads y_o by more than the margin, then y'_i is not behind y'_o.

    With winner "min" all outputs change their sign. i is a winner if no output is larger.
    """

    winner: Literal["max", "min"]
    margin: float

    def question(self, affine: Affine, first: Rows, second: Rows | None) -> Question:
        """Per pair (i, o): some y_k - y_i > 0, or margin - (y_i - y_o) >= 0, or y'_i - y'_o >= 0, or
        (y'_i - y'_o) - (y_i - y_o) + margin >= 0, which implies the third where the second does not hold.
        """
        assert second is not None
        m, sign = len(first.e), 1.0 if self.winner == "max" else -1.0
        if m < 2:
            raise Rejected("a decision needs two outputs")
        pairs = list(permutations(range(m), 2))
        lead = sign * np.array([np.eye(m)[i] - np.eye(m)[o] for i, o in pairs]).reshape(-1, m)
        p, number = len(pairs), {pair: k for k, pair in enumerate(pairs)}
        margin = np.full(p, self.margin)
        ahead, kept = combined(affine, lead, first, None), combined(affine, lead, second, None)
        drift = combined(affine, -lead, first, second)
        rows = [ahead, shifted(affine, ahead, margin, -1.0), kept, shifted(affine, drift, margin, 1.0)]
        clauses = [
            (*(number[k, i] for k in range(m) if k != i), p + n, 2 * p + n, 3 * p + n) for n, (i, _) in enumerate(pairs)
        ]
        return asked(rows, clauses, list(range(p)))

    def __str__(self) -> str:
        lead = f"wherever it leads by more than {self.margin:.9g}"
        return f"the {self.winner} winner of ORIGINAL stays ahead in REDUCED {lead}"


@dataclass(frozen=True)
class Unsafe:
    """Constraints A x + B y + c <= 0 (< 0 where strict) that must not all hold."""

    inputs: Array
    outputs: Array
    constants: Array
    strict: NDArray[np.bool_]


@dataclass(frozen=True)
class Property:
    """No input of the box meets all constraints of one of these conjunctions."""

    unsafe: tuple[Unsafe, ...]

    def question(self, affine: Affine, first: Rows, second: Rows | None) -> Question:
        """Per conjunction some row > 0, or >= 0 where it is strict."""
        assert second is None
        x = affine.input((affine.n,)).rows()
        rows, clauses, strict = [], list[tuple[int, ...]](), list[int]()
        begin = 0
        for part in self.unsafe:
            if part.inputs.shape[1:] != (affine.n,) or part.outputs.shape[1:] != (len(first.e),):
                raise Rejected("a constraint does not fit the network's inputs and outputs")
            both = plus(affine, combined(affine, part.inputs, x, None), combined(affine, part.outputs, first, None))
            rows.append(shifted(affine, both, part.constants, 1.0))
            clauses.append(tuple(range(begin, begin + len(part.constants))))
            strict.extend(begin + int(k) for k in np.flatnonzero(~part.strict))
            begin += len(part.constants)
        return asked(rows, clauses, strict)

    def __str__(self) -> str:
        return f"none of {len(self.unsafe)} unsafe sets is reached"


def combined(affine: Affine, matrix: Array, first: Rows, second: Rows | None) -> Rows:
    """matrix (y - y'), or matrix y."""
    y = Tensor(first.T.T, first.e)
    if second is not None:
        y = affine.add(y, Tensor(second.T.T, second.e), -1.0)
    return affine.times(y, matrix.T).rows()


def plus(affine: Affine, first: Rows, second: Rows) -> Rows:
    """The sums of two lists of rows."""
    return affine.add(Tensor(first.T.T, first.e), Tensor(second.T.T, second.e)).rows()


def shifted(affine: Affine, rows: Rows, offset: Array, sign: float) -> Rows:
    """sign times the rows, plus numbers."""
    return affine.shift(Tensor(sign * rows.T.T, rows.e), np.asarray(offset)).rows()


def asked(rows: list[Rows], clauses: list[tuple[int, ...]], strict: list[int]) -> Question:
    """The question of several lists of rows."""
    width = max((r.T.shape[1] for r in rows), default=1)
    count = sum(len(r.e) for r in rows)
    stacked = Rows(np.concatenate([r.padded(width) for r in rows]), np.concatenate([r.e for r in rows]))
    table = np.full((len(clauses), max((len(c) for c in clauses), default=1)), -1)
    for k, clause in enumerate(clauses):
        table[k, : len(clause)] = clause
    return Question(stacked, np.isin(np.arange(count), strict), table)
