"""A family of slices as one HTML file: how many units each slice needs, and where."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from redy.report.page import environment
from redy.slicing.cuts import GridCut
from redy.slicing.family import Family

LEAST = 12
"""Rows of the table of the least reduced slices."""
BARS = 20
"""Bars of the histogram."""


def family_page(family: Family, name: str) -> str:
    """The HTML page of a family; a byte for each slice, so that families of many thousands stay small."""
    removed = family.removed()
    histogram = np.histogram(removed, bins=BARS, range=(0.0, 1.0))[0]
    least = np.argsort(removed, kind="stable")[:LEAST]
    figures = [
        ("mean share of units removed", f"{removed.mean():.1%}"),
        ("median", f"{np.median(removed):.1%}"),
        ("least", f"{removed.min():.1%}"),
        ("most", f"{removed.max():.1%}"),
        ("slices whose search ended before its limits", f"{int(family.complete.sum()):,} of {len(family):,}"),
    ]
    return (
        environment()
        .get_template("family.html.j2")
        .render(
            name=name,
            slices=len(family),
            different=len(family.masks),
            form=family.form,
            guarantee=family.guarantee,
            histogram=histogram.tolist(),
            figures=figures,
            least=[(int(k), float(removed[k]), _box(family, int(k))) for k in least],
            shares=base64.b64encode(np.round(255 * removed).astype(np.uint8).tobytes()).decode("ascii"),
            **_grid(family),
        )
    )


def _grid(family: Family) -> dict[str, Any]:
    """The axes of the map; none where the cut is no grid over several parts."""
    cut = family.cut
    if not isinstance(cut, GridCut) or len(cut) == 1:
        return {"splits": [], "lower": [], "upper": []}
    box = cut.box
    return {"splits": list(cut.grid.splits), "lower": box.lower.ravel().tolist(), "upper": box.upper.ravel().tolist()}


def _box(family: Family, index: int) -> str:
    cell = family.cut.cell(index)
    ends = list(zip(cell.lower.ravel(), cell.upper.ravel(), strict=True))
    text = " x ".join(f"[{lower:.4g}, {upper:.4g}]" for lower, upper in ends[:8])
    return text if len(ends) <= 8 else f"{text} x {len(ends) - 8} more"
