r"""Which linear units to keep as units and which to replace by skip connections, by counted cost.

Every layer l with linear units has two forms. *Keep*: they stay units (of the layer's rank), and readers see a block of
that many columns. *Skip*: they are folded away, z_r = ... + W_r diag(a) W_l (sources of l), so that every reader of
the layer also reads what the layer reads. Which is cheaper depends on the neighbours: skips through several layers add
up to blocks of each layer with each later one, while one kept narrow layer caps the rank of everything that passes it.
So the choice is made jointly, by counting

    cost(choice) = 2 sum over nodes (rows * columns read) + rows      (multiply-adds plus stored numbers)
                   + joined per further value that a node reads,

exhaustively for few layers, by coordinate descent from both extremes otherwise. Deterministic: ties go to fewer blocks,
then to the first choice in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXHAUSTIVE = 9
"""Up to this number of layers with linear units every combination is counted (2^9 walks over the network)."""

JOINED = 100
"""What it costs to read one more value where it takes an operator that joins two, as in ONNX: a small network spends
longer on it than on 50 multiply-adds. Without it networks of a few thousand multiply-adds become smaller and slower.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What one node contributes to the count.

    Attributes:
        name: the value it defines.
        sources: the values its rows read; empty for a value that is there anyway (`atom`).
        fixed: rows that are computed in any form (units that are not linear, outputs).
        linear: linear units, for which there is a choice.
        rank: how many rows keep them, at most `linear`.
        atom: the value's size if it is not computed from matrices (the input, a convolution), else 0.
    """

    name: str
    sources: tuple[str, ...] = ()
    fixed: int = 0
    linear: int = 0
    rank: int = 0
    atom: int = 0


def cheapest(steps: Sequence[Step], joined: int = JOINED) -> frozenset[str]:
    """The names of the layers whose linear units are best kept as units."""
    open_layers = [step.name for step in steps if step.linear]
    if len(open_layers) <= EXHAUSTIVE:
        candidates: Iterable[frozenset[str]] = (
            frozenset(chosen)
            for size in range(len(open_layers) + 1)
            for chosen in itertools.combinations(open_layers, size)
        )
        return min(candidates, key=lambda keep: cost(steps, keep, joined))
    starts = [_descend(steps, open_layers, keep, joined) for keep in (frozenset(open_layers), frozenset[str]())]
    return min(starts, key=lambda keep: cost(steps, keep, joined))


def _descend(steps: Sequence[Step], layers: Sequence[str], keep: frozenset[str], joined: int) -> frozenset[str]:
    best = cost(steps, keep, joined)
    improved = True
    while improved:
        improved = False
        for name in layers:
            flipped = keep ^ {name}
            count = cost(steps, flipped, joined)
            if count < best:
                keep, best, improved = flipped, count, True
    return keep


def cost(steps: Sequence[Step], keep: frozenset[str], joined: int = JOINED) -> tuple[int, int]:
    """(cost, blocks) of the network that the choice gives."""
    sizes: dict[str, int] = {}
    reach: dict[str, frozenset[str]] = {}
    total = blocks = 0
    for step in steps:
        if step.atom:
            sizes[step.name], reach[step.name] = step.atom, frozenset([step.name])
            continue
        support = frozenset().union(*(reach[source] for source in step.sources))
        kept = step.rank if step.name in keep else 0
        rows = step.fixed + kept
        if rows:
            total += 2 * rows * sum(sizes[name] for name in support) + rows + joined * max(0, len(support) - 1)
            blocks += len(support)
        sizes[step.name] = rows
        own = frozenset([step.name]) if rows else frozenset()
        reach[step.name] = own | (support if step.linear and step.name not in keep else frozenset())
    return total, blocks
