"""Units that are lines, as ONNX nodes: of one slice, and picked for each point where a model holds a whole family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redy.slicing.graph import Graph
from redy.slicing.lines import by_layer
from redy.slicing.program import Step

if TYPE_CHECKING:
    from redy.slicing.family import Family


def straight(graph: Graph, step: Step, name: str, z: str, y: str) -> str:
    """The values y of a step, with lines of z in the rows that the step has lines for."""
    assert step.straight is not None
    size, dtype = step.bias.size, step.bias.dtype
    slope, intercept, which = np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(size, dtype=bool)
    slope[step.straight.rows], intercept[step.straight.rows] = step.straight.slope, step.straight.intercept
    which[step.straight.rows] = True
    sloped = graph.add("Mul", [z, graph.constant(f"{name}_slope", slope, dtype)], f"{name}_sloped")
    line = graph.add("Add", [sloped, graph.constant(f"{name}_intercept", intercept, dtype)], f"{name}_line")
    return graph.add("Where", [graph.constant(f"{name}_which", which, np.bool_), line, y], f"{name}_lined")


@dataclass(frozen=True, slots=True)
class PickedLines:
    """The lines of each point's slice in one step, by the names of their values (n, lines at most).

    Attributes:
        units: how many the step has.
        column, slope, intercept: of each line; column `units` stands for none.
    """

    units: int
    column: str
    slope: str
    intercept: str


def picked_lines(graph: Graph, family: Family) -> dict[int, PickedLines]:
    """Per ReLU step of the whole program the lines of each point's slice, where any slice has some.

    The graph has the number of each point's mask as `redy_mask`.
    """
    if family.lines is None or not len(family.lines):
        return {}
    each = [by_layer(family.network, family.lines[mask]) for mask in range(len(family.masks))]
    steps = [(k, step.bias.size) for k, step in enumerate(family.whole.steps, start=1) if step.relu]
    found = {}
    for layer, (number, size) in enumerate(steps):
        most = max(len(mine[layer][0]) for mine in each)
        if not most:
            continue
        column, dtype = np.full((len(each), most), size), family.whole.dtype
        slope, intercept = np.zeros((2, len(each), most), dtype=dtype)
        for mask, (units, lines) in enumerate(mine[layer] for mine in each):
            column[mask, : len(units)] = units
            slope[mask, : len(units)], intercept[mask, : len(units)] = lines["slope"], lines["intercept"]
        tables = {"column": column, "slope": slope, "intercept": intercept}
        picked = {}
        for key, table in tables.items():
            constant = graph.constant(f"redy_{key}s_{number}", table, table.dtype)
            picked[key] = graph.add("Gather", [constant, "redy_mask"], f"redy_{key}_{number}", axis=0)
        found[number] = PickedLines(size, **picked)
    return found


def lined(graph: Graph, lines: PickedLines, name: str, z: str, y: str) -> str:
    """The values y of a step, with lines of z in the columns of the point's slice."""
    pads = graph.constant("redy_one_more", [0, 0, 0, 1])
    padded = graph.add("Pad", [z, pads], f"{name}_z_padded")
    at = graph.add("GatherElements", [padded, lines.column], f"{name}_z_at", axis=1)
    line = graph.add("Add", [graph.add("Mul", [at, lines.slope], f"{name}_sloped"), lines.intercept], f"{name}_line")
    wide = graph.add("Pad", [y, pads], f"{name}_y_padded")
    wide = graph.add("ScatterElements", [wide, lines.column, line], f"{name}_scattered", axis=1)
    ends = [graph.constant("redy_zero", [0]), graph.constant(f"redy_units_{lines.units}", [lines.units])]
    return graph.add("Slice", [wide, *ends, graph.constant("redy_one", [1])], f"{name}_lined")
