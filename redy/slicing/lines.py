"""Units of a slice that become lines: on the slice the outputs then stay within a tolerance of the original's.

The set is found and proved as in `redy.redundancy.relaxed` (Lahav and Katz, FMCAD 2021, section IV: relaxed
redundancy), on top of the units that are stuck in a phase. What matters in a family is that a unit costs nothing, so a
unit that lies more on its inactive side becomes 0, which is a code of the mask; any other becomes the line of smallest
error, with coefficients in the type of the weights, so that the proof is of the very line that is evaluated.

Behind a line a unit that is stuck active in the original may become negative. The folded form computes it as linear,
the shared form with its ReLU, so both networks are proved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redy.condensed.form import Intervals
from redy.errors import Unsupported
from redy.model import Activate, Array, Box, Finding, Line, Network, PiecewiseLinear, Proof, Proved, Unit, Verdict
from redy.questions.query import Query
from redy.redundancy.lines import spare_line
from redy.redundancy.relaxed import Facts, find_relaxed
from redy.rewrite.dense import flat_function, rebuilt
from redy.slicing.masks import Codes, by_activation, findings_of

LINE = np.dtype([("unit", "<u4"), ("slope", "<f8"), ("intercept", "<f8")])
"""A line: the unit, counted through all activations, and y = slope z + intercept."""
ACTIVE = 1
"""The code of a ReLU that is stuck active."""
STARTS = 1
"""Points from which local search attacks a guess: slices are many, and a query that follows finds what it misses."""


def find_lines(
    network: Network,
    box: Box,
    codes: Codes,
    intervals: Intervals,
    points: Array,
    tolerance: Array,
    *,
    budget: int,
    deadline: float | None = None,
) -> tuple[NDArray[np.void], bool]:
    """Lines that are proved together, and whether the search ended before the time limit.

    The lines are an array of `LINE` in the order of the units; those of dropped units are 0, 0.

    Args:
        network: the original, with ReLUs only.
        box: the slice.
        codes: what is stuck in a phase there; stays as it is.
        intervals: sound pre-activation bounds.
        points: points of the slice (m, *input shape).
        tolerance: one positive number per output element, flattened.
        budget: work of the engine for one query.
        deadline: `time.monotonic()` at which the search ends.
    """
    dtype = np.dtype(network.weight_dtype)

    def line(function: PiecewiseLinear, lower: float, upper: float) -> Line:
        if upper <= -lower:
            return Line(0.0, 0.0)
        best = spare_line(function, lower, upper)
        return Line(float(dtype.type(best.slope)), float(dtype.type(best.intercept)))

    known = tuple(findings_of(network, codes))
    facts = Facts(network, box, intervals, known, points, budget, deadline, STARTS)

    def asker(query: Query) -> Verdict:
        verdict = facts.ask(query)
        if not isinstance(verdict, Proved) or not (codes == ACTIVE).any():
            return verdict
        return facts.ask(replace(query, reduced=with_relus(query.reduced, network, codes == ACTIVE)))

    try:
        answer = find_relaxed(facts, tolerance, asker, line)
    except Unsupported:
        return np.zeros(0, dtype=LINE), True
    first = _first_units(network)
    rows = sorted((first[f.unit.node] + f.unit.index, f.line.slope, f.line.intercept) for f in answer.findings)
    return np.array(rows, dtype=LINE), not facts.expired()


def with_relus(reduced: Network, original: Network, chosen: NDArray[np.bool_]) -> Network:
    """The reduced network with the original's functions for chosen units (units,); names and shapes are the same."""
    functions = {}
    for node, mine in by_activation(original, chosen):
        replaced = reduced.by_name[node.name]
        assert isinstance(replaced, Activate)
        now, before = flat_function(replaced), flat_function(node)
        functions[node.name] = PiecewiseLinear(
            np.where(mine, before.breakpoints, now.breakpoints),
            np.where(mine, before.slopes, now.slopes),
            np.where(mine, before.value, now.value),
        )
    return rebuilt(
        reduced,
        [
            Activate(node.name, node.source, functions[node.name], node.shape) if isinstance(node, Activate) else node
            for node in reduced.nodes
        ],
    )


