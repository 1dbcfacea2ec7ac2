"""The one door: claim, situation and limits in, verdict out. Which engine answers is decided here and nowhere else.

Points that were met before come first. Then, as the user's choice and the number of inputs say, the branching engine
(`redy.questions.query`), the solver (`redy.questions.by_milp`), or one after the other. A time-out, doubt about
rounding and a node that an engine cannot take end as `Unknown`.
"""

from __future__ import annotations

import math

import numpy as np

from redy.errors import Unsupported
from redy.model import Comparison, Limits, Property, Refuted, Unknown, Verdict
from redy.questions.by_milp import ask_milp
from redy.questions.properties import PropertySearch
from redy.questions.query import Query, violation
from redy.questions.query import ask as ask_branching
from redy.questions.situation import Situation, few_inputs
from redy.questions.wide_properties import WideSearch

SOLVER_SECONDS = {"after branching": 5.0, "published": 30.0}
"""How long the solver may work on one question where no deadline comes first."""


def ask(claim: Comparison | Property, situation: Situation, limits: Limits) -> Verdict:
    """The verdict on a claim.

    Args:
        claim: what is asked.
        situation: about which networks on which box, what is known, and which engines may answer.
        limits: work and deadline. Without a deadline the solver has `SOLVER_SECONDS`.

    Raises:
        InputError: the networks do not fit together, or an engine was chosen by name that cannot work on them
            (`Unsupported` names the node).
    """
    if isinstance(claim, Property):
        return _property(claim, situation, limits)
    assert situation.other is not None
    query = Query(situation.network, situation.other, situation.box, claim, situation.known, situation.pairs)
    if (witness := _met(query, situation)) is not None:
        return Refuted(witness)
    engine = situation.engines.engine
    verdict: Verdict = Unknown("nothing was asked")
    if engine != "milp":
        try:
            deadline = None if math.isinf(limits.deadline) else limits.deadline
            verdict = ask_branching(query, budget=limits.work, deadline=deadline)
        except Unsupported as error:
            if engine == "branch":
                raise
            return Unknown(str(error))
    if isinstance(verdict, Unknown) and asks_solver(situation) and limits.remaining() > 0:
        verdict = _by_solver(query, situation, limits)
    return verdict


def _property(claim: Property, situation: Situation, limits: Limits) -> Verdict:
    """Search over inputs where few of them vary on every box and all nodes can be condensed; else over units."""
    engine = situation.engines.engine
    few = all(few_inputs(box) for box in claim.boxes())
    if engine == "branch" or (engine == "auto" and few):
        try:
            return PropertySearch(claim, situation, limits).run()
        except Unsupported:
            if engine == "branch":
                raise
    return WideSearch(claim, situation, limits).run()


def asks_solver(situation: Situation) -> bool:
    """Whether a question that the branching engine leaves open goes to the solver: where inputs are many."""
    engine = situation.engines.engine
    return engine == "milp" or (engine == "auto" and not situation.few_inputs)


def _met(query: Query, situation: Situation) -> np.ndarray | None:
    if situation.points is None or not len(situation.points):
        return None
    broken = violation(query, situation.points)
    return np.asarray(situation.points[int(broken.argmax())]) if broken.max() > 0 else None


def _by_solver(query: Query, situation: Situation, limits: Limits) -> Verdict:
    engines = situation.engines
    published = engines.engine == "milp"
    usual = SOLVER_SECONDS["published" if published else "after branching"]
    seconds = limits.remaining() if math.isfinite(limits.deadline) and published else min(limits.remaining(), usual)
    try:
        return ask_milp(query, time_limit=seconds, solver=engines.solver, trust=engines.trust or published)
    except Unsupported as error:
        return Unknown(str(error))
