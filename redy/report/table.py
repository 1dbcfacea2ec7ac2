"""The report of a reduction as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text


def show(document: dict[str, Any], console: Console) -> None:
    """Print a report document (`redy.report.summary.report`)."""
    console.print(Group(_layers(document), Text(), *_lines(document)))


def _layers(document: dict[str, Any]) -> Table:
    table = Table(title=_title(document), title_justify="left", show_footer=True)
    original, reduced, layers = document["original"], document["reduced"], document["layers"]
    replaced = any(layer["replaced"] for layer in layers)
    table.add_column("layer", "total")
    columns = ["units", "inactive", "active", *(["replaced"] if replaced else []), "undecided", "kept"]
    for name in columns:
        table.add_column(name, str(sum(layer[name] for layer in layers)), justify="right")
    table.add_column("parameters", _change(original["parameters"], reduced["parameters"]), justify="right")
    table.add_column("multiply-adds", _change(original["multiply_adds"], reduced["multiply_adds"]), justify="right")
    for layer in layers:
        table.add_row(
            Text(layer["name"]),
            *(str(layer[name]) if layer["units"] else "" for name in columns),
            _arrow(layer["parameters_before"], layer["parameters_after"]),
            _arrow(layer["macs_before"], layer["macs_after"]),
        )
    return table


def _title(document: dict[str, Any]) -> str:
    original = document["original"]["file"]
    return "reduction" if original is None else original


def _lines(document: dict[str, Any]) -> list[RenderableType]:
    original, reduced = document["original"], document["reduced"]
    lines = []
    if reduced["bytes"] is not None:
        size = f"{_change(original['bytes'], reduced['bytes'])} bytes"
        lines.append(("written", f"{reduced['file']}, {size}"))
    lines.append(("answered by", _answers(document)))
    lines.append(("seconds", ", ".join(f"{name} {value:.2f}" for name, value in document["seconds"].items())))
    measured = document["measured"]
    if measured is not None:
        where = f"{measured['points']:,} samples and corners; outputs up to {measured['scale']:.3g}"
        lines.append(("onnxruntime", f"largest deviation {measured['deviation']:.3g} at {where}"))
    lines.append(("guarantee", document["guarantee"]["statement"]))
    lines.extend(("note", note) for note in document["notes"])
    grid = Table.grid(padding=(0, 2))
    for name, text in lines:
        grid.add_row(Text(name, style="bold"), Text(text))
    return [grid]


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
    return "; ".join(parts) or "nothing was asked"


def _change(before: int, after: int) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{_arrow(before, after)}{share}"


def _arrow(before: int, after: int) -> str:
    return f"{before:,} -> {after:,}"
