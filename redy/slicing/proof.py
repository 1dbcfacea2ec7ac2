"""What is stated about a family is proved about its file: every slice, as it is read back, against the model.

A slice of the file is a program with the very numbers that are evaluated. In the shared form, where the weights are the
model's, it has the model's outputs if it leaves out only units that the search has proved to be inactive there. Where
weights were multiplied or rounded, or units are lines, one linear pass over the difference of the two on the closed box
of the slice bounds how far the outputs are from the model's. A constant slice is proved to have the winner that the
search has proved. What fails is undone slice by slice: lines first, then the winner, then the phases, until the
original itself stands there.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redy.bounds.difference import Partners, difference_bounds
from redy.bounds.linear import linear_bounds
from redy.errors import CheckFailed
from redy.model import Activate, Array, Box, Network, Proved, Within
from redy.questions.compare import Hints, prove_files
from redy.questions.query import outputs
from redy.reduction.guarantee import rounding
from redy.runs.executor import Executor, chunked
from redy.slicing.family import Family
from redy.slicing.masks import KEPT, Codes, by_activation, pack, unpack
from redy.slicing.program import network_of
from redy.slicing.saved import family_bytes, read_family
from redy.slicing.tail import hidden_box
from redy.slicing.work import SliceRecord

CHUNK = 64
"""Slices sent to a worker at once."""
POINTS = 16
"""Points on which partners are looked for, and both are compared."""
INACTIVE = 0
"""The code of a ReLU that is stuck inactive."""


@dataclass(frozen=True, eq=False)
class SliceProof:
    """A picklable function of a slice's number: the largest error that is proved for it; infinity where none is.

    Attributes:
        network: what was sliced, as it was read from the model's file.
        file: the family's file.
        records: per slice what the search has proved about `network`.
    """

    network: Network
    file: bytes
    records: tuple[SliceRecord, ...]

    @cached_property
    def family(self) -> Family:
        """As it is read from the file."""
        return read_family(io.BytesIO(self.file))

    @cached_property
    def exact(self) -> bool:
        """Whether the weights of the shared form are the model's, bit for bit."""
        whole = network_of(self.family.whole, self.network)
        return not any(end.any() for end in difference_bounds(self.network, whole, self.family.cut.box, {}))

    def __call__(self, index: int) -> float:
        """The error of one slice."""
        family, record = self.family, self.records[index]
        if family.winner is not None and family.winner[index] >= 0:
            return self._error_of_constant(int(family.winner[index]), record)
        box, small = family.cut.cell(index), network_of(family.program(index), self.network)
        exact = family.form == "shared" and self.exact and family.lines is None and self._leaves_out_inactive(index)
        if exact and math.isfinite(most_allowed(self.network, small, box)):
            return 0.0
        known = known_phases(self.network, box, _codes(record, self.network))
        return proved_error(self.network, small, box, known, family.tolerance)

    def _leaves_out_inactive(self, index: int) -> bool:
        """Whether the units that the slice leaves out are proved to be inactive."""
        left_out = self.family.codes(int(self.family.slice_mask[index])) == INACTIVE
        return bool((_codes(self.records[index], self.network)[left_out] == INACTIVE).all())

    def _error_of_constant(self, winner: int, record: SliceRecord) -> float:
        """0 where the constants in the file have the winner that the search has proved to be the model's."""
        claim = self.family.decision
        if claim is None or record.winner < 0:
            return math.inf
        values = self.family.constants[winner] * (1 if claim.winner == "max" else -1)
        return 0.0 if (np.delete(values, record.winner) < values[record.winner]).all() else math.inf


def known_phases(network: Network, box: Box, codes: Codes | None) -> dict[str, tuple[Array, Array]]:
    """Sound bounds of pre-activations: linear bounds, and the pieces in which units are proved to be stuck."""
    known = dict(linear_bounds(network, box, leave_unsupported=True).intervals)
    for node, mine in by_activation(network, codes) if codes is not None else ():
        if node.name in known:
            known[node.name] = within_pieces(node, mine, known[node.name])
    return known


def _codes(record: SliceRecord, network: Network) -> Codes:
    """In which pieces units are, as the search has proved it."""
    codes: Codes = unpack(np.frombuffer(record.mask, dtype=np.uint8)[None], network.units)[0]
    return codes


def within_pieces(node: Activate, codes: Codes, range_: tuple[Array, Array]) -> tuple[Array, Array]:
    """The range of pre-activations, no wider than the pieces in which units are stuck."""
    function = node.function.broadcast_to(node.shape)
    breaks = function.breakpoints.reshape(function.pieces - 1, -1)
    ends = np.concatenate([np.full((1, codes.size), -np.inf), breaks, np.full((1, codes.size), np.inf)])
    piece, at = np.where(codes == KEPT, 0, codes).astype(np.int64), np.arange(codes.size)
    low = np.where(codes == KEPT, -np.inf, ends[piece, at]).reshape(node.shape)
    high = np.where(codes == KEPT, np.inf, ends[piece + 1, at]).reshape(node.shape)
    # Bounds that contradict a proof can only do so by their rounding.
    return np.minimum(np.maximum(range_[0], low), high), np.maximum(np.minimum(range_[1], high), low)


