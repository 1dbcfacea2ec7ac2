"""What a question starts from: the networks, the box, what is known, and which engines may answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from redy.condensed.form import Intervals
from redy.condensed.joint import Pairs
from redy.milp.solver import Choice
from redy.model import Array, Box, Network
from redy.questions.witness import Run

Engine = Literal["auto", "linear", "branch", "milp"]

BRANCHING_INPUTS = 16
"""Up to this number of inputs that are not fixed the box of inputs is cut, above it the phases of unstable units."""


def few_inputs(box: Box) -> bool:
    """Whether cutting the box of inputs is a way to answer questions about it."""
    return int((box.width > 0).sum()) <= BRANCHING_INPUTS


@dataclass(frozen=True, slots=True)
class Engines:
    """Which engines may answer, as the user chose them.

    Attributes:
        engine: "auto" chooses by the number of inputs; the others are asked alone.
        solver: which solver the engine "milp" asks, and "auto" where it comes to that.
        trust: count a solver's dual bound although redy did not re-derive it; the proof then names it.
    """

    engine: Engine = "auto"
    solver: Choice = "auto"
    trust: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What is known when a question is asked.

    Attributes:
        network: the network, or the first of two.
        box: the inputs.
        other: the second network, where the claim is about two.
        known: sound pre-activation bounds of the first network on the box, by Activate name; may be empty.
        points: points (m, *input shape) of the box that were met before, where the claim is tried first; or None.
        pairs: partners of the second network's units (see `redy.condensed.joint`); by name and place by default.
        engines: which engines may answer.
        run: the file's own evaluation, in which a violation of a property must be confirmed; without one float64
            evaluation must be sure of it.
    """

    network: Network
    box: Box
    other: Network | None = None
    known: Intervals = field(default_factory=dict)
    points: Array | None = None
    pairs: Pairs | None = None
    engines: Engines = field(default_factory=Engines)
    run: Run | None = None

    @property
    def few_inputs(self) -> bool:
        """Whether cutting the box of inputs is a way to answer."""
        return few_inputs(self.box)
