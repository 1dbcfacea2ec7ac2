"""HiGHS: quiet, one thread, fixed seed."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from redy.milp.outcome import Outcome, SolverUnavailable, Status
from redy.milp.program import Program

if TYPE_CHECKING:
    import highspy as highspy_types

OPTIONS: dict[str, Any] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 1e-9,
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}


def solve(
    program: Program, time_limit: float, *, stop_bound: float | None = None, stop_value: float | None = None
) -> Outcome:
    """Maximise; stop early when an incumbent is at least `stop_value` (HiGHS has no stop for the dual bound).

    The dual bound of a pure linear program is that of its dual solution: what HiGHS reports as the MIP dual bound there
    means nothing.

    Raises:
        SolverUnavailable: highspy is not installed.
    """
    del stop_bound
    begin = time.perf_counter()
    highspy = _module()
    with _quiet_standard_output():
        solver = highspy.Highs()
    for name, value in OPTIONS.items():
        solver.setOptionValue(name, value)
    solver.setOptionValue("time_limit", max(time_limit, 1e-3))
    if stop_value is not None and not program.is_linear:
        solver.setOptionValue("objective_target", -(stop_value - program.offset))
    name = f"highs {solver.version()}"
    passed = solver.passModel(_model(highspy, program))
    ran = solver.run() if passed != highspy.HighsStatus.kError else passed
    if program.is_linear and solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        # Presolve says so without a certificate; the simplex method leaves one.
        solver.setOptionValue("presolve", "off")
        solver.clearSolver()
        ran = solver.run()
    seconds = time.perf_counter() - begin
    if ran == highspy.HighsStatus.kError:
        return Outcome("trouble", np.inf, None, None, seconds, name)
    return _outcome(highspy, solver, program, seconds, name)


def available() -> bool:
    """Whether highspy is installed."""
    try:
        _module()
    except SolverUnavailable:
        return False
    return True


@contextmanager
def _quiet_standard_output() -> Iterator[None]:
    """Whatever C code prints in the block is dropped: HiGHS prints a banner before an option can forbid it."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    flush = getattr(ctypes.CDLL(None), "fflush", None) if os.name == "posix" else None
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
        if flush is not None:
            flush(None)  # or its buffer would be printed later
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _module() -> ModuleType:
    try:
        import highspy
    except ImportError as error:
        raise SolverUnavailable("highs: highspy is not installed; pip install highspy") from error
    return highspy


def _model(highspy: ModuleType, program: Program) -> highspy_types.HighsLp:
    lp: highspy_types.HighsLp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = program.variables, program.rows
    lp.col_cost_ = -program.objective
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = program.starts
    lp.a_matrix_.index_ = program.columns
    lp.a_matrix_.value_ = program.values
    if not program.is_linear:
        kinds = highspy.HighsVarType
        lp.integrality_ = [kinds.kInteger if flag else kinds.kContinuous for flag in program.binary]
    return lp


def _outcome(
    highspy: ModuleType,
    solver: Any,  # noqa: ANN401 (the stubs of highspy lack getDualRay)
    program: Program,
    seconds: float,
    name: str,
) -> Outcome:
    codes = highspy.HighsModelStatus
    known: dict[object, Status] = {
        codes.kOptimal: "optimal",
        codes.kObjectiveTarget: "stopped",
        codes.kInfeasible: "infeasible",
        codes.kTimeLimit: "limit",
        codes.kMemoryLimit: "limit",
    }
    status = known.get(solver.getModelStatus(), "trouble")
    solution, info = solver.getSolution(), solver.getInfo()
    point = np.array(solution.col_value) if solution.value_valid else None
    bound, multipliers = np.inf, None
    if program.is_linear:
        if status == "optimal" and solution.dual_valid:
            bound = -info.objective_function_value + program.offset
            multipliers = -np.array(solution.row_dual)
        elif status == "infeasible" and solver.getDualRayExist()[1]:
            multipliers = -np.array(solver.getDualRay()[2])
    elif status in ("optimal", "stopped", "limit"):
        bound = -info.mip_dual_bound + program.offset
    return Outcome(status, float(bound), point, multipliers, seconds, name)
