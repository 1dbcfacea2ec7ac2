"""Is the decision kept where units leave their pieces? Elsewhere nothing changes, so that nothing has to be shown.

In the reduced network a set of units became one of their own pieces. At a point where all of them lie in these pieces
it has the values of the original: the first of them does, so all that it feeds is as before, and so on. The decision
is therefore kept on the whole box if for every unit of the set it is kept wherever this unit leaves its piece, with
all units of the set replaced. That is one clause

    the pre-activation is on the piece's side of the breakpoint, or the clause of the decision for (i, o)

per unit, end of its piece and pair of outputs (i, o). A sub-box in which the units do not leave their pieces closes at
once, and at the border between two decisions, where the clause of the decision alone is hard to show, most do not.

The set grows: units are asked about one by one with little work, those with an answer together, and then the others
with more work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from redy.condensed.form import Condensed, condense
from redy.condensed.joint import join, stack
from redy.condensed.search import LOWER, UPPER, Clause, Rows, Search
from redy.model import Activate, Array, BoxTree, Line, Proof, Unit
from redy.model.claims import SameWinner
from redy.questions.query import Query, all_pairs, decision_rows, violation
from redy.redundancy.lines import unit_function
from redy.redundancy.relaxed import Facts, SetAnswer, finding_of, with_lines

PART = 3
"""A clause may take this part of the work before it is set aside for the others."""
ALONE = (1 / 60, 1 / 10, 1 / 2)
"""Work on one unit, as parts of that on one query, in turn."""
QUERIES = 6
"""Work in all, in queries."""
RESERVE = 1.5
"""What is kept of it to ask about units together."""


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
    breaks = unit_function(node, unit.index).breakpoints
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


class LeavingSearch:
    """The search for a set of units that can become one of their own pieces together while the decision is kept.

    Args:
        facts: network, box, bounds, limits; the findings are exact and of phases only.
        claim: which decision, and what counts as a tie.
        pieces: unit -> number of its piece, and its line, exactly.
        never: outputs that are proved not to win.
    """

    def __init__(
        self, facts: Facts, claim: SameWinner, pieces: Mapping[Unit, tuple[int, Line]], never: frozenset[int]
    ) -> None:
        self.facts, self.claim, self.pieces, self.never = facts, claim, pieces, never
        self.lines = {unit: line for unit, (_, line) in pieces.items()}
        self.left, self.answer = QUERIES * facts.budget, SetAnswer()

    def run(self) -> SetAnswer:
        """One by one, then together, with more and more work."""
        waiting = dict.fromkeys(self.pieces, 0)
        for part in ALONE:
            fresh = self._alone(waiting, max(1, int(part * self.facts.budget)))
            self._together(sorted(fresh, key=fresh.__getitem__))
        if waiting:
            self.answer.note = "time limit" if self.facts.expired() else "budget or time limit"
        return self.answer

    def _alone(self, waiting: dict[Unit, int], work: int) -> dict[Unit, int]:
        """Units with an answer, and the work that it took; they and refuted ones wait no longer."""
        easy = {}
        for unit in sorted(waiting, key=waiting.__getitem__):
            if self.left <= RESERVE * self.facts.budget or self.facts.expired():
                break
            left = self._ask([unit], work)
            if left.open and not left.refuted:
                waiting[unit] = left.open[unit]
                continue
            del waiting[unit]
            if left.proof is not None:
                easy[unit] = left.work
        return easy

    def _together(self, fresh: list[Unit]) -> None:
        """Add as many of the units, easy ones first, to the set proved as can be proved with it."""
        taken = [finding.unit for finding in self.answer.findings]
        while fresh and self.left > 0 and not self.facts.expired():
            left = self._ask([*taken, *fresh], self.facts.budget)
            if left.proof is not None:
                self.answer.findings = tuple(
                    finding_of(self.facts, "result", unit, self.lines[unit], left.proof) for unit in [*taken, *fresh]
                )
                return
            good = [unit for unit in fresh if unit not in left.open and unit not in left.refuted]
            fresh = good if 0 < len(good) < len(fresh) else fresh[: len(fresh) // 2]

    def _ask(self, units: list[Unit], work: int) -> Left:
        facts = self.facts
        reduced = with_lines(facts, units, self.lines)
        query = Query(facts.network, reduced, facts.box, self.claim, facts.intervals)
        pieces = {unit: self.pieces[unit][0] for unit in units}
        budget = max(1, min(work, self.left))
        left = ask_leaving(query, pieces, self.never, budget=budget, deadline=facts.deadline)
        self.left -= left.work
        self.answer.queries += 1
        self.answer.witnesses.extend(left.refuted.values())
        return left
