"""One network, one box: find what is not needed, fold it away, and state what was preserved.

    points -> criteria (phase, ...) -> findings -> rewriting -> rounding -> guarantee

Every criterion is a step with one signature: it gets the problem and what is known so far and adds findings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from redy.bounds.linear import linear_bounds
from redy.bounds.result import Bounds
from redy.errors import CheckFailed, InputError
from redy.milp.solver import Choice
from redy.model import Array, Box, Finding, Network, Proved, Unit
from redy.model.digest import network_digest
from redy.redundancy.phase import Engine, PhaseSettings, find_phases
from redy.redundancy.seen import Seen, sample_points, seen_at
from redy.rewrite import Refusal, Shrunk, deviation, is_channel, round_weights, shrink

Preserve = Literal["outputs", "decision", "tolerance"]
Winner = Literal["max", "min"]
Progress = Callable[[str], None]


SEARCH_SHARE = 0.8
"""Which share of the time limit the search may take."""
POINT_MACS = 200_000_000
FEWEST_POINTS = 200
"""Samples and corners are limited to this number of multiply-adds each, but not below this number of points."""
CHECKED = 2048
"""At how many points the reduced network is compared with the original before it is given back."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; the words are those of `redy reduce`.

    Attributes:
        preserve: "outputs", "decision" or "tolerance".
        criteria: the steps, in order.
        engine: how questions are answered.
        solver: which solver is asked.
        trust: count a solver's dual bound although redy did not re-derive it.
        tolerance: the largest change of an output, for "tolerance".
        winner: whether the largest or the smallest output wins, for "decision".
        time_limit: seconds for the whole run.
        seed: of every random choice.
        samples: points drawn from the box.
        corners: corners of the box tried, at most.
        budget: work that branching may do, in its own units (deterministic); by default what the engine takes.
    """

    preserve: Preserve = "outputs"
    criteria: tuple[str, ...] = ("phase",)
    engine: Engine = "auto"
    solver: Choice = "auto"
    trust: bool = False
    tolerance: float | None = None
    winner: Winner = "max"
    time_limit: float | None = None
    seed: int = 0
    samples: int = 4096
    corners: int = 1024
    budget: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What stays fixed while criteria search."""

    network: Network
    box: Box
    options: Options
    points: Array
    deadline: float | None
    progress: Progress


@dataclass(slots=True)
class Known:
    """What the steps so far have found; each step adds to it.

    Attributes:
        seen: what points show of every pre-activation.
        bounds: sound bounds of the original's pre-activations, once a step has made them.
        findings: in the order in which they apply.
        undecided: units whose question is open.
        stats: per step what it did.
        claims: what a step proved about the network with its findings, where that is not plain equality of outputs;
            a step that adds findings of another kind than "phase" must say here what they preserve.
        notes: what kept a step from doing more.
    """

    seen: Seen
    bounds: Bounds | None = None
    findings: list[Finding] = field(default_factory=list)
    undecided: list[Unit] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Criterion = Callable[[Problem, Known], None]


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What was preserved, in words and numbers.

    Attributes:
        statement: the claim about real arithmetic on the written weights.
        preserve: which mode.
        error: per output a bound of |reduced - original| over the box, or None where redy has none.
        trusted: what was believed and not re-derived by redy.
    """

    statement: str
    preserve: Preserve
    error: Mapping[str, Array] | None
    trusted: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """The result of `reduce`.

    Replaying `findings` on the original gives `network` bit for bit (`replay`).
    """

    original: Network
    original_digest: str
    box: Box
    options: Options
    findings: tuple[Finding, ...]
    network: Network
    guarantee: Guarantee
    undecided: tuple[Unit, ...]
    units: Mapping[str, Any]
    timings: Mapping[str, float]
    stats: Mapping[str, Any]
    notes: tuple[str, ...]
    bounds: Bounds | None = None


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


CRITERIA: dict[str, Criterion] = {"phase": phase_criterion}
"""Name, as in `--criteria` -> the step."""


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
    winner: Winner = "max",
    time_limit: float | None = None,
    seed: int = 0,
    samples: int = 4096,
    budget: int | None = None,
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
        criteria: the steps, in order; by default those that the mode has.
        tolerance: for "tolerance".
        winner: for "decision".
        time_limit: seconds for the whole run; what is undecided then stays in the network.
        seed: of every random choice; equal seeds give equal results.
        samples: points drawn from the box.
        budget: work that branching may do, in its own units (deterministic); by default what the engine takes.
        progress: called with one line per step.

    Raises:
        InputError: the options or the box do not fit the network.
        CheckFailed: an internal check failed; the result must not be used.
    """
    chosen = tuple(CRITERIA) if criteria is None else criteria
    options = Options(
        preserve, chosen, engine, solver, trust, tolerance, winner, time_limit, seed, samples=samples, budget=budget
    )
    _check_options(network, box, options)
    begin = time.perf_counter()
    # The search ends before the limit: folding, checking and writing come after it.
    deadline = None if time_limit is None else time.monotonic() + SEARCH_SHARE * time_limit
    problem = Problem(network, box, options, _points(network, box, options), deadline, progress or (lambda _: None))
    timings: dict[str, float] = {}
    known = _searched(problem, timings)
    small, shrunk = _rewritten(problem, known, timings)
    guarantee = _stated(problem, known, small, shrunk)
    _check_points(problem, small, guarantee)
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
        units=shrunk.units,
        timings=timings,
        stats=known.stats,
        notes=tuple(known.notes) if shrunk.refusal is None else (*known.notes, shrunk.refusal),
        bounds=known.bounds,
    )


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
    return _written(original, reduction.findings)[0]


