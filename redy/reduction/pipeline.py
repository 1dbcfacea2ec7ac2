"""One network, one box: find what is not needed, fold it away, and state what was preserved.

    points -> criteria (phase, ...) -> findings -> rewriting -> rounding -> guarantee

Every criterion is a step with one signature: it gets the problem and what is known so far and adds findings.
"""

from __future__ import annotations

import time
from dataclasses import replace

from redy.errors import CheckFailed, InputError
from redy.milp.solver import Choice
from redy.model import Array, Box, Finding, Network
from redy.model.digest import network_digest
from redy.reduction.guarantee import check_points, state
from redy.reduction.problem import Criterion, Known, Options, Preserve, Problem, Progress, Reduction, Winner
from redy.redundancy.phase import Engine, PhaseSettings, find_phases
from redy.redundancy.seen import sample_points, seen_at
from redy.rewrite import Refusal, Shrunk, is_channel, round_weights, shrink

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
    guarantee = state(problem, known, small, shrunk)
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
