"""What a question about a network can be answered with, and what a finding says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from redy.model.box import Array


class _NoTruth:
    """A verdict has no truth value, so that a time-out can never pass as a proof."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a verdict has no truth value; match it against Proved, Refuted and Unknown")


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Why a claim holds.

    Attributes:
        claim: the claim in words and formula.
        method: what found it ("interval", "linear", "branch", "milp", ...).
        evidence: what a checker wants (the split tree, dual multipliers, bounds used).
        trusted: what was believed and not re-derived ("gurobi 13.0.3 dual bound"); empty when redy's own bounded
            arithmetic shows the claim.
    """

    claim: str
    method: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Proved(_NoTruth):
    """The claim holds on the whole box."""

    proof: Proof


@dataclass(frozen=True, slots=True, eq=False)
class Refuted(_NoTruth):
    """The claim fails at `witness`, an input (*input shape) of the box."""

    witness: Array


@dataclass(frozen=True, slots=True, eq=False)
class Unknown(_NoTruth):
    """Undecided: a time-out, a budget, numerical doubt or a limit of the method."""

    reason: str


Verdict = Proved | Refuted | Unknown


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One neuron of a dense activation, or one channel of a convolutional one.

    `node` names the `Activate` node; `index` counts along its flattened shape (dense) or its channel axis.
    """

    node: str
    index: int


@dataclass(frozen=True, slots=True)
class Line:
    """The line slope * x + intercept that replaces a unit's activation."""

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A unit's activation may be replaced by a line.

    Attributes:
        unit: which unit.
        kind: "phase", "forward", "result" or "relaxed".
        line: what replaces the activation.
        error: the largest |activation - line| over the unit's pre-activation range (0 for phase).
        verdict: why; a finding is applied only when `Proved`.
    """

    unit: Unit
    kind: str
    line: Line
    error: float
    verdict: Verdict
