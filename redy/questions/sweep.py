"""Linear bounds for thousands of boxes: neighbours share one condensed form over their hull.

Boxes are grouped by halving along the input in which their centres are spread most, until a group is small. The form
over the hull of a group holds for each of its boxes, and one compiled call bounds the rows in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from redy.condensed.phases import root_bounds
from redy.condensed.search import Rows
from redy.model import Array, Box, Conjunction, Limits, Network
from redy.questions.constraints import NAME, constrained

GROUP = 128
"""Boxes of one group, at most."""


def sweep(
    network: Network, boxes: Sequence[Box], asked: Sequence[Sequence[Conjunction]], limits: Limits
) -> list[list[bool]]:
    """For every box and each of its conjunctions: whether linear bounds show that it is not met there.

    Args:
        network: the network, which can be condensed.
        boxes: the boxes.
        asked: per box the conjunctions asked about.
        limits: what the deadline leaves out counts as not shown.
    """
    closed = [[False] * len(group) for group in asked]
    lower, upper = (np.stack([getattr(box, end).ravel() for box in boxes]) for end in ("lower", "upper"))
    for members in _groups(lower, upper, np.arange(len(boxes))):
        if limits.expired():
            break
        _bound(network, boxes[0].shape, (lower[members], upper[members]), members, asked, closed)
    return closed


def _groups(lower: Array, upper: Array, members: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    if len(members) <= GROUP:
        yield members
        return
    centers = lower[members] / 2 + upper[members] / 2
    axis = int((centers.max(axis=0) - centers.min(axis=0)).argmax())
    order = members[np.argsort(centers[:, axis], kind="stable")]
    yield from _groups(lower, upper, order[: len(order) // 2])
    yield from _groups(lower, upper, order[len(order) // 2 :])


def _bound(
    network: Network,
    shape: tuple[int, ...],
    ends: tuple[Array, Array],
    members: NDArray[np.int64],
    asked: Sequence[Sequence[Conjunction]],
    closed: list[list[bool]],
) -> None:
    lo, hi = (np.ascontiguousarray(end) for end in ends)
    hull = Box(lo.min(axis=0).reshape(shape), hi.max(axis=0).reshape(shape))
    places = [(int(box), k) for box in members for k in range(len(asked[box]))]
    behind, numbers = constrained(network, [asked[box][k] for box, k in places])
    walk = root_bounds(behind, hull, {})
    rows = Rows.of(walk.condensed, walk.forms[NAME])
    want = np.zeros((len(members), rows.count), dtype=np.int8)
    at = {int(box): k for k, box in enumerate(members)}
    for (box, _), own in zip(places, numbers, strict=True):
        want[at[box], rows.variables + own] |= 1
    zlo, zhi = (np.repeat(ends, len(members), axis=0) for ends in (rows.zlo, rows.zhi))
    low, _, _, _ = rows.bound(lo, hi, zlo, zhi, want)
    for (box, k), own in zip(places, numbers, strict=True):
        closed[box][k] = bool((low[at[box], own] >= 0).any())
