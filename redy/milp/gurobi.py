"""Gurobi: quiet, one thread, fixed seed, one environment per process."""

from __future__ import annotations

import functools
import time
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from redy.milp.outcome import Outcome, SolverUnavailable, Status
from redy.milp.program import Program

if TYPE_CHECKING:
    import gurobipy

SIZE_LIMIT_ERROR = 10010
PARAMETERS = {
    "FeasibilityTol": 1e-9,
    "IntFeasTol": 1e-9,
    "MIPGap": 0.0,
    "MIPGapAbs": 1e-9,
    "NumericFocus": 2,
    "OptimalityTol": 1e-9,
    "Seed": 1,
    "Threads": 1,
}


def solve(
    program: Program, time_limit: float, *, stop_bound: float | None = None, stop_value: float | None = None
) -> Outcome:
    """Maximise; stop early when the dual bound is at most `stop_bound` or an incumbent is at least `stop_value`.

    Raises:
        SolverUnavailable: gurobipy is absent, its licence does not start, or the program is too large for it.
    """
    begin = time.perf_counter()
    gp, environment = _environment()
    try:
        with gp.Model(env=environment) as model:
            model.Params.TimeLimit = max(time_limit, 0.0)
            if stop_bound is not None and not program.is_linear:
                model.Params.BestBdStop = -(stop_bound - program.offset)
            if stop_value is not None and not program.is_linear:
                model.Params.BestObjStop = -(stop_value - program.offset)
            if program.is_linear:
                model.Params.InfUnbdInfo = 1
                model.Params.DualReductions = 0
            _fill(gp, model, program)
            model.optimize()
            return _outcome(gp, model, program, time.perf_counter() - begin)
    except gp.GurobiError as error:
        if error.errno == SIZE_LIMIT_ERROR:
            raise SolverUnavailable(
                f"gurobi: {program.variables} variables and {program.rows} rows: {error}; or use --solver highs"
            ) from error
        return Outcome("trouble", np.inf, None, None, time.perf_counter() - begin, _name(gp))


def available() -> bool:
    """Whether gurobipy is installed and its licence starts."""
    try:
        _environment()
    except SolverUnavailable:
        return False
    return True


@functools.cache
def _environment() -> tuple[ModuleType, gurobipy.Env]:
    try:
        import gurobipy as gp
    except ImportError as error:
        raise SolverUnavailable(
            "gurobi: gurobipy is not installed; pip install gurobipy, or use --solver highs"
        ) from error
    try:
        environment = gp.Env(empty=True)
        environment.setParam("OutputFlag", 0)
        environment.start()
        for name, value in PARAMETERS.items():
            environment.setParam(name, value)
    except gp.GurobiError as error:
        raise SolverUnavailable(f"gurobi: the licence does not start ({error}); use --solver highs") from error
    return gp, environment


def _name(gp: ModuleType) -> str:
    return "gurobi " + ".".join(map(str, gp.gurobi.version()))


def _fill(gp: ModuleType, model: gurobipy.Model, program: Program) -> None:
    added = model.addMVar(
        program.variables,
        lb=program.lower,
        ub=program.upper,
        obj=-program.objective,
        vtype=np.where(program.binary, gp.GRB.BINARY, gp.GRB.CONTINUOUS),
    )
    variables = np.array(added.tolist(), dtype=object)
    for row in range(program.rows):
        part = slice(program.starts[row], program.starts[row + 1])
        form = gp.LinExpr(program.values[part].tolist(), variables[program.columns[part]].tolist())
        lower, upper = program.row_lower[row], program.row_upper[row]
        if lower == upper:
            model.addLConstr(form, gp.GRB.EQUAL, upper)
        elif not np.isfinite(lower):
            model.addLConstr(form, gp.GRB.LESS_EQUAL, upper)
        elif not np.isfinite(upper):
            model.addLConstr(form, gp.GRB.GREATER_EQUAL, lower)
        else:
            model.addRange(form, lower, upper)


def _outcome(gp: ModuleType, model: gurobipy.Model, program: Program, seconds: float) -> Outcome:
    codes: dict[int, Status] = {
        gp.GRB.OPTIMAL: "optimal",
        gp.GRB.USER_OBJ_LIMIT: "stopped",
        gp.GRB.INFEASIBLE: "infeasible",
        gp.GRB.TIME_LIMIT: "limit",
        gp.GRB.MEM_LIMIT: "limit",
    }
    status = codes.get(model.Status, "trouble")
    # A row with two ends makes Gurobi append a variable of its own.
    point = np.array(model.getAttr("X")[: program.variables]) if model.SolCount else None
    bound, multipliers = np.inf, None
    if program.is_linear:
        if status == "optimal":
            bound = -model.ObjVal + program.offset
            multipliers = -np.array(model.getAttr("Pi"))
        elif status == "infeasible":
            multipliers = np.array(model.getAttr("FarkasDual"))
    elif status in ("optimal", "stopped", "limit"):
        bound = -model.ObjBound + program.offset
    return Outcome(status, float(bound), point, multipliers, seconds, _name(gp))
