"""What is stated about a reduced network as it was read back from its file, and the proof of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from redy.errors import CheckFailed
from redy.model import Array, Box, Network, Proved, SameWinner, Within
from redy.questions.compare import BOXES, TIGHTENING, Apart, Hints, by_port, compare, prove_files
from redy.questions.query import outputs
from redy.questions.situation import Engines, few_inputs
from redy.reduction.criteria import keeps_outputs
from redy.reduction.problem import Guarantee, Known, Preserve, Problem
from redy.reduction.promise import Decision, Tolerance

ROUNDING = {"float16": 2e-2, "bfloat16": 1e-1}
ROUNDING_USUALLY = 1e-4
"""The share of the largest output by which rounding may change outputs where these are to be preserved."""
_LAST = 0.3
"""The share of the time behind the search that is left when tightening ends."""
CHECKED = 2048
"""At how many points the reduced network is compared with the original before it is given back."""
RELAXED_WORK = 1_500_000_000
"""Work on thresholds where a tolerance is promised: how much of it is used is what the user wants to know."""
DECISION_BOXES, DECISION_WORK = 500, 50_000_000
"""How much is cut where the decision alone is promised: by how much the outputs move does not matter."""


class Exceeded(Exception):
    """The network in the file does not keep what the mode promises, by the bounds that redy has."""


def rounding(network: Network) -> float:
    """The share of the largest output by which rounding may change outputs in the type of the network's weights."""
    return ROUNDING.get(network.weight_dtype, ROUNDING_USUALLY)


def unchanged(network: Network, box: Box, preserve: Preserve) -> Guarantee:
    """The guarantee for a file that holds the original network itself."""
    nothing = np.zeros(sum(int(np.prod(port.shape)) for port in network.outputs))
    error, found = by_port(network, nothing), by_port(network, nothing)
    points = by_port(network, np.broadcast_to(box.center, (len(nothing), *box.shape)))
    statement = "The file holds the original network, unchanged."
    return Guarantee(statement, preserve, error, (), Within(nothing), found, points)


def state(problem: Problem, known: Known, written: Network, units: Mapping[str, NDArray[np.int64]]) -> Guarantee:
    """The guarantee for the network that was read back from the file, proved about it and the original.

    `units` says which units of the original stand in the activations of the written network, where that is known.

    Raises:
        Exceeded: what the mode promises is not proved for the file.
    """
    believed = [f.verdict.proof.trusted for f in known.findings if isinstance(f.verdict, Proved)]
    believed += [known.bounds.trusted] if known.bounds is not None else []
    hints = replace(_hints(problem, known), units=units)
    decides = isinstance(problem.promise, Decision)
    only_rounded = all(keeps_outputs(finding.kind) for finding in known.findings)
    promised = _decision(problem, written, hints) if decides and not only_rounded else None
    apart = compare(problem.network, written, problem.box, hints)
    if decides and only_rounded:
        promised = _decision_by_size(problem, apart) or _decision(problem, written, hints)
    if promised is not None:
        believed += [promised[1]]
    else:
        _check_size(problem, apart)
    trusted = tuple(dict.fromkeys(name for names in believed for name in names))
    if not apart.complete and few_inputs(problem.box) and promised is None:
        known.notes.append(
            "The error bound may be loose: the search stopped before it closed the gap to the largest observed error."
        )
    claim = Within(apart.bound) if promised is None else promised[0]
    error = by_port(problem.network, apart.bound) if np.isfinite(apart.bound).all() else None
    return Guarantee(
        _statement(problem, claim, apart, trusted),
        problem.options.preserve,
        error,
        trusted,
        claim,
        by_port(problem.network, apart.found),
        by_port(problem.network, apart.points),
    )


def _hints(problem: Problem, known: Known) -> Hints:
    options, kinds = problem.options, {finding.kind for finding in known.findings}
    hints = Hints(
        known=dict(known.bounds.intervals) if known.bounds is not None else {},
        points=problem.points,
        winner=known.winner,
        engines=Engines(options.engine, options.solver, options.trust),
        boxes=0 if problem.lean else int(problem.work * BOXES),
        work=0 if problem.lean else int(problem.work * TIGHTENING),
        deadline=problem.end
        if problem.end is None
        else problem.end - _LAST * (problem.end - (problem.deadline or 0.0)),
    )
    if problem.lean:
        return hints
    if isinstance(problem.promise, Tolerance):
        return replace(
            hints,
            likely=problem.promise.allowed,
            work=int(problem.work * RELAXED_WORK) if "relaxed" in kinds else hints.work,
        )
    if isinstance(problem.promise, Decision) and kinds != {"phase"}:
        return replace(hints, boxes=DECISION_BOXES, work=DECISION_WORK)
    return hints


