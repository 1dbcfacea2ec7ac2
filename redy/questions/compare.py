"""Two networks as they were read from two files: how far apart they are, and whether a claim about both is proved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from redy.bounds.difference import WORK as DIFFERENCE_WORK
from redy.bounds.difference import difference_bounds
from redy.bounds.linear import form_bounds
from redy.bounds.result import Bounds
from redy.condensed.climb import Met
from redy.condensed.form import Intervals
from redy.condensed.joint import Pairs, bounded, join, nearest
from redy.condensed.maximise import RATIO, Largest, largest
from redy.condensed.search import Rows
from redy.errors import Unsupported
from redy.model import (
    Array,
    Box,
    Comparison,
    Limits,
    LinearBounds,
    Network,
    Proof,
    Proved,
    SameWinner,
    Unknown,
    Verdict,
)
from redy.questions.ask import ask
from redy.questions.query import outputs
from redy.questions.situation import Engines, Situation, few_inputs

BOXES = 2_000
"""Sub-boxes that are cut best first to tighten a bound."""
TIGHTENING = 300_000_000
"""Work on thresholds that tighten a bound (see `redy.condensed.maximise`), a second or two."""
MEMORY = 1 << 30
"""Bytes that the dense matrices of the condensed form of two networks may take."""
WINNER_WORK = 2_000_000_000
"""Work on the question whether the decision is kept."""
_PAIRING = 64
"""Points on which partners are looked for."""
LARGEST_POINTS = 1 << 22
"""Beyond so many numbers the point of the largest difference stands for those of all output elements."""

Errors = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """What makes a comparison cheaper or tighter; none of it can make it wrong, as long as `known` is sound.

    Attributes:
        known: sound pre-activation bounds of the first network on the box, by `Activate` name.
        points: (m, *input shape) points of the box; None: the centre.
        likely: per output element a bound that is likely to hold, tried first; or None.
        enough: a bound at most this large is not tightened; one number or one per output element.
        units: activation of the second network -> which units of the first one's activation of that name stand in it;
            others are paired by their values.
        winner: the output that wins on the whole box in the first network, where that is proved; or None.
        boxes: sub-boxes that may be cut best first.
        work: work on thresholds.
        engines: which engines may answer.
        deadline: `time.monotonic()` at which tightening ends; None for none.
    """

    known: Intervals = field(default_factory=dict)
    points: Array | None = None
    likely: Array | None = None
    enough: float | Array = 0.0
    units: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    winner: int | None = None
    boxes: int = BOXES
    work: int = TIGHTENING
    engines: Engines = field(default_factory=Engines)
    deadline: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """How far two networks are apart on a box; all arrays flattened, one entry per element of all outputs.

    Attributes:
        bound: of |y' - y|, sound; infinite where there is none.
        found: the largest difference met.
        points: (outputs, *input shape) where it was met.
        complete: whether the bound is within 5% of the largest difference met, or what rounding alone may be.
    """

    bound: Array
    found: Array
    points: Array
    complete: bool


def compare(first: Network, second: Network, box: Box, hints: Hints) -> Apart:
    """How far apart two networks with equal inputs and outputs are on a box.

    One linear pass over the difference bounds it (`redy.bounds.difference`); where that is not enough and few inputs
    vary, branching tightens the bound (`redy.condensed.maximise`), if the networks fit the condensed form.

    Raises:
        InputError: inputs or outputs differ in number or shape.
    """
    points = box.center[None] if hints.points is None else hints.points
    bound = _linear(first, second, box, hints)
    if not (bound <= hints.enough).all() and few_inputs(box) and fits(first, second, box, hints.known):
        try:
            found = _tightened(first, second, box, hints, points)
        except Unsupported:
            found = None
        if found is not None:
            where = box.clip(found.points.reshape(-1, *box.shape))
            # The value in the networks themselves, not in their condensed form.
            at = np.arange(len(where))
            met = np.abs(outputs(first, where) - outputs(second, where))[at, at]
            bound = np.minimum(found.bound, bound)
            return Apart(bound, met, where, found.complete or bool((bound <= RATIO * met).all()))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(outputs(first, points) - outputs(second, points))
    worst = apart.argmax(axis=0)
    met = apart[worst, np.arange(len(worst))]
    if points[0].size * len(worst) > LARGEST_POINTS:
        worst = np.full(len(worst), worst[int(met.argmax())])[:1]
    where = np.broadcast_to(points[worst], (len(met), *points.shape[1:]))
    return Apart(bound, met, where, bool((bound <= RATIO * met).all()))


def _linear(first: Network, second: Network, box: Box, hints: Hints) -> Array:
    low, high = difference_bounds(first, second, box, hints.known, limits=_limits(hints))
    return np.maximum(np.maximum(-low, high), 0.0)


def _limits(hints: Hints) -> Limits:
    return Limits(DIFFERENCE_WORK, math.inf if hints.deadline is None else hints.deadline)


def _tightened(first: Network, second: Network, box: Box, hints: Hints, points: Array) -> Largest | None:
    """The bound by branching; None where values are too large for it."""
    joint = join(first, second, box, hints.known, pairs(first, second, points, hints.units))
    rows = Rows.of(joint.condensed, joint.apart)
    if not (np.isfinite(rows.e).all() and np.isfinite(rows.base).all()):
        return None
    flat = points.reshape(len(points), box.size)
    if not hints.boxes:
        bound = np.maximum(*map(np.abs, bounded(joint.condensed, joint.apart)))
        met = Met(rows)
        met.see(flat)
        return Largest(bound, met.values, met.points, 1, bool((bound <= RATIO * met.values).all()))
    return largest(
        rows,
        flat,
        known=hints.likely,
        enough=hints.enough,
        boxes=hints.boxes,
        work=hints.work,
        deadline=hints.deadline,
    )


def fits(first: Network, second: Network, box: Box, known: Intervals) -> bool:
    """Whether the condensed form of two networks fits into `MEMORY`."""
    unstable = second.units
    for node in first.activations:
        unstable += (
            int((node.function.stuck(*known[node.name]) < 0).sum()) if node.name in known else math.prod(node.shape)
        )
    values = sum(math.prod(node.shape) for network in (first, second) for node in network.nodes)
    return 8 * values * (box.size + unstable) <= MEMORY


def pairs(first: Network, second: Network, points: Array, units: Mapping[str, NDArray[np.int64]]) -> Pairs:
    """Partners of the second network's units: those that stand in it, else those that are nearest on a few points."""
    starts, sizes, start = {}, {}, 0
    for node in first.activations:
        starts[node.name], sizes[node.name] = start, math.prod(node.shape)
        start += sizes[node.name]
    found: dict[str, NDArray[np.int64]] = {}
    for node in second.activations:
        home = node.name if node.name in starts else node.name.removesuffix("_units")
        index = np.asarray(units.get(node.name, ()), dtype=np.int64)
        if home in starts and index.size == math.prod(node.shape) and ((index >= 0) & (index < sizes[home])).all():
            found[node.name] = starts[home] + index
    if len(found) < len(second.activations):
        found = {**nearest(first, second, points[-_PAIRING:]), **found}
    return found


