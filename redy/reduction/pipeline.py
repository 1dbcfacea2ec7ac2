"""One network, one box: find what is not needed, fold it away, and state what was preserved.

    points -> criteria (phase, ...) -> findings -> rewriting -> file -> reading back -> guarantee

Every criterion is a step with one signature: it gets the problem and what is known so far and adds findings.
"""

from __future__ import annotations

import math
import time
from typing import Literal

import numpy as np

from redy.condensed.kernels.compiling import announced
from redy.errors import InputError, Unsupported
from redy.milp.solver import Choice
from redy.model import Affine, Array, Box, Network
from redy.model.digest import network_digest
from redy.questions.phases import PhaseSettings
from redy.questions.seen import sample_points, seen_at
from redy.questions.situation import Engine
from redy.reduction.guarantee import Exceeded, check_points, largest, state
from redy.reduction.problem import (
    Criterion,
    Known,
    Options,
    Preserve,
    Problem,
    Progress,
    Reduction,
    Winner,
)
from redy.reduction.refit import refitted, replaced
from redy.reduction.settle import Final, read_back, rewritten, settle
from redy.reduction.steps import decided_at_once, forward_criterion, relaxed_criterion, result_criterion
from redy.redundancy.phase import find_phases

SEARCH_SHARE = 0.8
"""Which share of the time limit the search may take."""
POINT_MACS = 200_000_000
FEWEST_POINTS = 200
"""Samples and corners are limited to this number of multiply-adds each, but not below this number of points."""


def phase_criterion(problem: Problem, known: Known) -> None:
    """Phase redundancy (`redy.redundancy.phase`)."""
    options = problem.options
    settings = PhaseSettings(options.engine, options.solver, options.trust, options.budget, problem.deadline)
    answer = find_phases(problem.network, problem.box, known.seen, problem.points, settings)
    known.bounds = answer.bounds
    known.findings.extend(answer.findings)
    known.undecided.extend(answer.undecided)
    known.stats["phase"] = answer.stats
    known.notes.extend(answer.notes)


CRITERIA: dict[str, Criterion] = {
    "phase": phase_criterion,
    "forward": forward_criterion,
    "result": result_criterion,
    "relaxed": relaxed_criterion,
}
"""Name, as in `--criteria` -> the step."""
DEFAULT: dict[Preserve, tuple[str, ...]] = {
    "outputs": ("phase", "forward"),
    "decision": ("phase", "result"),
    "tolerance": ("phase", "relaxed"),
}
"""The criteria of each mode, in order."""
ALLOWED: dict[Preserve, frozenset[str]] = {
    "outputs": frozenset({"phase", "forward"}),
    "decision": frozenset({"phase", "forward", "result"}),
    "tolerance": frozenset({"phase", "forward", "relaxed"}),
}
"""The criteria that keep what the mode promises."""


