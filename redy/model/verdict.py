"""What a question about a network can be answered with, and what a finding says."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from redy.model.box import Array, Box


class _NoTruth:
    """A verdict has no truth value, so that a time-out can never pass as a proof."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a verdict has no truth value; match it against Proved, Refuted and Unknown")


@dataclass(frozen=True, slots=True, eq=False)
class LinearBounds:
    """Sound ranges from which the claim follows.

    Attributes:
        lower, upper: of the pre-activation of each element of the unit, or of each row asked about, flattened.
    """

    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True, eq=False)
class BoxTree:
    """A subdivision of a box: linear bounds of the condensed form close every leaf.

    Attributes:
        tree: in pre-order, the input (flattened) at which each sub-box is bisected in the middle, -1 for a leaf, int16.
        box: the box that the tree subdivides.
        parts: numbers of the parts of the claim (conjunctions of a property) that hold in every leaf; empty: all.
    """

    tree: NDArray[np.int16]
    box: Box
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PhaseTree:
    """Bounds from a subdivision by the phases of unstable units.

    Attributes:
        parts: how many parts were bounded.
    """

    parts: int


@dataclass(frozen=True, slots=True, eq=False)
class Multipliers:
    """Dual multipliers that close every leaf of a mixed-integer program.

    Attributes:
        fixed: per leaf the binaries that are fixed in it, as (column, value).
        values: per leaf its multipliers, one per row of the program.
    """

    fixed: tuple[tuple[tuple[int, float], ...], ...]
    values: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Trusted:
    """Something that was believed and not re-derived.

    Attributes:
        what: in words ("gurobi 13.0.3 dual bound").
    """

    what: str


Evidence = LinearBounds | BoxTree | PhaseTree | Multipliers | Trusted


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Why a claim holds.

    Attributes:
        claim: the claim in words and formula.
        method: what found it ("interval", "linear", "branch", "milp", ...).
        evidence: what a checker wants.
    """

    claim: str
    method: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def trusted(self) -> tuple[str, ...]:
        """What was believed; empty when redy's own bounded arithmetic shows the claim."""
        return tuple(dict.fromkeys(item.what for item in self.evidence if isinstance(item, Trusted)))


@dataclass(frozen=True, slots=True, eq=False)
class Proved(_NoTruth):
    """The claim holds on the whole box."""

    proof: Proof

    def _repr_html_(self) -> str:
        trusted = f", trusting {', '.join(self.proof.trusted)}" if self.proof.trusted else ""
        return _verdict("proved", f"{self.proof.claim} ({self.proof.method}{trusted})")


@dataclass(frozen=True, slots=True, eq=False)
class Refuted(_NoTruth):
    """The claim fails at `witness`, an input (*input shape) of the box."""

    witness: Array

    def _repr_html_(self) -> str:
        return _verdict("refuted", f"at {np.array2string(self.witness, threshold=20, precision=6)}")


@dataclass(frozen=True, slots=True, eq=False)
class Unknown(_NoTruth):
    """Undecided: a time-out, a budget, numerical doubt or a limit of the method."""

    reason: str

    def _repr_html_(self) -> str:
        return _verdict("unknown", self.reason)


def _verdict(word: str, text: str) -> str:
    """What a notebook shows of a verdict."""
    return f"<p><b>{word}</b>: {html.escape(text)}</p>"


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
