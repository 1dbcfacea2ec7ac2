"""Does any output notice that a unit becomes one of its pieces? See `redy.redundancy.forward` for the argument."""

from __future__ import annotations

import numpy as np

from redy.condensed.form import Form, Walk
from redy.condensed.joint import stack
from redy.condensed.search import LOWER, UPPER, Clause, Rows, Search
from redy.model import BoxTree, Proof, Unit
from redy.questions.situation import BRANCHING_INPUTS

WORK = 20_000_000
"""Work of the engine for one unit, where few inputs vary."""


def ask_unnoticed(walk: Walk, unit: Unit, piece: int, reads: list[int], deadline: float | None) -> Proof | None:
    """A proof that the unit lies in its piece, or that all that read it are inactive with it and with its line.

    Args:
        walk: the condensed form of the network on its box, in which the unit is a variable.
        unit: which unit; its function has one breakpoint.
        piece: the number of the piece.
        reads: the rows of the variables that read it; nothing else does.
        deadline: `time.monotonic()` at which the search ends.
    """
    condensed = walk.condensed
    column = next(i for i, v in enumerate(condensed.variables) if (v.node, v.element) == (unit.node, unit.index))
    if not reads:
        return Proof(f"nothing reads {unit.node}[{unit.index}] on the box", "branch")
    zeros = [_with_line(walk, row, column, piece) for row in reads]
    rows = Rows.of(condensed, stack(zeros, len(condensed.variables)))
    inside = (column, UPPER if piece == 0 else LOWER)
    clauses = [Clause((inside, (row, UPPER))) for row in reads]
    clauses += [Clause((inside, (rows.variables + k, UPPER))) for k in range(len(reads))]
    # A unit of work takes time in the number of inputs (see `descent`).
    work = WORK // max(1, int((condensed.box.width > 0).sum()) // BRANCHING_INPUTS)
    found = Search(rows, clauses, cap=work, budget=work, deadline=deadline).run()
    if len(found.proved) < len(clauses):
        return None
    claim = f"{unit.node}[{unit.index}] lies in piece {piece}, or nothing that reads it is active"
    return Proof(claim, "branch", (BoxTree(found.tree, condensed.box),))


def _with_line(walk: Walk, row: int, column: int, piece: int) -> Form:
    """A reader's row with the line of the piece in place of relu(z): 0, or z itself."""
    condensed = walk.condensed
    form = condensed.stacked()[[row]]
    weight = form.M[:, column].copy()
    form.M[:, column] = 0.0
    if piece == 0:
        return form
    line = condensed.stacked()[[column]].scaled(weight, np.zeros(1), condensed=condensed)
    return form.plus(line, condensed=condensed)