def prove_files(first: Network, second: Network, box: Box, claim: Comparison, hints: Hints) -> Verdict:
    """Whether a claim holds for two networks as they were read from two files.

    A certificate about the files (issued or checked) has its place behind a `Proved` verdict and before the second file
    gets its name.

    Args:
        first: the original, read from its file.
        second: the other one, read back from its file.
        box: the inputs.
        claim: `Within` or `SameWinner`.
        hints: what makes it cheaper.

    Raises:
        InputError: inputs or outputs differ in number or shape.
    """
    if isinstance(claim, SameWinner):
        if hints.winner is not None and _wins(second, box, claim, hints.winner):
            text = f"output {hints.winner} wins on the whole box in both networks"
            return Proved(Proof(text, "linear"))
        low, high = difference_bounds(first, second, box, hints.known, limits=_limits(hints))
        if _drifts_little(low, high, claim):
            return Proved(Proof(str(claim), "linear", (LinearBounds(low, high),)))
    else:
        apart = compare(first, second, box, replace(hints, enough=claim.tolerance, likely=claim.tolerance))
        if (apart.bound <= claim.tolerance).all():
            return Proved(Proof(str(claim), "difference", (LinearBounds(-apart.bound, apart.bound),)))
    if not fits(first, second, box, hints.known):
        return Unknown("linear bounds of the difference do not show it, and the networks are too large for a search")
    points = box.center[None] if hints.points is None else hints.points
    situation = Situation(
        first, box, second, hints.known, points, pairs(first, second, points, hints.units), engines=hints.engines
    )
    deadline = math.inf if hints.deadline is None else hints.deadline
    try:
        return ask(claim, situation, Limits(WINNER_WORK, deadline))
    except Unsupported as error:
        return Unknown(str(error))


def _wins(network: Network, box: Box, claim: SameWinner, winner: int) -> bool:
    """Whether linear bounds show that an output wins in a network on the whole box."""
    port = network.outputs[0]
    others = [o for o in range(math.prod(port.shape)) if o != winner]
    forms = np.zeros((len(others), len(others) + 1))
    forms[:, winner] = 1.0 if claim.winner == "max" else -1.0
    forms[np.arange(len(others)), others] = -forms[:, winner]
    try:
        lower, _ = form_bounds(network, Bounds(box, {}, "none"), port.name, forms.reshape(-1, *port.shape))
    except Unsupported:
        return False
    return bool((lower > 0).all())


def _drifts_little(low: Array, high: Array, claim: SameWinner) -> bool:
    """Whether no lead y_i - y_o changes by the margin: then whoever leads by more still leads."""
    return bool((high.max() - low.min()) * (1 + 2.0**-50) <= claim.margin)


def by_port(network: Network, flat: Array) -> Errors:
    """Rows, one per output element of all outputs, by output."""
    result, start = {}, 0
    for port in network.outputs:
        size = math.prod(port.shape)
        result[port.name] = flat[start : start + size].reshape(*port.shape, *flat.shape[1:])
        start += size
    return result
