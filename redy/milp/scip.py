"""SCIP: quiet, one thread, fixed seed."""

from __future__ import annotations

import time
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from redy.milp.outcome import Outcome, SolverUnavailable, Status
from redy.milp.program import Program
from redy.model import Array

if TYPE_CHECKING:
    import pyscipopt

PARAMETERS = {
    "limits/absgap": 1e-9,
    "limits/gap": 0.0,
    "numerics/dualfeastol": 1e-9,
    "numerics/feastol": 1e-9,
    "randomization/randomseedshift": 1,
}
STATUS: dict[str, Status] = {
    "optimal": "optimal",
    "primallimit": "stopped",
    "duallimit": "stopped",
    "infeasible": "infeasible",
    "timelimit": "limit",
    "memlimit": "limit",
}


def solve(
    program: Program, time_limit: float, *, stop_bound: float | None = None, stop_value: float | None = None
) -> Outcome:
    """Maximise. A linear program is solved to its end, whatever the time limit.

    Raises:
        SolverUnavailable: pyscipopt is not installed.
    """
    begin = time.perf_counter()
    scip = _module()
    answer = _linear if program.is_linear else partial(_mixed, time_limit, stop_bound, stop_value)
    try:
        return answer(scip, program, begin)
    except Exception:  # noqa: BLE001 - pyscipopt raises plain exceptions, for numbers that SCIP refuses among others
        return Outcome("trouble", np.inf, None, None, time.perf_counter() - begin, _name(scip))


def available() -> bool:
    """Whether pyscipopt is installed."""
    try:
        _module()
    except SolverUnavailable:
        return False
    return True


@cache
def _module() -> ModuleType:
    try:
        import pyscipopt
    except ImportError as error:
        raise SolverUnavailable("scip: pyscipopt is not installed; pip install 'redy[scip]'") from error
    return pyscipopt


def _name(scip: ModuleType) -> str:
    return f"scip {scip.Model().version()}"


def _linear(scip: ModuleType, program: Program, begin: float) -> Outcome:
    """A linear program by SCIP's interface to its simplex method, which keeps one multiplier for each row."""
    lp = scip.LP(sense="maximize")
    for lower, upper, weight in zip(program.lower, program.upper, program.objective, strict=True):
        lp.addCol([], obj=float(weight), lb=float(lower), ub=float(upper))
    for row in range(program.rows):
        part = slice(program.starts[row], program.starts[row + 1])
        entries = list(zip(program.columns[part].tolist(), program.values[part].tolist(), strict=True))
        lp.addRow(entries, lhs=float(program.row_lower[row]), rhs=float(program.row_upper[row]))
    value = lp.solve()
    seconds = time.perf_counter() - begin
    if lp.isOptimal():
        point, multipliers = np.array(lp.getPrimal()), np.array(lp.getDual())
        return Outcome("optimal", float(value + program.offset), point, multipliers, seconds, _name(scip))
    ray = lp.getDualRay()
    status: Status = "trouble" if ray is None else "infeasible"
    return Outcome(status, np.inf, None, None if ray is None else -np.array(ray), seconds, _name(scip))


def _mixed(
    time_limit: float,
    stop_bound: float | None,
    stop_value: float | None,
    scip: ModuleType,
    program: Program,
    begin: float,
) -> Outcome:
    model = scip.Model()
    model.hideOutput()
    for name, value in PARAMETERS.items():
        model.setParam(name, value)
    model.setParam("limits/time", max(time_limit, 1e-3))
    if stop_bound is not None:
        model.setParam("limits/dual", -(stop_bound - program.offset))
    if stop_value is not None:
        model.setParam("limits/primal", -(stop_value - program.offset))
    variables = _fill(scip, model, program)
    model.optimize()
    status = STATUS.get(model.getStatus(), "trouble")
    point: Array | None = None
    if model.getNSols():
        best = model.getBestSol()
        point = np.array([model.getSolVal(best, variable) for variable in variables])
    counts = status in ("optimal", "stopped", "limit")
    bound = float(-model.getDualbound() + program.offset) if counts else np.inf
    return Outcome(status, bound, point, None, time.perf_counter() - begin, _name(scip))


def _fill(scip: ModuleType, model: pyscipopt.Model, program: Program) -> list[pyscipopt.Variable]:
    ends = zip(program.lower, program.upper, program.objective, program.binary, strict=True)
    variables = [
        model.addVar(lb=float(lower), ub=float(upper), obj=-float(weight), vtype="B" if binary else "C")
        for lower, upper, weight, binary in ends
    ]
    for row in range(program.rows):
        part = slice(program.starts[row], program.starts[row + 1])
        products = zip(program.values[part], program.columns[part], strict=True)
        form = scip.quicksum(float(value) * variables[column] for value, column in products)
        lower, upper = float(program.row_lower[row]), float(program.row_upper[row])
        if np.isfinite(lower):
            model.addCons(form >= lower)
        if np.isfinite(upper):
            model.addCons(form <= upper)
    return variables
