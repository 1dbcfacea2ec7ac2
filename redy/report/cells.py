"""The units of a reduction as drawn on its page: a cell per unit, coloured by its fate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Fate = Literal["inactive", "active", "replaced", "undecided", "kept"]
FATES: dict[Fate, str] = {
    "inactive": "proved constant: its activation is one constant piece on the whole box",
    "active": "proved linear: its activation is one line on the whole box",
    "replaced": "replaced by a line: the change of the outputs is within the guarantee",
    "undecided": "no proof, and no input found that refutes one: the unit stays",
    "kept": "unstable: inputs in both pieces of its activation are known, or nothing was asked; the unit stays",
}
"""Fate -> what it says."""
MOST_CELLS = 3000
"""Cells on one page, at most: with more units each layer is drawn as one bar, so that the page stays small."""
COLUMNS = 64
"""Cells in a row of a layer."""
STEP, SIZE = 14, 12
"""Distance and width of cells in units of the drawing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One unit: its place in the drawing, its fate, and the text shown on hover."""

    x: int
    y: int
    fate: Fate
    title: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One activation layer; `cells` is empty where the page has too many units for cells.

    Attributes:
        shares: fate -> number of units, in the order of `FATES`, without zeros.
    """

    name: str
    units: int
    kept: int
    shares: tuple[tuple[Fate, int], ...]
    cells: tuple[Cell, ...]
    width: int
    height: int


def layers(document: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The activation layers of a report document (`redy.report.summary.report`)."""
    rows = [row for row in document["layers"] if row["units"]]
    drawn = sum(row["units"] for row in rows) <= MOST_CELLS
    found = {(finding["node"], finding["index"]): finding for finding in document["findings"]}
    undecided = {(unit["node"], unit["index"]) for unit in document["undecided"]}
    ranges = document.get("bounds") or {}
    return tuple(_layer(row, found, undecided, ranges.get(row["name"]), drawn=drawn) for row in rows)


def unit(document: Mapping[str, Any], name: str, index: int) -> tuple[Fate, Mapping[str, Any] | None]:
    """The fate of one unit, and its finding if there is one."""
    found = [f for f in document["findings"] if (f["node"], f["index"]) == (name, index)]
    finding = found[-1] if found else None
    return fate(finding, undecided={"node": name, "index": index} in document["undecided"]), finding


def fate(finding: Mapping[str, Any] | None, *, undecided: bool) -> Fate:
    """What became of a unit, from its finding (None without one)."""
    if finding is None:
        return "undecided" if undecided else "kept"
    if finding["kind"] != "phase":
        return "replaced"
    return "inactive" if finding["slope"] == 0 else "active"


def _layer(
    row: Mapping[str, Any],
    found: Mapping[tuple[str, int], Mapping[str, Any]],
    undecided: set[tuple[str, int]],
    ranges: Mapping[str, Any] | None,
    *,
    drawn: bool,
) -> Layer:
    name, units = row["name"], row["units"]
    counts: dict[Fate, int] = dict.fromkeys(FATES, 0)
    cells = []
    for index in range(units):
        finding = found.get((name, index))
        what = fate(finding, undecided=(name, index) in undecided)
        counts[what] += 1
        if drawn:
            title = describe(name, index, what, finding, ranges)
            cells.append(Cell(index % COLUMNS * STEP + 1, index // COLUMNS * STEP + 1, what, title))
    shares = tuple((what, count) for what, count in counts.items() if count)
    width = min(units, COLUMNS) * STEP
    return Layer(name, units, row["kept"], shares, tuple(cells), width, -(-units // COLUMNS) * STEP)


def describe(
    name: str, index: int, what: Fate, finding: Mapping[str, Any] | None, ranges: Mapping[str, Any] | None
) -> str:
    """One unit in words: fate, line, proof and bounds of its pre-activation."""
    parts = [f"{name}/{index}: {what}"]
    if finding is not None:
        if what == "inactive":
            parts.append(f"output {finding['intercept']:.6g}")
        else:
            parts.append(f"output {finding['slope']:.6g} x + {finding['intercept']:.6g}")
        if finding["method"]:
            parts.append(f"proof: {finding['kind']}, {finding['method']}")
    if ranges is not None:
        lower, upper = ranges["lower"][index], ranges["upper"][index]
        below = "-inf" if lower is None else f"{lower:.6g}"
        above = "inf" if upper is None else f"{upper:.6g}"
        parts.append(f"pre-activation in [{below}, {above}]")
    return "; ".join(parts)
