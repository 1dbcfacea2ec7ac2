"""The work of one slice: which units are stuck in one phase there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redy.condensed.form import Intervals
from redy.errors import InputError
from redy.model import Activate, Affine, Array, Box, Network
from redy.model.claims import SameWinner, Winner
from redy.model.digest import network_digest
from redy.questions.phases import ranges
from redy.questions.query import constant_winner, outputs
from redy.questions.seen import sample_points, seen_at
from redy.reduction.promise import MARGIN, output_range
from redy.rewrite.dense import flat_function
from redy.slicing.cuts import Cut
from redy.slicing.lines import find_lines, read_lines
from redy.slicing.masks import KEPT, Codes, codes_of, pack


def decision_of(network: Network, box: Box, winner: Winner, margin: float | None) -> SameWinner:
    """A decision; its margin is by default what `redy reduce` takes, a share of the largest output met in the box.

    Raises:
        InputError: the margin is not a positive number.
    """
    if margin is None:
        values = outputs(network, sample_points(box, 1024, 32, 0))
        margin = MARGIN * max(float(np.abs(values).max(initial=0.0)), 1e-30)
    if not 0 < margin < math.inf:
        raise InputError(f"margin {margin}: must be a positive number")
    return SameWinner(winner, margin)


def tolerance_of(
    network: Network, box: Box, tolerance: float, relative_to: Literal["box"] | None, seed: int
) -> tuple[float, ...]:
    """The tolerance of every output element: absolute, or a share of its range met on the box.

    Raises:
        InputError: it is not a positive number.
    """
    if not 0 < tolerance < math.inf:
        raise InputError(f"--tolerance {tolerance}: must be a positive number")
    if relative_to is not None:
        return tuple((tolerance * output_range(network, box, seed)).tolist())
    return (tolerance,) * sum(math.prod(port.shape) for port in network.outputs)


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """How each slice is searched; part of the digest that a resumed run must match.

    Attributes:
        budget: work of branching, per slice (`redy.condensed.phases`; 10^9 is a few seconds).
        samples: points drawn from the slice.
        corners: corners of the slice tried, at most.
        seed: of the sampling.
        time_limit: seconds for the search of a slice; a slice that needs more is *partial*. Results depend on the
            machine's speed only where it ends a search.
        decision: where given, slices are also asked whether this decision is constant there.
        tolerance: where given, units also become lines while each output element stays within its tolerance.
    """

    budget: int = 200_000_000
    samples: int = 1024
    corners: int = 32
    seed: int = 0
    time_limit: float | None = None
    decision: SameWinner | None = None
    tolerance: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """What is known of one slice.

    Attributes:
        index: its number in the cut.
        mask: the packed codes of all units (`redy.slicing.masks`).
        stuck: how many units are stuck in one phase.
        undecided: how many units neither a proof nor a point decided.
        complete: False where the time limit or the budget ended the search; the mask is sound all the same.
        boxes: sub-boxes bounded.
        seconds: CPU seconds of the worker.
        winner: the output that is proved to win on the whole slice; -1 where none is, or nobody asked.
        relaxed: how many more units became lines.
        lines: these (`redy.slicing.lines`), as bytes. They hold together with `mask`, and no part of them alone.
    """

    index: int
    mask: bytes
    stuck: int
    undecided: int
    complete: bool
    boxes: int
    seconds: float
    winner: int = -1
    relaxed: int = 0
    lines: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class SliceWork:
    """A picklable function of a slice's number: network, cut and options in, `SliceRecord` out."""

    network: Network
    cut: Cut
    options: SliceOptions

    def __post_init__(self) -> None:
        for node in self.network.nodes:
            if not isinstance(node, Affine | Activate):
                raise InputError(
                    f"{node.name}: a {type(node).__name__} node cannot be sliced; "
                    "slicing takes affine and piecewise-linear nodes only"
                )
            if self.options.tolerance and isinstance(node, Activate) and not flat_function(node).is_relu:
                raise InputError(f"{node.name}: is no ReLU; slices within a tolerance take ReLU only")

    @property
    def digests(self) -> dict[str, str]:
        """What the results depend on, each by name: model, box and cut, options."""
        cut = hashlib.sha256()
        for name, array in sorted(self.cut.arrays().items()):
            cut.update(f"{name}{array.dtype.str}{array.shape}".encode())
            cut.update(np.ascontiguousarray(array).tobytes())
        return {
            "model": network_digest(self.network),
            "box": self.cut.box.digest,
            "cut": cut.hexdigest(),
            "options": json.dumps(dataclasses.asdict(self.options), sort_keys=True),
        }

    def __call__(self, index: int) -> SliceRecord:
        """Points, then branching (few inputs) or linear bounds (many); then the decision."""
        return self.search(index, self.cut.cell(index))

    def search(self, index: int, box: Box) -> SliceRecord:
        """The record of a box, under a number."""
        begin, options = time.process_time(), self.options
        deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
        points = sample_points(box, options.samples, options.corners, options.seed)
        seen = seen_at(self.network, points)
        found = ranges(self.network, box, seen, budget=options.budget, time_limit=options.time_limit)
        intervals, complete = found.intervals, found.complete
        codes = codes_of(self.network, intervals)
        stuck = int((codes != KEPT).sum())
        winner = self._winner(box, points, intervals, deadline)
        lines, in_time = self._lines(box, points, codes, intervals, deadline)
        complete = complete and in_time
        seconds = time.process_time() - begin
        mask, more = pack(codes), lines.tobytes()
        return SliceRecord(
            index, mask, stuck, found.undecided, complete, found.boxes, seconds, winner, len(lines), more
        )

    def _lines(
        self, box: Box, points: Array, codes: Codes, known: Intervals, deadline: float | None
    ) -> tuple[NDArray[np.void], bool]:
        """Lines within the tolerance, none without one; whether the search ended before the time limit."""
        if self.options.tolerance is None:
            return read_lines(b""), True
        tolerance, budget = np.array(self.options.tolerance), self.options.budget // 10
        return find_lines(self.network, box, codes, known, points, tolerance, budget=budget, deadline=deadline)

    def _winner(self, box: Box, points: Array, known: Intervals, deadline: float | None) -> int:
        """The winner that points show everywhere and a proof confirms; -1 without one."""
        claim = self.options.decision
        if claim is None:
            return -1
        values = (1.0 if claim.winner == "max" else -1.0) * outputs(self.network, points)
        if len(values) and (values.argmax(axis=1) != values[0].argmax()).any():
            return -1
        budget = self.options.budget // 4
        best = constant_winner(self.network, box, claim, known, budget=budget, deadline=deadline)
        return -1 if best is None else best
