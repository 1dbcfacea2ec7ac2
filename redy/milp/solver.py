"""Which solver answers: Gurobi first, HiGHS where Gurobi cannot."""

from __future__ import annotations

from typing import Literal

from redy.errors import InputError
from redy.milp import gurobi, highs
from redy.milp.outcome import Outcome, SolverUnavailable
from redy.milp.program import Program

Choice = Literal["auto", "gurobi", "highs"]


def solve(
    program: Program,
    time_limit: float,
    choice: Choice = "auto",
    *,
    stop_bound: float | None = None,
    stop_value: float | None = None,
) -> Outcome:
    """Maximise a program within `time_limit` seconds.

    `auto` asks Gurobi, and HiGHS where gurobipy is absent, its licence does not start, or the program is beyond the
    licence (the one that pip installs ends at 2,000 variables and 2,000 rows).

    Raises:
        InputError: the solver that was chosen by name cannot answer.
    """
    if choice == "auto":
        try:
            return gurobi.solve(program, time_limit, stop_bound=stop_bound, stop_value=stop_value)
        except SolverUnavailable:
            choice = "highs"
    chosen = gurobi.solve if choice == "gurobi" else highs.solve
    try:
        return chosen(program, time_limit, stop_bound=stop_bound, stop_value=stop_value)
    except SolverUnavailable as error:
        raise InputError(str(error)) from error
