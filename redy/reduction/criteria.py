"""The criteria of redundancy: one row each; adding one takes a row here and a function.

A criterion proposes units and names the claim that would justify them; `redy.questions` answers. It adds what was
proved to what is known. Whatever it adds, the statement about the written file is proved on its own afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from redy.questions.phases import BRANCHING_WORK, PhaseSettings
from redy.reduction.problem import Known, Preserve, Problem
from redy.reduction.steps import forward_criterion, relaxed_criterion, result_criterion
from redy.redundancy.phase import find_phases

PHASE_SHARE = 0.7
"""Which share of the search phases may take where other criteria follow."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One row.

    Attributes:
        name: as in `--criteria`; findings have it as their kind.
        keeps: the modes whose promise every finding keeps. With "outputs" among them the outputs are equal.
        usual: the modes in which it runs unless criteria are named.
        search: adds what it proves to what is known.
    """

    name: str
    keeps: frozenset[Preserve]
    usual: frozenset[Preserve]
    search: Callable[[Problem, Known], None]


def phase_criterion(problem: Problem, known: Known) -> None:
    """Phase redundancy (`redy.redundancy.phase`)."""
    options = problem.options
    budget = int(problem.work * BRANCHING_WORK) if options.budget is None else options.budget
    settings = PhaseSettings(options.engine, options.solver, options.trust, budget, _share_of_search(problem))
    answer = find_phases(problem.network, problem.box, known.seen, problem.points, settings)
    known.bounds = answer.bounds
    known.findings.extend(answer.findings)
    known.pieces = answer.pieces
    known.undecided.extend(answer.undecided)
    known.stats["phase"] = answer.stats
    known.notes.extend(answer.notes)


def _share_of_search(problem: Problem) -> float | None:
    """The deadline of phases: others get a part of the time, too."""
    if problem.deadline is None or len(problem.options.criteria) == 1:
        return problem.deadline
    return time.monotonic() + PHASE_SHARE * max(0.0, problem.deadline - time.monotonic())


MODES: tuple[Preserve, ...] = ("outputs", "decision", "tolerance")
_ALL = frozenset(MODES)

CRITERIA: dict[str, Criterion] = {
    row.name: row
    for row in (
        Criterion("phase", _ALL, _ALL, phase_criterion),
        Criterion("forward", _ALL, frozenset({"outputs"}), forward_criterion),
        Criterion("result", frozenset({"decision"}), frozenset({"decision"}), result_criterion),
        Criterion("relaxed", frozenset({"tolerance"}), frozenset({"tolerance"}), relaxed_criterion),
    )
}
"""By name, in the order in which they run."""


def usual(preserve: Preserve) -> tuple[str, ...]:
    """The criteria of a mode, in order."""
    return tuple(row.name for row in CRITERIA.values() if preserve in row.usual)


def keeps_outputs(kind: str) -> bool:
    """Whether findings of this kind leave the outputs equal."""
    return kind in CRITERIA and "outputs" in CRITERIA[kind].keeps
