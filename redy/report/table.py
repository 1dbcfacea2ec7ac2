"""The report of a reduction as a table on the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

NAME = 24
"""Characters of a name below which it is not squeezed to make room for a column."""


def show(document: dict[str, Any], console: Console) -> None:
    """Print the report of a reduction; a narrow terminal gets fewer columns, not cut numbers."""
    console.print(Group(_layers(document, console), Text(), _lines(document)))


def fitting(table: Callable[[int, int | None], Table], columns: int, least: int, console: Console) -> Table:
    """The table with as many columns as the console holds without wrapping a number; names may take several lines.

    Args:
        table: makes the table of so many first columns, with names no wider than a number of characters.
        columns: how many there are.
        least: how many stay in any case.
        console: where it is to be printed.
    """
    unlimited = console.options.update(width=10_000)
    for count in range(columns, least, -1):
        if console.measure(table(count, NAME), options=unlimited).maximum <= console.width:
            return table(count, None)
    return table(least, None)


def listed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str], console: Console, title: str = ""
) -> Table:
    """A table of text and numbers that leaves out its last columns where the console is narrow.

    Args:
        columns: headings, the most important first.
        rows: one text for each column.
        numbers: the headings of columns that hold numbers.
        console: where it is to be printed.
        title: what stands above.
    """

    def made(count: int, name: int | None) -> Table:
        table = Table(title=Text(title) if title else None, title_justify="left")
        for heading in columns[:count]:
            number = heading in numbers
            table.add_column(
                heading,
                justify="right" if number else "left",
                no_wrap=number,
                overflow="fold",
                max_width=None if number else name,
            )
        for row in rows:
            table.add_row(*(Text(cell) for cell in row[:count]))
        return table

    return fitting(made, len(columns), 2, console)


def _layers(document: dict[str, Any], console: Console) -> Table:
    original, reduced, layers = document["original"], document["reduced"], document["layers"]
    replaced = any(layer["replaced"] for layer in layers)
    counts = ["units", "kept", "inactive", "active", *(["replaced"] if replaced else []), "undecided"]

    def made(columns: int, name_width: int | None) -> Table:
        table = Table(title=_title(document), title_justify="left", show_footer=True)
        table.add_column("layer", "total", overflow="fold", max_width=name_width)
        shown, sizes = counts[:columns], columns - len(counts)
        for name in shown:
            table.add_column(name, str(sum(layer[name] for layer in layers)), justify="right", no_wrap=True)
        for name, key in (("parameters", "parameters"), ("multiply-adds", "multiply_adds"))[: max(sizes, 0)]:
            table.add_column(name, _change(original[key], reduced[key]), justify="right", no_wrap=True)
        for layer in layers:
            changes = [
                _arrow(layer[f"{key}_before"], layer[f"{key}_after"]) for key in ("parameters", "macs")[: max(sizes, 0)]
            ]
            table.add_row(
                Text(layer["name"]), *(str(layer[name]) if layer["units"] else "" for name in shown), *changes
            )
        return table

    return fitting(made, len(counts) + 2, 2, console)


def _title(document: dict[str, Any]) -> str:
    original = document["original"]["file"]
    return "reduction" if original is None else original


def _lines(document: dict[str, Any]) -> RenderableType:
    """What was removed, what is guaranteed, what was measured, and what to do next."""
    original, reduced = document["original"], document["reduced"]
    lines = [("removed", _removed(document)), ("guarantee", document["guarantee"]["statement"])]
    lines.append(("trusted", ", ".join(document["guarantee"]["trusted"]) or "no answer of a solver"))
    measured = document["measured"]
    if measured is not None:
        times = measured.get("milliseconds")
        speed = f"; one sample takes {times[0]:.3g} -> {times[1]:.3g} ms" if times else ""
        where = f"{measured['points']:,} points of the box, where outputs reach {measured['scale']:.3g}"
        lines.append(("measured", f"largest difference in onnxruntime {measured['deviation']:.3g} at {where}{speed}"))
    lines.append(("proofs", _answers(document)))
    certificate = document.get("certificate")
    if certificate:
        lines.append(("certificate", f"{certificate['file']}: {certificate['claim']}"))
    lines.append(("seconds", ", ".join(f"{name} {value:.2f}" for name, value in document["seconds"].items())))
    lines.extend(("note", note) for note in document["notes"])
    if reduced["bytes"] is not None:
        lines.append(("written", f"{reduced['file']}, {_change(original['bytes'], reduced['bytes'])} bytes"))
        files = f"{shlex.quote(str(original['file']))} {shlex.quote(str(reduced['file']))}"
        lines.append(("next", f"redy verify {files} proves the guarantee again"))
    grid = Table.grid(padding=(0, 2))
    for name, text in lines:
        grid.add_row(Text(name, style="bold"), Text(text))
    return grid


def _removed(document: dict[str, Any]) -> str:
    original, reduced = document["original"], document["reduced"]
    parts = []
    for key in ("units", "parameters", "multiply_adds"):
        before, after = original[key], reduced[key]
        if before:
            gone = before - after
            parts.append(f"{gone:,} of {before:,} {key.replace('_', '-')} ({gone / before:.1%})")
    return ", ".join(parts) or "the network has no units"


def _answers(document: dict[str, Any]) -> str:
    parts = []
    for criterion, methods in document["engine"].items():
        if isinstance(methods, dict) and (methods.get("elements") or methods.get("queries")):
            asked = f" in {methods['queries']} queries" if "queries" in methods else ""
            parts.append(f"{criterion}: proved {methods['elements']}{asked}")
        for method, facts in methods.items() if isinstance(methods, dict) else ():
            if isinstance(facts, dict) and "elements" in facts:
                solver = f" ({facts['solver']})" if "solver" in facts else ""
                parts.append(f"{criterion}: {method}{solver} proved {facts['elements']}")
    return "; ".join(parts) or "none were asked for"


def _change(before: int, after: int) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{_arrow(before, after)}{share}"


def _arrow(before: int, after: int) -> str:
    return f"{before:,} -> {after:,}"
