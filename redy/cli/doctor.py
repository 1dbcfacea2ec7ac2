"""`redy doctor`: what this installation can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import click

REQUIRED = ("numpy", "onnx", "onnx-ir", "onnxruntime", "numba", "gurobipy", "highspy", "jinja2", "jsonschema", "rich")
OPTIONAL = ("pyscipopt", "vnnlib", "pyarrow", "distributed")
"""What extras install."""


@click.command("doctor")
def doctor_command() -> None:
    """Check this installation: versions, solvers and their licences, kernels, cores, completion.

    Exit code 0: everything that redy needs is there; 1: something is missing, and the last line says what.
    """
    rows, missing = _rows()
    for name, text in rows:
        click.echo(f"{name:<16}{text}")
    if missing:
        click.echo(f"error: missing: {', '.join(missing)}; install redy again with pip", err=True)
        click.get_current_context().exit(1)


def _rows() -> tuple[list[tuple[str, str]], list[str]]:
    from redy.condensed.kernels.compiling import SECONDS, cache_folder
    from redy.reduction.warmup import kernels_are_compiled
    from redy.version import __version__

    rows = [("redy", __version__), ("python", f"{platform.python_version()} on {platform.platform()}")]
    missing = []
    for name in (*REQUIRED, *OPTIONAL):
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "missing" if name in REQUIRED else "not installed (optional)"))
            missing += [name] if name in REQUIRED else []
    rows += [(f"solver {name}", text) for name, text in _solvers()]
    state = "compiled" if kernels_are_compiled() else f"not compiled; `redy warmup` compiles them in about {SECONDS} s"
    rows.append(("kernels", f"{state} ({cache_folder()})"))
    rows.append(("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())))
    shell = os.path.basename(os.environ.get("SHELL", "")) or "bash"  # noqa: PTH119 - a name, not a path to open
    if sys.platform != "win32" and shell in ("bash", "zsh", "fish"):
        how = "redy completion fish | source" if shell == "fish" else f'eval "$(redy completion {shell})"'
        rows.append(("completion", f"{how} in the start file of {shell} turns it on"))
    return rows, missing


def _solvers() -> list[tuple[str, str]]:
    """What each solver says when it is asked to start."""
    from redy.milp.backends import BACKENDS
    from redy.milp.solver import backend

    found = []
    for name in BACKENDS:
        text = "usable" if backend(name).available() else "not usable: not installed, or its licence does not start"
        found.append((name, _gurobi() if name == "gurobi" else text))
    return found


def _gurobi() -> str:
    try:
        import gurobipy
    except ImportError as error:
        return f"not usable ({error})"
    try:
        with gurobipy.Env(empty=True) as env:
            env.setParam("OutputFlag", 0)
            env.start()
            with gurobipy.Model(env=env) as model:
                # The licence that comes with the package allows 2,000 variables.
                model.addMVar(2001)
                model.optimize()
    except gurobipy.GurobiError as error:
        if error.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED:
            return "usable with the size-limited licence (2,000 variables); larger questions go to another solver"
        return f"not usable ({error})"
    return "usable, full licence"
