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

from collections.abc import Mapping

from redy.model import Line, Unit
from redy.model.claims import SameWinner
from redy.questions.leaving import Left, ask_leaving
from redy.questions.query import Query
from redy.redundancy.relaxed import Facts, SetAnswer, finding_of, with_lines

ALONE = (1 / 60, 1 / 10, 1 / 2)
"""Work on one unit, as parts of that on one query, in turn."""
QUERIES = 6
"""Work in all, in queries."""
RESERVE = 1.5
"""What is kept of it to ask about units together."""


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
