"""One network, one box: find what is not needed, fold it away, and state what was preserved.

    points -> criteria (phase, ...) -> findings -> rewriting -> file -> reading back -> guarantee

Every criterion is a step with one signature: it gets the problem and what is known so far and adds findings.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import numpy as np

from redy.errors import InputError, Unsupported
from redy.milp.solver import Choice
from redy.model import Affine, Array, Box, Network
from redy.model.digest import network_digest
from redy.questions.seen import sample_points, seen_at
from redy.questions.situation import Engine
from redy.reduction.criteria import CRITERIA, MODES, usual
from redy.reduction.guarantee import Exceeded, check_points, largest, state
from redy.reduction.limit import BUDGETS, Effort, TimeUp, ended_after
from redy.reduction.problem import (
    Known,
    Layout,
    Options,
    Preserve,
    Problem,
    Progress,
    Reduction,
    Winner,
)
from redy.reduction.promise import promise_of
from redy.reduction.refit import refitted, replaced
from redy.reduction.settle import Final, kept, read_back, rewritten, settle
from redy.reduction.steps import decided_at_once
from redy.rewrite.shrink import Fewest

SEARCH_SHARE = 0.6
"""Which share of the time limit the search may take; writing and proving come behind it."""
_LATE = 0.25
"""How much of the time behind the search a step may take that has not looked at the clock."""
_LEAST = 0.8
"""Seconds that cheap bounds, and then writing, have also where the limit is shorter."""
POINT_MACS = 200_000_000
FEWEST_POINTS = 32
"""Samples and corners are limited to this number of multiply-adds each, but not below this number of points."""


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
    effort: Effort = "normal",
    refit: bool = False,
    layout: Layout = "auto",
    fewest: Fewest = "latency",
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
        budget: work that branching may do, in its own units (deterministic); by default what the effort allows.
        effort: the work of all searches: "quick", "normal" or "thorough".
        refit: for "tolerance": fit the output layer to the original, where that makes the proved error smaller.
        layout: "chain": a plain chain of Gemm and Relu from a vector to a vector, which many tools read; it is written
            also where it is larger than the original.
        fewest: what the written form has least of: "latency", "parameters" or "relus" (for verifiers and solvers).
        progress: called with one line per step.

    Raises:
        InputError: the options or the box do not fit the network.
        CheckFailed: an internal check failed; the result must not be used.
    """
    chosen, seconds = _limits(usual(preserve) if criteria is None else criteria)
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
        effort=effort,
        refit=refit,
        layout=layout,
        fewest=fewest,
    )
    _check_options(network, box, options)
    begin = time.perf_counter()
    # The search ends before the limit: folding, checking and writing come after it.
    now = time.monotonic()
    deadline, end = (None, None) if time_limit is None else (now + SEARCH_SHARE * time_limit, now + time_limit)
    points = _points(network, box, options)
    promise = promise_of(network, box, options, points)
    problem = Problem(network, box, options, points, promise, deadline, progress or (lambda _: None), end)
    timings: dict[str, float] = {}
    known = _searched(problem, timings, named=criteria is not None)
    final = _in_time(problem, known, timings)
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
        facts=None if shrunk is None else shrunk.facts,
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
        model, written = read_back(fitted, problem.network)
        try:
            guarantee = state(problem, known, written, {} if final.shrunk is None else final.shrunk.units)
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


def _in_time(problem: Problem, known: Known, timings: dict[str, float]) -> Final:
    """`settle` within what is left of the limits; once more without tightening, else the original."""
    left = None if problem.end is None else max(_LEAST, problem.end - time.monotonic())
    cpu = BUDGETS[problem.options.effort].proof if left is None else None
    findings = list(known.findings)
    for tried in (problem, replace(problem, lean=True)):
        known.findings = list(findings)
        try:
            share = 1.0 if tried.lean else 0.7
            with ended_after(None if left is None else share * left, None if cpu is None else share * cpu):
                return settle(tried, known, timings)
        except TimeUp:
            left = None if problem.end is None else max(_LEAST / 2, problem.end - time.monotonic())
            cpu = None if cpu is None else (1 - share) * cpu
    known.notes.append("time limit: no form was proved in time; the original is kept as it is")
    return kept(problem, known)


