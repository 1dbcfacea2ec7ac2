"""What is stated about a reduced network, and the check that it holds at the points."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from redy.bounds.linear import linear_bounds
from redy.condensed.maximise import RATIO
from redy.errors import CheckFailed
from redy.model import Array, Finding, Network, Proved
from redy.reduction.problem import Guarantee, Known, Problem
from redy.reduction.steps import tolerances
from redy.reduction.written import Tight, keeps_decision, tight_error
from redy.rewrite import Refusal, Shrunk, deviation, is_channel

CHECKED = 2048
"""At how many points the reduced network is compared with the original before it is given back."""


class Exceeded(Exception):
    """The written network does not keep what the mode promises, by the bounds that redy has."""


def state(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Guarantee:
    """The guarantee for the network as written.

    Raises:
        CheckFailed: a step removed units for another reason than their phase and did not say what that preserves.
        Exceeded: rounding left less than the mode promises.
    """
    believed = [f.verdict.proof.trusted for f in known.findings if isinstance(f.verdict, Proved)]
    believed += [known.bounds.trusted] if known.bounds is not None else []
    trusted = tuple(dict.fromkeys(name for names in believed for name in names))
    analytic = error_bound(problem, known, small, shrunk)
    tight = tight_error(problem, known, small, shrunk)
    error = analytic if tight is None else _smaller(tight.bound, analytic)
    _require(problem, known, error, small, shrunk)
    if any(finding.kind != "phase" for finding in known.findings) and not known.claims:
        raise CheckFailed("a criterion removed units without saying what that preserves; nothing was written")
    if tight is not None and not tight.complete and _largest(tight.bound) > RATIO * _largest(tight.found):
        known.notes.append("error bound: tightening ended before it came near the largest difference met")
    statement = " ".join([*known.claims, _size(problem, known, error, tight)])
    if not known.findings:
        statement = "No unit was removed; only what holds for every input was simplified. " + statement
    belief = f" Trusted and not re-derived: {', '.join(trusted)}." if trusted else " Nothing is taken on trust."
    found, points = ({}, {}) if tight is None else (tight.found, tight.points)
    return Guarantee(statement + belief, problem.options.preserve, error, trusted, analytic, found, points)


def _size(problem: Problem, known: Known, error: Mapping[str, Array] | None, tight: Tight | None) -> str:
    """How far the outputs are from the original's, in words."""
    size = "by an amount that redy does not bound" if error is None else f"by at most {_largest(error):.3g}"
    if tight is not None:
        size = f"{size} (the largest difference met is {_largest(tight.found):.3g})"
    if any(finding.kind == "result" for finding in known.findings):
        return f"Only the decision is preserved: the outputs themselves change, {size}, in real arithmetic."
    cause = f", which is what folding and rounding the weights to {problem.network.weight_dtype} changes"
    return (
        "For every input of the box, in real arithmetic on the weights as written, every output differs from the "
        f"original's {size}{'' if known.claims else cause}."
    )


def _largest(errors: Mapping[str, Array]) -> float:
    return max((float(np.max(error)) for error in errors.values() if error.size), default=0.0)


def _smaller(tight: Mapping[str, Array], analytic: Mapping[str, Array] | None) -> Mapping[str, Array]:
    return tight if analytic is None else {name: np.minimum(tight[name], analytic[name]) for name in tight}


def _require(problem: Problem, known: Known, error: Mapping[str, Array] | None, small: Network, shrunk: Shrunk) -> None:
    """Raise Exceeded unless the network as written keeps what the mode promises."""
    kinds = {finding.kind for finding in known.findings}
    if "relaxed" in kinds:
        if error is None:
            raise Exceeded("relaxed redundancy was undone: there is no bound of the error of the written network")
        total = np.concatenate([error[port.name].ravel() for port in problem.network.outputs])
        if not (total <= tolerances(problem)).all():
            raise Exceeded("relaxed redundancy was undone: the bound of the written network exceeds the tolerance")
    if "result" in kinds and not keeps_decision(problem, known, small, shrunk):
        raise Exceeded("result-preserving redundancy was undone: rounded weights may change the decision")


def error_bound(problem: Problem, known: Known, small: Network, shrunk: Shrunk) -> Mapping[str, Array] | None:
    """Per output a bound of |reduced - original| over the box; None, with a note, where the rewriting gives none."""
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


def check_points(problem: Problem, small: Network, guarantee: Guarantee) -> None:
    """What was proved must hold at the points, up to the rounding of float64 evaluation.

    Raises:
        CheckFailed: it does not.
    """
    if problem.options.preserve == "decision" and guarantee.error is None:
        return
    names = [port.name for port in problem.network.outputs]
    before, after = (network.trace(problem.points[:CHECKED], names) for network in (problem.network, small))
    for name in names:
        scale = 1.0 + float(np.abs(before[name]).max(initial=0.0))
        bound = 1e-4 * scale if guarantee.error is None else guarantee.error[name] + 1e-9 * scale
        if not (np.abs(before[name] - after[name]) <= bound).all():
            raise CheckFailed(
                f"output {name}: the reduced network leaves its guarantee at a point; nothing was written"
            )
