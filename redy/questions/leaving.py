"""Is the decision kept where units leave their pieces, and which outputs never win? Clauses of the branching engine.

See `redy.redundancy.leaving` for why nothing has to be shown elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from redy.condensed.form import Condensed, condense
from redy.condensed.joint import join, stack
from redy.condensed.search import LOWER, UPPER, Clause, Rows, Search
from redy.model import Activate, Array, BoxTree, Proof, SameWinner, Unit
from redy.questions.query import Query, all_pairs, decision_rows, violation

PART = 3
"""A clause may take this part of the work before it is set aside for the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """What was found out about units leaving their pieces.

    Attributes:
        open: unit -> how many of its clauses are open.
        refuted: unit -> a point (*input shape) where it left its piece and the decision changed.
        proof: that the decision is kept on the whole box; only where nothing is open or refuted.
        work: units of work done (see `redy.condensed.kernels.descent`).
    """

    open: Mapping[Unit, int]
    refuted: Mapping[Unit, Array]
    proof: Proof | None
    work: int


def ask_leaving(
    query: Query, pieces: Mapping[Unit, int], never: frozenset[int], *, budget: int, deadline: float | None = None
) -> Left:
    """Whether the decision is kept where units leave their pieces.

    Args:
        query: claims `SameWinner`; the reduced network is the original with these units as the lines of these pieces,
            exactly (no rounding of intercepts), and otherwise with the same values.
        pieces: unit -> number of its piece.
        never: outputs that never win on the box (`never_winning`).
        budget: work, at most (deterministic).
        deadline: `time.monotonic()` at which the search ends.

    Raises:
        Unsupported: a node of either network cannot be condensed.
    """
    assert isinstance(query.claim, SameWinner)
    joint = join(query.original, query.reduced, query.box, query.known, query.pairs)
    laid, kept = decision_rows(joint, query.claim)
    clauses, owners = [], []
    for unit, piece in pieces.items():
        for end in _ends(query, joint.condensed, unit, piece):
            for (i, _), literals in kept.items():
                if i not in never:
                    clauses.append(Clause((*end, *literals)))
                    owners.append(unit)
    cap = max(1, budget // PART)
    found = Search(laid, clauses, cap=cap, budget=budget, deadline=deadline).run()
    open_ = Counter(owners[c] for c in found.open)
    refuted: dict[Unit, Array] = {}
    for c, flat in found.refuted.items():
        point = query.box.clip(flat.reshape(1, *query.box.shape))
        # A point within rounding, or within half the margin, of breaking the claim breaks nothing.
        if violation(query, point)[0] > 0:
            refuted[owners[c]] = point[0]
        else:
            open_[owners[c]] += 1
    evidence = BoxTree(found.tree, query.box)
    proof = None if open_ or refuted else Proof(str(query.claim), "branch", (evidence,))
    return Left(open_, refuted, proof, found.work)


def _ends(query: Query, condensed: Condensed, unit: Unit, piece: int) -> list[tuple[tuple[int, int], ...]]:
    """Per end of the piece that the unit may cross: the literal "it does not", none where no row says so."""
    node = query.original.by_name[unit.node]
    assert isinstance(node, Activate)
    breaks = node.function.broadcast_to(node.shape).breakpoints.reshape(node.function.pieces - 1, -1)[:, unit.index]
    lower, upper = (float(end.ravel()[unit.index]) for end in query.known[unit.node])
    # Variables of the original come first.
    columns = {
        (v.node, v.element, v.breakpoint): k
        for k, v in reversed(list(enumerate(condensed.variables)))
        if condensed.partner[k] < 0
    }
    ends: list[tuple[tuple[int, int], ...]] = []
    for place, side in ((piece - 1, LOWER), (piece, UPPER)):
        if not 0 <= place < len(breaks):
            continue
        if (lower >= breaks[place]) if side == LOWER else (upper <= breaks[place]):
            continue
        row = columns.get((unit.node, unit.index, place))
        ends.append(() if row is None else ((row, side),))
    return ends


def never_winning(query: Query, suspects: list[int], *, budget: int, deadline: float | None = None) -> frozenset[int]:
    """Those of the suspected outputs that are proved to be beaten everywhere, by half the margin at least."""
    assert isinstance(query.claim, SameWinner)
    walk = condense(query.original, query.box, query.known)
    form = stack([walk.forms[port.name] for port in query.original.outputs], len(walk.condensed.variables))
    pairs = all_pairs(len(form.b))
    better, other = pairs.T if query.claim.winner == "max" else pairs.T[::-1]
    ones = np.ones(len(pairs))
    lead = form[better].plus(form[other], -1.0, condensed=walk.condensed)
    lead = lead.scaled(ones, -query.claim.margin / 2 * ones, condensed=walk.condensed)
    rows = Rows.of(walk.condensed, lead)
    clauses = [
        Clause(tuple((rows.variables + k, LOWER) for k, (_, i) in enumerate(pairs) if i == suspect))
        for suspect in suspects
    ]
    found = Search(rows, clauses, cap=budget, budget=budget, deadline=deadline).run()
    return frozenset(suspects[c] for c in found.proved)
