"""Which solver answers: the one that was named, or the first of `redy.milp.backends` that can."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from redy.errors import InputError
from redy.milp.backends import BACKENDS, CHOICES
from redy.milp.outcome import Outcome, SolverUnavailable
from redy.milp.program import Program

Choice = str
"""One of `CHOICES`."""


class Backend(Protocol):
    """What the module of a solver gives."""

    def solve(
        self,
        program: Program,
        time_limit: float,
        *,
        stop_bound: float | None = None,
        stop_value: float | None = None,
    ) -> Outcome:
        """Maximise; the solver may stop when its dual bound is at most `stop_bound` or a point reaches `stop_value`.

        Raises:
            SolverUnavailable: it is not installed, its licence does not start, or the program is beyond its licence.
        """

    def available(self) -> bool:
        """Whether it is installed and its licence starts."""


def backend(name: str) -> Backend:
    """The module of a solver.

    Raises:
        InputError: there is none of that name.
    """
    if name not in BACKENDS:
        raise InputError(f"solver {name}: must be one of {', '.join(CHOICES)}")
    return cast("Backend", importlib.import_module(BACKENDS[name]))


def answering(choice: Choice = "auto") -> str:
    """The name of the solver that a choice asks first."""
    if choice != "auto":
        return choice
    return next((name for name in BACKENDS if backend(name).available()), next(iter(BACKENDS)))


def solve(
    program: Program,
    time_limit: float,
    choice: Choice = "auto",
    *,
    stop_bound: float | None = None,
    stop_value: float | None = None,
) -> Outcome:
    """Maximise a program within `time_limit` seconds.

    `auto` asks the solvers in the order of `redy.milp.backends`, and the next one where a package is absent, a licence
    does not start, or the program is beyond the licence (that of gurobipy from pip ends at 2,000 variables and rows).

    Raises:
        InputError: the solver that was chosen by name cannot answer, or none can.
    """
    refusals = []
    for name in BACKENDS if choice == "auto" else (choice,):
        try:
            return backend(name).solve(program, time_limit, stop_bound=stop_bound, stop_value=stop_value)
        except SolverUnavailable as error:
            refusals.append(str(error))
    raise InputError("; ".join(refusals))
