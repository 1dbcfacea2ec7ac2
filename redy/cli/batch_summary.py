"""What `redy batch` says of a run: a line a job, one line of all, and a report as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redy.cli.batch_work import COLUMNS
from redy.version import __version__

Values = dict[str, Any]
"""A row of the store by column."""

_LISTED = [name for name in COLUMNS if name != "report"]


@dataclass(slots=True)
class Tally:
    """Counts over the rows of a store."""

    total: int = 0
    done: int = 0
    shares: float = 0.0
    seconds: float = 0.0

    def add(self, values: Values) -> None:
        """Count one row."""
        self.total += 1
        self.seconds += values["seconds"]
        if values["status"] == "done":
            self.done += 1
            self.shares += values["parameters_after"] / max(1, values["parameters_before"])

    @property
    def left(self) -> float | None:
        """The mean share of the parameters that is left; None where no job is done."""
        return self.shares / self.done if self.done else None


def named(row: tuple[Any, ...]) -> Values:
    """A row of the store by column."""
    return dict(zip(COLUMNS, row, strict=True))


def line(values: Values) -> str:
    """What came of a job."""
    name = f"{values['model']} on {values['bounds']}"
    if values["status"] == "failed":
        return f"{name}: failed: {values['error']}"
    return (
        f"{name}: {values['parameters_before']} -> {values['parameters_after']} parameters, {values['seconds']:.1f} s"
    )


def tally(rows: Iterable[Values]) -> Tally:
    """Counts over rows, read one by one, since each holds a whole report."""
    counts = Tally()
    for values in rows:
        counts.add(values)
    return counts


def summary(counts: Tally, again: int, store: Path) -> str:
    """The run in one line."""
    text = f"{counts.done} of {counts.total} jobs done"
    if counts.left is not None:
        text += f", {counts.left:.1%} of the parameters left on average"
    text += f", {again} made again" if again else ""
    return f"{text}; results in {store}"


def write_report(
    path: Path, rows: Iterable[Values], counts: Tally, made: Collection[int], again: Mapping[int, str], wall: float
) -> None:
    """Write the report of a run as JSON, job by job, so that a long one takes no memory.

    Args:
        path: the file.
        rows: of the store.
        counts: over the rows.
        made: numbers of the jobs that this run made, and
        again: of those it made again, with the reason.
        wall: seconds that this run took.
    """
    head = {
        "format": "redy-batch",
        "version": 1,
        "redy": __version__,
        "jobs": counts.total,
        "done": counts.done,
        "failed": counts.total - counts.done,
        "made": len(made),
        "made_again": {str(number): reason for number, reason in again.items()},
        "parameters_left": counts.left,
        "seconds": counts.seconds,
        "wall_seconds": wall,
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "results": [')
        for number, values in enumerate(rows):
            entry = {name: values[name] for name in _LISTED}
            entry |= {name: json.loads(entry[name]) for name in ("options", "attempts")}
            entry["made"] = values["job"] in made
            file.write((",\n  " if number else "\n  ") + json.dumps(entry))
        file.write("\n ]\n}\n")