def _points(network: Network, box: Box, options: Options) -> Array:
    """Samples and corners, fewer for networks that are costly to evaluate."""
    most = max(FEWEST_POINTS, POINT_MACS // max(1, network.macs))
    return sample_points(box, min(options.samples, most), min(options.corners, most), options.seed)


def replay(original: Network, reduction: Reduction) -> Network:
    """The reduced network again, from the original, the findings and the facts alone.

    Raises:
        ValueError: `original` is not the network that was reduced.
    """
    if network_digest(original) != reduction.original_digest:
        raise ValueError("the reduction was made from another network")
    if reduction.model is None:
        return original
    options = reduction.options
    small = rewritten(original, reduction.findings, reduction.facts, reduction.box, options)[0]
    network = read_back(small, original, chain=options.layout == "chain")[1]
    return read_back(replaced(network, reduction.refit), original)[1] if reduction.refit else network


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
    if options.preserve not in MODES:
        raise InputError(f"preserve {options.preserve}: must be one of {', '.join(MODES)}")
    unknown = [name for name in options.criteria if name not in CRITERIA]
    if unknown:
        raise InputError(f"criterion {unknown[0]}: unknown; choose from {', '.join(CRITERIA)}")
    wrong = [name for name in options.criteria if options.preserve not in CRITERIA[name].keeps]
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
    if options.layout not in {"auto", "chain"}:
        raise InputError(f"layout {options.layout}: unknown; choose auto or chain")
    if options.fewest not in {"latency", "parameters", "relus"}:
        raise InputError(f"fewest {options.fewest}: unknown; choose latency, parameters or relus")
    if options.refit and options.layout == "chain":
        raise InputError("refit: not with --layout chain; give one of the two")
    if options.refit and options.preserve != "tolerance":
        raise InputError("refit: only --preserve tolerance lets the output layer change")
    if options.time_limit is not None and not options.time_limit > 0:
        raise InputError(f"time limit {options.time_limit}: must be a positive number of seconds")


class _Clock:
    """What is left of the time of the search, in wall time where there is a limit, else in CPU time."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.cpu_end = time.process_time() + BUDGETS[problem.options.effort].seconds

    def running(self) -> AbstractContextManager[None]:
        """Ends the block with `TimeUp` when the time is over."""
        if self.problem.deadline is not None:
            late = self.problem.deadline + _LATE * self.margin()
            return ended_after(wall=max(_LEAST, late - time.monotonic()))
        return ended_after(cpu=self.cpu_end - time.process_time())

    def margin(self) -> float:
        """Seconds between the deadline of the search and the end."""
        assert self.problem.deadline is not None
        assert self.problem.end is not None
        return self.problem.end - self.problem.deadline


def _searched(problem: Problem, timings: dict[str, float], *, named: bool) -> Known:
    """What all steps found; a step that cannot follow the network is passed over, unless it was asked for by name."""
    problem.progress("evaluating points")
    begin = time.perf_counter()
    known = Known(seen_at(problem.network, problem.points))
    timings["points"] = time.perf_counter() - begin
    begin = time.perf_counter()
    clock = _Clock(problem)
    try:
        with clock.running():
            if decided_at_once(problem, known):
                timings["result"] = time.perf_counter() - begin
                return known
    except (Unsupported, TimeUp):
        known.bounds = None  # the step itself says what it cannot follow
    for name in problem.options.criteria:
        if name != "phase" and problem.deadline is not None and time.monotonic() > problem.deadline:
            known.notes.append(f"{name}: time limit")
            continue
        problem.progress(f"criterion {name}")
        begin = time.perf_counter()
        try:
            with clock.running():
                CRITERIA[name].search(problem, known)
        except TimeUp:
            known.notes.append(f"{name}: time limit")
        except Unsupported as reason:
            if named or name == "phase":
                raise
            known.notes.append(f"{name}: {reason}")
        timings[name] = time.perf_counter() - begin
    return known
