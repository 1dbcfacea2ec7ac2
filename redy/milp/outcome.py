"""What a solver answered, in words that no two solvers share of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redy.errors import RedyError
from redy.model import Array

Status = Literal["optimal", "stopped", "limit", "infeasible", "trouble"]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The answer to one program.

    Attributes:
        status: "optimal": solved to the solver's tolerance; "stopped": a bound or a point that was asked for was
            reached; "limit": time or memory ran out; "infeasible": no point was found to exist (for the encoding of a
            network this means that something is wrong); "trouble": anything else.
        bound: the solver's dual bound, an upper bound of the maximum if the solver is believed; inf where it has none.
            Only "optimal" and "stopped" let it count.
        point: the incumbent (n,), or None; feasible to the solver's tolerance only.
        multipliers: (m,) of a linear program, >= 0 where the upper end of a row binds and <= 0 where the lower end
            does (a certificate of infeasibility if `status` says so); None for a program with binaries.
        seconds: wall time.
        solver: name and version.
    """

    status: Status
    bound: float
    point: Array | None
    multipliers: Array | None
    seconds: float
    solver: str

    @property
    def counts(self) -> bool:
        """Whether the dual bound may be used by those who trust the solver."""
        return self.status in ("optimal", "stopped")


class SolverUnavailable(RedyError):
    """The solver is not installed, its licence does not start, or the program is beyond its licence."""