def _check_options(network: Network, box: Box, options: Options) -> None:
    if box.shape != network.input.shape:
        raise InputError(f"the box has shape {box.shape}, the network's input has {network.input.shape}")
    unknown = [name for name in options.criteria if name not in CRITERIA]
    if unknown:
        raise InputError(f"criterion {unknown[0]}: there is none of this name; choose from {', '.join(CRITERIA)}")
    if options.tolerance is not None and not options.tolerance > 0:
        raise InputError(f"tolerance {options.tolerance}: must be a positive number")
    if (options.preserve == "tolerance") != (options.tolerance is not None):
        raise InputError("a tolerance is given exactly when the mode is 'tolerance'")
    if options.time_limit is not None and not options.time_limit > 0:
        raise InputError(f"time limit {options.time_limit}: must be a positive number of seconds")


def _searched(problem: Problem, timings: dict[str, float]) -> Known:
    problem.progress("evaluating points")
    begin = time.perf_counter()
    known = Known(seen_at(problem.network, problem.points))
    timings["points"] = time.perf_counter() - begin
    for name in problem.options.criteria:
        problem.progress(f"criterion {name}")
        begin = time.perf_counter()
        CRITERIA[name](problem, known)
        timings[name] = time.perf_counter() - begin
    return known


def _rewritten(problem: Problem, known: Known, timings: dict[str, float]) -> tuple[Network, Shrunk]:
    problem.progress("folding")
    begin = time.perf_counter()
    small, shrunk = _written(problem.network, tuple(known.findings))
    timings["rewrite"] = time.perf_counter() - begin
    if small.parameters > problem.network.parameters or small.macs > problem.network.macs:
        raise CheckFailed("the reduced network is larger than the original; this is a bug in redy, nothing was written")
    return small, shrunk


def _check_points(problem: Problem, small: Network, guarantee: Guarantee) -> None:
    """What was proved must hold at the points, up to the rounding of float64 evaluation.

    Raises:
        CheckFailed: it does not.
    """
    if problem.options.preserve == "decision":
        return
    names = [port.name for port in problem.network.outputs]
    before, after = (network.trace(problem.points[:CHECKED], names) for network in (problem.network, small))
    for name in names:
        scale = 1.0 + float(np.abs(before[name]).max(initial=0.0))
        bound = 1e-4 * scale if guarantee.error is None else guarantee.error[name] + 1e-9 * scale
        if problem.options.tolerance is not None:
            bound = bound + problem.options.tolerance
        if not (np.abs(before[name] - after[name]) <= bound).all():
            raise CheckFailed(
                f"output {name}: the reduced network leaves its guarantee at a point; nothing was written"
            )


def _written(network: Network, findings: tuple[Finding, ...]) -> tuple[Network, Shrunk]:
    """The network with the findings applied, folded and rounded; what could not be rewritten stays as it was."""
    channels = [finding for finding in findings if is_channel(network, finding)]
    shrunk = shrink(network, [finding for finding in findings if not is_channel(network, finding)])
    if isinstance(shrunk, Refusal):
        raise CheckFailed(shrunk.reason)
    written = round_weights(shrunk.network, network.weight_dtype)
    if isinstance(written, Refusal):
        shrunk = Shrunk.unchanged(network, shrunk.lined, written.reason)
    rounded = network if isinstance(written, Refusal) else written
    if not channels:
        return rounded, shrunk
    from redy.rewrite.channels import remove_channels  # noqa: PLC0415 - loads onnx, which dense networks do not need

    small = remove_channels(rounded, channels)
    if isinstance(small, Refusal):
        return rounded, replace(shrunk, refusal=small.reason)
    return small, shrunk


def _stated(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Guarantee:
    trusted = tuple(
        dict.fromkeys(
            name
            for finding in known.findings
            if isinstance(finding.verdict, Proved)
            for name in finding.verdict.proof.trusted
        )
    )
    error = _error(problem, known, small, shrunk)
    largest = None if error is None else max((float(np.max(e)) for e in error.values() if e.size), default=0.0)
    size = "by an amount that redy does not bound" if largest is None else f"by at most {largest:.3g}"
    if any(finding.kind != "phase" for finding in known.findings) and not known.claims:
        raise CheckFailed("a criterion removed units without saying what that preserves; nothing was written")
    statement = (
        "For every input of the box, in real arithmetic on the weights as written, every output differs from the "
        f"original's {size}, which is what folding and rounding the weights to {problem.network.weight_dtype} changes."
    )
    if not known.findings:
        statement = "No unit was removed; only what holds for every input was simplified. " + statement
    statement = " ".join([*known.claims, statement])
    belief = f" Trusted and not re-derived: {', '.join(trusted)}." if trusted else " Nothing is taken on trust."
    return Guarantee(statement + belief, problem.options.preserve, error, trusted)


def _error(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Mapping[str, Array] | None:
    if small is problem.network:
        return {port.name: np.zeros(port.shape) for port in problem.network.outputs}
    bounds = known.bounds or linear_bounds(problem.network, problem.box, leave_unsupported=True)
    errors = line_errors(problem.network, known.findings)
    found = deviation(shrunk.lined, small, shrunk.units, shrunk.merges, problem.box, bounds.intervals, errors)
    if isinstance(found, Refusal):
        known.notes.append(found.reason)
        return None
    return found


def line_errors(network: Network, findings: list[Finding]) -> dict[str, Array]:
    """Per activation with a line that is not exact: the error of every unit's line (flattened)."""
    errors: dict[str, Array] = {}
    for finding in findings:
        if finding.error and not is_channel(network, finding):
            size = math.prod(network.shapes[finding.unit.node])
            errors.setdefault(finding.unit.node, np.zeros(size))[finding.unit.index] = finding.error
    return errors