def reduce(  # noqa: PLR0913 - the options of the command, with the same words
    network: Network,
    box: Box,
    *,
    preserve: Preserve = "outputs",
    engine: Engine = "auto",
    solver: Choice = "auto",
    trust: bool = False,
    criteria: tuple[str, ...] | None = None,
    tolerance: float | None = None,
    relative_to: Box | Literal["box"] | None = None,
    winner: Winner = "max",
    margin: float | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    samples: int = 4096,
    budget: int | None = None,
    refit: bool = False,
    progress: Progress | None = None,
) -> Reduction:
    """Make the network smaller on the box, with proof.

    Args:
        network: as `redy.read_network` gives it.
        box: its shape is the input's, without the batch axis.
        preserve: "outputs": equal outputs in real arithmetic, up to the stated effect of rounding the folded weights.
        engine: "auto", "linear", "branch" or "milp".
        solver: "auto", "gurobi" or "highs".
        trust: count a solver's dual bounds as proofs (engine "milp" does so anyway; the guarantee names it).
        criteria: the steps, in order, "relaxed:10" for one that may take 10 seconds; by default those of the mode.
        tolerance: for "tolerance".
        relative_to: the tolerance is a share of each output's range over this box, or over the box of inputs ("box").
        winner: for "decision".
        margin: for "decision": outputs closer than this are tied (see `redy.model.claims`).
        time_limit: seconds for the whole run; what is undecided then stays in the network.
        seed: of every random choice; equal seeds give equal results.
        samples: points drawn from the box.
        budget: work that branching may do, in its own units (deterministic); by default what the engine takes.
        refit: for "tolerance": fit the output layer to the original, where that makes the proved error smaller.
        progress: called with one line per step.

    Raises:
        InputError: the options or the box do not fit the network.
        CheckFailed: an internal check failed; the result must not be used.
    """
    chosen, seconds = _limits(DEFAULT.get(preserve, ("phase",)) if criteria is None else criteria)
    options = Options(
        preserve=preserve,
        criteria=chosen,
        engine=engine,
        solver=solver,
        trust=trust,
        tolerance=tolerance,
        relative_to=relative_to,
        winner=winner,
        margin=margin,
        seconds=seconds,
        time_limit=time_limit,
        seed=seed,
        samples=samples,
        budget=budget,
        refit=refit,
    )
    _check_options(network, box, options)
    begin = time.perf_counter()
    # The search ends before the limit: folding, checking and writing come after it.
    deadline = None if time_limit is None else time.monotonic() + SEARCH_SHARE * time_limit
    problem = Problem(network, box, options, _points(network, box, options), deadline, progress or (lambda _: None))
    timings: dict[str, float] = {}
    with announced(problem.progress):
        known = _searched(problem, timings, named=criteria is not None)
    final = settle(problem, known, timings)
    layers: tuple[Affine, ...] = ()
    if refit and final.shrunk is not None:
        final, layers = _refitted(problem, known, final)
    small, guarantee, shrunk = final.network, final.guarantee, final.shrunk
    check_points(problem, small, guarantee)
    timings["total"] = time.perf_counter() - begin
    return Reduction(
        original=network,
        original_digest=network_digest(network),
        box=box,
        options=options,
        findings=tuple(known.findings),
        network=small,
        guarantee=guarantee,
        undecided=tuple(known.undecided),
        units={} if shrunk is None else shrunk.units,
        timings=timings,
        stats=known.stats,
        notes=tuple(known.notes) if shrunk is None or shrunk.refusal is None else (*known.notes, shrunk.refusal),
        bounds=known.bounds,
        refit=layers,
        model=final.model,
    )


def _refitted(problem: Problem, known: Known, final: Final) -> tuple[Final, tuple[Affine, ...]]:
    """The network with the output layer fitted, if its proved error is smaller; also the fitted layers."""
    problem.progress("fitting the output layer")
    worst = [points.reshape(-1, *problem.box.shape) for points in final.guarantee.points.values()]
    if final.guarantee.error is None or not worst or not any(f.kind == "relaxed" for f in known.findings):
        return final, ()
    fitted = refitted(problem, final.network, np.concatenate(worst))
    before, after = largest(final.guarantee.error), math.inf
    if fitted is not None:
        model, written = read_back(fitted)
        try:
            guarantee = state(problem, known, written)
            after = largest(guarantee.error or {})
        except Exceeded:
            after = math.inf
    if fitted is None or not after < before:
        known.notes.append("refit: no other weights of the output layer were proved to have a smaller error")
        return final, ()
    known.notes.append(f"refit: the output layer was fitted; the proved error fell from {before:.3g} to {after:.3g}")
    ports = {port.name for port in fitted.outputs}
    layers = tuple(
        node
        for node in fitted.nodes
        if isinstance(node, Affine) and node.name in ports and node is not final.network.by_name.get(node.name)
    )
    return Final(written, model, guarantee, final.shrunk), layers


