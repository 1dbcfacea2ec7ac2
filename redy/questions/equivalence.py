"""Are two networks equivalent on a box? Points first, then bounds, then the engines of `redy.questions.query`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.bounds.linear import linear_bounds
from redy.condensed.joint import check_ports
from redy.condensed.phases import phases
from redy.errors import Unsupported
from redy.model import Array, Box, Network, Proved, Refuted, Verdict
from redy.model.claims import Comparison
from redy.questions.compare import Hints, prove_files
from redy.questions.phases import PhaseSettings, decide_phases
from redy.questions.query import Query, outputs, violation
from redy.questions.seen import sample_points, seen_at
from redy.questions.simulate import ascend
from redy.questions.situation import Engine, Engines, few_inputs

POINT_MACS = 500_000_000
POINTS = 5_000
"""Points from which large differences are looked for."""
WORK = 3_000_000_000
"""Work on thresholds."""
PHASE_WORK = 200_000_000
"""Work for bounds of the original; tighter bounds make the query smaller."""
_STARTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Two networks on a box, and points of it.

    Attributes:
        points: (m, *input shape) samples and corners.
        scale: the largest |output| of the original at the points.
    """

    original: Network
    reduced: Network
    box: Box
    points: Array
    scale: float

    @property
    def outputs(self) -> int:
        """The number of output elements."""
        return sum(math.prod(port.shape) for port in self.original.outputs)


def prepare(original: Network, reduced: Network, box: Box, seed: int) -> Prepared:
    """Points and the scale of the outputs.

    Raises:
        InputError: the networks do not fit together.
    """
    check_ports(original, reduced)
    most = max(200, POINT_MACS // max(1, original.macs + reduced.macs))
    points = sample_points(box, min(20_000, most), min(1024, most), seed)
    return Prepared(original, reduced, box, points, max(float(np.abs(outputs(original, points)).max()), 1e-30))


def decide(
    prepared: Prepared,
    claim: Comparison,
    engine: Engine,
    deadline: float,
    units: Mapping[str, NDArray[np.int64]] | None = None,
) -> Verdict:
    """The verdict on a claim about two networks.

    Args:
        prepared: networks, box, points.
        claim: what is asked.
        engine: "branch", "milp" (which trusts the solver), or "auto" (see `redy.questions.ask`).
        deadline: `time.monotonic()` at which the search ends.
        units: see `redy.questions.compare.Hints`.
    """
    original, reduced, box = prepared.original, prepared.reduced, prepared.box
    if (point := _refuted(Query(original, reduced, box, claim), prepared.points)) is not None:
        return Refuted(point)
    known = dict(linear_bounds(original, box, leave_unsupported=True).intervals)
    if engine != "milp" and few_inputs(box):
        seen = {n: (a.copy(), b.copy()) for n, (a, b) in seen_at(original, prepared.points).items()}
        left = max(0.0, (deadline - time.monotonic()) / 3)
        with suppress(Unsupported):
            known = phases(original, box, known=known, seen=seen, budget=PHASE_WORK, time_limit=left).intervals
    points = prepared.points[-POINTS:]
    hints = Hints(known, points, units=units or {}, work=WORK, engines=Engines(engine), deadline=deadline)
    verdict = prove_files(original, reduced, box, claim, hints)
    if isinstance(verdict, Proved) or engine == "milp" or time.monotonic() >= deadline:
        return verdict
    # A reduction rests on what a longer search for phases shows, and so may its statement.
    until = time.monotonic() + (deadline - time.monotonic()) / 2
    settings = PhaseSettings("branch", deadline=until)
    try:
        tighter = decide_phases(original, box, seen_at(original, points), points, settings).bounds
    except Unsupported:
        return verdict
    return prove_files(original, reduced, box, claim, replace(hints, known=dict(tighter.intervals)))


def _refuted(query: Query, points: Array) -> Array | None:
    """A point where the claim fails, from points and from local search out of the worst of them."""
    broken = violation(query, points)
    if broken.max(initial=-np.inf) > 0:
        return np.asarray(points[int(broken.argmax())])
    apart = np.abs(outputs(query.original, points) - outputs(query.reduced, points)).max(axis=1)
    starts = points[np.argsort(-apart, kind="stable")[:_STARTS]]
    found = ascend(query.original, query.reduced, query.box, starts)
    broken = violation(query, found)
    return np.asarray(found[int(broken.argmax())]) if broken.max(initial=-np.inf) > 0 else None
