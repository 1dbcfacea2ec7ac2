"""The solvers that may answer mixed-integer programs: one line here, one file each."""

from __future__ import annotations

BACKENDS = {"gurobi": "redy.milp.gurobi", "highs": "redy.milp.highs", "scip": "redy.milp.scip"}
"""Name -> module with `solve` and `available` as `redy.milp.solver.Backend` describes them, in the order of `auto`."""

CHOICES = ("auto", *BACKENDS)
"""What `--solver` takes."""