def _points(network: Network, box: Box, options: Options) -> Array:
    """Samples and corners, fewer for networks that are costly to evaluate."""
    most = max(FEWEST_POINTS, POINT_MACS // max(1, network.macs))
    return sample_points(box, min(options.samples, most), min(options.corners, most), options.seed)


def replay(original: Network, reduction: Reduction) -> Network:
    """The reduced network again, from the original and the findings alone.

    Raises:
        ValueError: `original` is not the network that was reduced.
    """
    if network_digest(original) != reduction.original_digest:
        raise ValueError("the reduction was made from another network")
    if reduction.model is None:
        return original
    network = read_back(rewritten(original, reduction.findings)[0])[1]
    return read_back(replaced(network, reduction.refit))[1] if reduction.refit else network


def _limits(criteria: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, float]]:
    """Names, and the seconds of those that have a limit ("relaxed:10")."""
    names, seconds = [], {}
    for entry in criteria:
        name, _, limit = entry.partition(":")
        names.append(name)
        if limit:
            try:
                seconds[name] = float(limit)
            except ValueError:
                raise InputError(f"criterion {entry}: {limit} is not a number of seconds") from None
            if not 0 < seconds[name] < float("inf"):
                raise InputError(f"criterion {entry}: the seconds must be a positive number")
    return tuple(names), seconds


def _check_options(network: Network, box: Box, options: Options) -> None:
    if box.shape != network.input.shape:
        raise InputError(f"the box has shape {box.shape}, the network's input has {network.input.shape}")
    unknown = [name for name in options.criteria if name not in CRITERIA]
    if unknown:
        raise InputError(f"criterion {unknown[0]}: there is none of this name; choose from {', '.join(CRITERIA)}")
    wrong = [name for name in options.criteria if name not in ALLOWED[options.preserve]]
    if wrong:
        raise InputError(f"criterion {wrong[0]}: does not keep what --preserve {options.preserve} promises")
    if options.relative_to is not None and options.tolerance is None:
        raise InputError("a reference for the tolerance is given without a tolerance")
    if isinstance(options.relative_to, Box) and options.relative_to.shape != box.shape:
        raise InputError(
            f"the reference box has shape {options.relative_to.shape}, the network's input has {box.shape}"
        )
    if options.margin is not None and not options.margin > 0:
        raise InputError(f"margin {options.margin}: must be a positive number")
    if options.tolerance is not None and not options.tolerance > 0:
        raise InputError(f"tolerance {options.tolerance}: must be a positive number")
    if (options.preserve == "tolerance") != (options.tolerance is not None):
        raise InputError("a tolerance is given exactly when the mode is 'tolerance'")
    if options.refit and options.preserve != "tolerance":
        raise InputError("refit: only --preserve tolerance lets the output layer change")
    if options.time_limit is not None and not options.time_limit > 0:
        raise InputError(f"time limit {options.time_limit}: must be a positive number of seconds")


def _searched(problem: Problem, timings: dict[str, float], *, named: bool) -> Known:
    """What all steps found; a step that cannot follow the network is passed over, unless it was asked for by name."""
    problem.progress("evaluating points")
    begin = time.perf_counter()
    known = Known(seen_at(problem.network, problem.points))
    timings["points"] = time.perf_counter() - begin
    begin = time.perf_counter()
    try:
        if decided_at_once(problem, known):
            timings["result"] = time.perf_counter() - begin
            return known
    except Unsupported:
        known.bounds = None  # the step itself says what it cannot follow
    for name in problem.options.criteria:
        if name != "phase" and problem.deadline is not None and time.monotonic() > problem.deadline:
            known.notes.append(f"{name}: time limit")
            continue
        problem.progress(f"criterion {name}")
        begin = time.perf_counter()
        try:
            CRITERIA[name](problem, known)
        except Unsupported as reason:
            if named or name == "phase":
                raise
            known.notes.append(f"{name}: {reason}")
        timings[name] = time.perf_counter() - begin
    return known