def read_lines(data: bytes) -> NDArray[np.void]:
    """The lines that a record holds."""
    return np.frombuffer(data, dtype=LINE)


def dropped(codes: Codes, lines: NDArray[np.void]) -> Codes:
    """The codes with 0 (inactive) for units whose line is 0."""
    changed = codes.copy()
    changed[lines["unit"][_zero(lines)]] = 0
    return changed


def _zero(lines: NDArray[np.void]) -> NDArray[np.bool_]:
    return np.asarray((lines["slope"] == 0) & (lines["intercept"] == 0))


def _first_units(network: Network) -> dict[str, int]:
    sizes = np.cumsum([0, *(math.prod(node.shape) for node in network.activations)])
    return {node.name: int(first) for node, first in zip(network.activations, sizes, strict=False)}


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of each mask of a family, those that are not 0.

    Attributes:
        table: an array of `LINE`, in the order of the masks, and of the units within one, with coefficients in the type
            of the weights.
        starts: (masks + 1,) where those of each mask begin.
    """

    table: NDArray[np.void]
    starts: NDArray[np.uint32]

    @classmethod
    def of(cls, network: Network, parts: Sequence[NDArray[np.void]]) -> Lines:
        """From the lines of each mask."""
        kept = [part[~_zero(part)] for part in parts]
        starts = np.cumsum([0, *(len(part) for part in kept)]).astype(np.uint32)
        weight = np.dtype(network.weight_dtype)
        narrow = [("unit", "<u2" if network.units <= 1 << 16 else "<u4"), ("slope", weight), ("intercept", weight)]
        return cls(np.concatenate([np.zeros(0, dtype=LINE), *kept]).astype(narrow), starts)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, mask: int) -> NDArray[np.void]:
        """The lines of one mask."""
        return self.table[self.starts[mask] : self.starts[mask + 1]]

    def fits(self, masks: int, units: int) -> bool:
        """Whether these can be the lines of so many masks of a network with so many units."""
        whole = self.starts.shape == (masks + 1,) and self.starts[0] == 0 and self.starts[-1] == len(self.table)
        if not whole or self.table.dtype.names != LINE.names or (self.counts < 0).any():
            return False
        finite = all(np.isfinite(self.table[name]).all() for name in ("slope", "intercept"))
        return bool(finite and self.table["unit"].max(initial=0) < max(1, units))

    @property
    def counts(self) -> NDArray[np.int64]:
        """(masks,) how many lines each has."""
        return np.asarray(self.starts[1:].astype(np.int64) - self.starts[:-1])


def by_layer(network: Network, lines: NDArray[np.void]) -> list[tuple[NDArray[np.int64], NDArray[np.void]]]:
    """Per activation its lined units, counted within it, and their lines."""
    place = np.full(network.units, -1, dtype=np.int64)
    place[lines["unit"]] = np.arange(len(lines))
    parts = [(np.flatnonzero(mine >= 0), mine[mine >= 0]) for _, mine in by_activation(network, place)]
    return [(units, lines[which]) for units, which in parts]


def line_findings(network: Network, lines: NDArray[np.void]) -> list[Finding]:
    """The findings that lines stand for."""
    proof = Proved(Proof("the outputs stay within the tolerance on the slice", "lines"))
    found = []
    for node, (units, mine) in zip(network.activations, by_layer(network, lines), strict=True):
        for unit, line in zip(units.tolist(), mine, strict=True):
            chosen = Line(float(line["slope"]), float(line["intercept"]))
            found.append(Finding(Unit(node.name, unit), "relaxed", chosen, 0.0, proof))
    return found
