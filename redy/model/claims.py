"""What can be asked about one or two networks on a box: claims in real arithmetic, whoever answers them.

Ties. Outputs closer than a `margin` are tied: weights that are rounded to float32 move the border between two decisions
by about as much, so nothing finer can be kept. For every winner i of the original and every output o that i beats by
more than the margin, o does not beat i in the reduced network. So wherever the original's winner leads by more than
the margin, it is a winner of the reduced network; elsewhere the reduced network's winner is one of the tied outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redy.errors import InputError
from redy.model.box import Array
from redy.model.property import Property

Winner = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One element of an activation stays in one piece of its function on the whole box.

    Attributes:
        node: the name of the `Activate` node.
        element: the number of the element in its flattened shape.
        side: the number of the piece, from 0 for the leftmost; for ReLU 0 is inactive and 1 active.
    """

    node: str
    element: int
    side: int

    def __str__(self) -> str:
        """The claim in words."""
        return f"{self.node}[{self.element}] stays in piece {self.side} on the whole box"


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """|y_o - y'_o| <= tolerance_o for every output element o on the whole box.

    Attributes:
        tolerance: one number per output element, all outputs flattened, one after the other.
    """

    tolerance: Array

    def __str__(self) -> str:
        """The claim in words."""
        return f"every output differs by at most {self.tolerance.max(initial=0.0):.6g}"


@dataclass(frozen=True, slots=True)
class SameWinner:
    """The decision is kept; see the module's docstring.

    Attributes:
        winner: whether the largest or the smallest output wins.
        margin: outputs closer than this are tied; > 0.
        ahead: by how much i must stay ahead of o in the reduced network; below the margin. What is left of it after the
            weights are rounded decides whether the written network keeps the decision.
    """

    winner: Winner
    margin: float
    ahead: float = 0.0

    def __post_init__(self) -> None:
        if not self.margin > self.ahead >= 0:
            raise InputError(f"margin {self.margin}: must be a positive number")

    def __str__(self) -> str:
        """The claim in words."""
        return f"the {self.winner} winner is kept wherever it leads by more than {self.margin:.3g}"


Comparison = Within | SameWinner
"""Claims about two networks."""

Claim = Phase | Property | Comparison
"""`Phase` and `Property` are about one network."""
