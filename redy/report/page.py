"""The report of reductions as one HTML file that needs no network access."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from redy.report.cells import FATES, Layer, layers


@dataclass(frozen=True, slots=True)
class Change:
    """A quantity before and after, and the share that is left (None where there was nothing)."""

    name: str
    before: float
    after: float

    @property
    def left(self) -> float | None:
        """after / before."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class OutputError:
    """The proved bound of an output's difference beside the largest difference found."""

    name: str
    bound: float
    found: float | None


@dataclass(frozen=True, slots=True)
class Chapter:
    """Everything that the page shows of one reduction."""

    document: Mapping[str, Any]
    title: str
    layers: tuple[Layer, ...]
    changes: tuple[Change, ...]
    errors: tuple[OutputError, ...]
    seconds: tuple[tuple[str, float], ...]
    options: tuple[tuple[str, str], ...]
    recheck: tuple[str, ...]


MOST_OUTPUTS = 64
"""Elements of outputs in the table of differences, at most: those with the largest bounds."""


def page(documents: Sequence[Mapping[str, Any]]) -> str:
    """The HTML page of report documents (`redy.report.summary.report`); text from files is escaped."""
    template = environment().get_template("page.html.j2")
    return template.render(chapters=[chapter(document) for document in documents], fates=FATES)


def environment() -> Environment:
    """The templates of all pages: everything is escaped, and a name that is missing is an error."""
    made = Environment(
        loader=PackageLoader("redy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    return made


def chapter(document: Mapping[str, Any]) -> Chapter:
    """What the page shows of one report document."""
    original, reduced = document["original"], document["reduced"]
    return Chapter(
        document=document,
        title=original["file"] or "Reduction",
        layers=layers(document),
        changes=tuple(_changes(original, reduced, document["measured"])),
        errors=_errors(document["guarantee"]),
        seconds=_seconds(document["seconds"]),
        options=tuple((key.replace("_", " "), _option(value)) for key, value in document["options"].items()),
        recheck=_recheck(original, reduced, document.get("certificate")),
    )


def number(value: float) -> str:
    """A number for readers: counts with separators, everything else with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _changes(
    original: Mapping[str, Any], reduced: Mapping[str, Any], measured: Mapping[str, Any] | None
) -> list[Change]:
    names = {
        "units": "units",
        "parameters": "parameters",
        "multiply_adds": "multiply-adds",
        "bytes": "bytes of the file",
    }
    changes = [
        Change(name, original[key], reduced[key])
        for key, name in names.items()
        if original.get(key) is not None and reduced.get(key) is not None
    ]
    times = (measured or {}).get("milliseconds")
    return [*changes, Change("milliseconds a sample", *times)] if times else changes


def _errors(guarantee: Mapping[str, Any]) -> tuple[OutputError, ...]:
    found = guarantee["found"] or {}
    rows = []
    for name, bounds in (guarantee["error"] or {}).items():
        flat, met = _flat(bounds), _flat(found[name]) if name in found else []
        for index, bound in enumerate(flat):
            place = f"{name}[{index}]" if len(flat) > 1 else name
            rows.append(OutputError(place, bound, met[index] if index < len(met) else None))
    if len(rows) > MOST_OUTPUTS:
        rows = sorted(rows, key=lambda row: row.bound, reverse=True)[:MOST_OUTPUTS]
    return tuple(rows)


def _flat(value: Any) -> list[float]:  # noqa: ANN401 - nested lists of numbers, as JSON has them
    return [element for item in value for element in _flat(item)] if isinstance(value, list) else [value]


def _seconds(seconds: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Steps that add up to the total: what no step accounts for is a step of its own."""
    total = seconds.get("total", sum(seconds.values()))
    steps = {name: value for name, value in seconds.items() if name != "total"}
    rest = total - sum(steps.values())
    return (*steps.items(), ("other", max(rest, 0.0)), ("total", total))


def _option(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return f"box {value['digest'][:16]}" if "digest" in value else str(value)
    return str(value)


def _recheck(
    original: Mapping[str, Any], reduced: Mapping[str, Any], certificate: Mapping[str, Any] | None
) -> tuple[str, ...]:
    if original["file"] is None or reduced["file"] is None:
        return ()
    files = [shlex.quote(original["file"]), shlex.quote(reduced["file"])]
    lines = (f"sha256sum {' '.join(files)}", f"redy verify {' '.join(files)}")
    if certificate is None:
        return lines
    return (*lines, f"python -m redy.certify {' '.join(files)} {shlex.quote(certificate['file'])}")