def _decision(problem: Problem, written: Network, hints: Hints) -> tuple[SameWinner, tuple[str, ...]]:
    """The claim about the decision, proved for the file, and what was trusted for it."""
    assert isinstance(problem.promise, Decision)
    claim = replace(problem.promise.claim, ahead=0.0)
    verdict = prove_files(problem.network, written, problem.box, claim, hints)
    if not isinstance(verdict, Proved):
        raise Exceeded("that the decision is kept could not be proved for the written file")
    return claim, verdict.proof.trusted


def _decision_by_size(problem: Problem, apart: Apart) -> tuple[SameWinner, tuple[str, ...]] | None:
    """Where only rounding moves the outputs, what their bound says about the decision.

    A margin that nobody named is widened to what rounding moves; None where one was named and the bound exceeds it.
    """
    _check_size(problem, apart)
    assert isinstance(problem.promise, Decision)
    claim = problem.promise.claim
    drift = 2 * float(apart.bound.max(initial=0.0)) * (1 + 2.0**-40)
    if drift > claim.margin and problem.options.margin is not None:
        return None
    return replace(claim, margin=max(claim.margin, drift), ahead=0.0), ()


def _check_size(problem: Problem, apart: Apart) -> None:
    """Raise Exceeded unless the bound keeps the promise: the tolerance, or at most the range of the outputs."""
    if isinstance(problem.promise, Tolerance):
        if not (apart.bound <= problem.promise.allowed).all():
            raise Exceeded("the bound of the error of the written file exceeds the tolerance")
        return
    if not np.isfinite(apart.bound).all():
        raise Exceeded("there is no bound of the error of the written file")
    values = outputs(problem.network, problem.points)
    scale = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), 1e-30)
    if not (apart.found <= rounding(problem.network) * scale).all():
        raise Exceeded("the written file differs from the original by more than rounding")
    finite = np.where(np.isfinite(values), values, 0.0)
    span = max(float(np.ptp(finite, axis=0).max(initial=0.0)), rounding(problem.network) * scale)
    if not (apart.bound <= span).all():
        raise Exceeded("the bound of the error of the written file exceeds the range of the outputs")


def _statement(problem: Problem, claim: Within | SameWinner, apart: Apart, trusted: tuple[str, ...]) -> str:
    """The claim in one sentence."""
    belief = f", trusting {', '.join(trusted)}" if trusted else ""
    error, met = float(apart.bound.max(initial=0.0)), float(apart.found.max(initial=0.0))
    size = f"by at most {error:.3g} (the largest difference found is {met:.3g})"
    where = "For every input of the box, in real arithmetic on the numbers in the two files,"
    if isinstance(claim, Within):
        allowed = f", {problem.promise}" if isinstance(problem.promise, Tolerance) else ""
        return f"{where} every output differs from the original's {size}{allowed}{belief}."
    which = "largest" if claim.winner == "max" else "smallest"
    bounded = np.isfinite(error) and error <= 1e3 * max(met, 1e-30)
    moved = f", while the outputs may change {size}" if bounded else ""
    return (
        f"{where} the {which} output of the original stays the {which} wherever it leads by more than "
        f"{claim.margin:.3g}{moved}{belief}."
    )


def check_points(problem: Problem, small: Network, guarantee: Guarantee) -> None:
    """What was proved must hold at the points, up to the rounding of float64 evaluation.

    Raises:
        CheckFailed: it does not.
    """
    if guarantee.error is None:
        return
    names = [port.name for port in problem.network.outputs]
    before, after = (network.trace(problem.points[:CHECKED], names) for network in (problem.network, small))
    for name in names:
        first, second = before[name], after[name]
        scale = 1.0 + float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
        # Where the original itself gives no number, the same is no difference.
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        with np.errstate(invalid="ignore"):
            near = np.abs(first - second) <= guarantee.error[name] + 1e-9 * scale
        if not (same | near).all():
            raise CheckFailed(
                f"output {name}: a point violates the guarantee of the reduced network; nothing was written"
            )


def largest(errors: Mapping[str, Array]) -> float:
    """The largest error of any output."""
    return max((float(np.max(error)) for error in errors.values() if error.size), default=0.0)