def proved_error(
    original: Network,
    small: Network,
    box: Box,
    known: dict[str, tuple[Array, Array]],
    tolerance: tuple[float, ...] | None,
) -> float:
    """The largest proved difference of any output; infinity without a bound, or beyond what is allowed.

    That is the tolerance; without one see `most_allowed`.
    """
    most = most_allowed(original, small, box) if tolerance is None else math.inf
    if math.isnan(most):
        return math.inf
    low, high = difference_bounds(original, small, box, known, partners(original, small, box))
    bound = np.maximum(np.maximum(-low, high), 0.0)
    if tolerance is None or (bound <= tolerance).all():
        error = float(bound.max(initial=0.0))
        return error if error <= most else math.inf
    claim = Within(np.array(tolerance))
    points = box.sample(256, np.random.default_rng(0))
    if isinstance(prove_files(original, small, box, claim, Hints(known, points)), Proved):
        return float(claim.tolerance.max(initial=0.0))
    return math.inf


def most_allowed(original: Network, small: Network, box: Box) -> float:
    """The range of the outputs at points of the box; a bound beyond it says nothing.

    NaN where the two differ at a point by more than rounding may change outputs.
    """
    points = box.sample(POINTS, np.random.default_rng(0))
    before, after = outputs(original, points), outputs(small, points)
    rounded = rounding(original) * max(float(np.abs(before).max(initial=0.0)), 1e-30)
    if not np.abs(after - before).max(initial=0.0) <= rounded:
        return math.nan
    return max(float(np.ptp(before, axis=0).max(initial=0.0)), rounded)


def partners(original: Network, small: Network, box: Box) -> Partners:
    """Per unit of the small network the original's with the nearest pre-activation at points of the box."""
    points = box.sample(POINTS, np.random.default_rng(0))
    ours, theirs = original.trace(points), small.trace(points)
    values = [ours[node.source].reshape(len(points), -1) for node in original.activations]
    found: dict[str, dict[str, NDArray[np.int64]]] = {}
    for node in small.activations:
        wanted = theirs[node.source].reshape(len(points), -1)
        apart = np.full((len(values), wanted.shape[1]), np.inf)
        index = np.zeros(apart.shape, dtype=np.int64)
        for k, candidates in enumerate(values):
            distance = np.abs(candidates[:, :, None] - wanted[:, None, :]).max(axis=0)
            index[k], apart[k] = distance.argmin(axis=0), distance.min(axis=0)
        best = apart.argmin(axis=0)
        near = apart.min(axis=0) <= 0.5 * np.abs(wanted).max(axis=0)
        found[node.name] = {
            other.name: np.where(near & (best == k), index[k], -1) for k, other in enumerate(original.activations)
        }
    return found


def proved(
    model: Network,
    network: Network,
    records: list[SliceRecord],
    build: Callable[[list[SliceRecord]], Family],
    executor: Executor,
    progress: Callable[[int, int], None] | None = None,
) -> Family:
    """The family whose file is proved, with its error.

    Args:
        model: as it was read from its file.
        network: what was sliced: the model, or the part of it behind a layer.
        records: per slice what the search has proved about `network`.
        build: makes the family of such records.
        executor: where slices are proved.
        progress: called with how many slices are done, and how many there are.

    Raises:
        CheckFailed: not even the original itself is proved to be the original.
    """
    open_slices, errors = list(range(len(records))), np.zeros(len(records))
    check_front(model, build(records))
    while open_slices:
        family = build(records)
        work = SliceProof(network, family_bytes(family), tuple(records))
        failed = []
        for done, (index, error) in enumerate(executor.run(work, chunked(open_slices, CHUNK)), start=1):
            errors[index] = error
            failed += [] if math.isfinite(error) else [index]
            if progress:
                progress(done, len(open_slices))
        for index in failed:
            records[index] = _less(records[index], network, index)
        open_slices = failed
    return replace(family, error=float(errors.max(initial=0.0)))


def check_front(model: Network, family: Family) -> None:
    """What comes before the sliced layer, and what is sliced, are together the model; the hidden box holds its values.

    Raises:
        CheckFailed: they are not, or it does not; nothing was written.
    """
    front, tail = family.front, family.network
    if front is None:
        return
    layer = front.network.outputs[0].name
    joined = Network(front.network.input, (*front.network.nodes, *tail.nodes), tail.outputs)
    low, high = difference_bounds(model, joined, front.box, {})
    box = hidden_box(front.network, front.box, layer)
    inside = (family.cut.box.lower <= box.lower).all() and (box.upper <= family.cut.box.upper).all()
    if low.any() or high.any() or not inside:
        raise CheckFailed(f"the parts before and behind {layer} are not proved to be the model; nothing was written")


def _less(record: SliceRecord, network: Network, index: int) -> SliceRecord:
    """The record without what was found last."""
    nothing = pack(np.full(network.units, KEPT, dtype=np.uint8))
    if record.lines:
        return replace(record, lines=b"", relaxed=0)
    if record.winner >= 0:
        return replace(record, winner=-1)
    if record.mask == nothing:
        raise CheckFailed(f"slice {index}: the file does not hold the model; nothing was written")
    return replace(record, mask=nothing, stuck=0)
