"""Pages of commands that answer or list: verdicts, simplifications and batches, with a sortable table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redy.report.page import Change, environment

MOST_NUMBERS = 16
"""Elements of an input or output that a table shows."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table: what is read, and the number by which the column is sorted (text sorts by itself)."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that such a page shows.

    Attributes:
        title, subtitle: what the page is about.
        heading, statements: the card at the top, one paragraph a statement.
        changes: quantities before and after, drawn as bars.
        columns, rows: the sortable table.
        notes: lines below it.
        command: the command of the run, None where it is not known.
    """

    title: str
    subtitle: str
    heading: str
    statements: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    command: str | None = None


def listing_page(listing: Listing) -> str:
    """The HTML page; text from files is escaped."""
    return environment().get_template("listing.html.j2").render(page=listing)


def verdicts_page(answers: Sequence[Mapping[str, Any]], command: str | None = None) -> str:
    """The page of what `redy verify` or `redy prove` answered, one row each.

    Args:
        answers: the dictionaries that these commands print with `--json`.
        command: the command of the run.
    """
    counts = {word: sum(answer["answer"] == word for answer in answers) for word in WORDS}
    rows = tuple(
        (
            Cell(answer["answer"]),
            Cell(_subject(answer)),
            Cell(answer["property"] if "property" in answer else answer["claim"]),
            Cell(_why(answer)),
            Cell(f"{answer['seconds']:.2f}", answer["seconds"]) if "seconds" in answer else Cell("", 0.0),
        )
        for answer in answers
    )
    return listing_page(
        Listing(
            title=f"{answers[0]['answer']}: {_subject(answers[0])}" if len(answers) == 1 else "Verdicts",
            subtitle=", ".join(f"{count} {word}" for word, count in counts.items() if count),
            heading="What the verdicts mean",
            statements=tuple(WORDS[word] for word, count in counts.items() if count),
            columns=("verdict", "network", "asked", "why", "seconds"),
            rows=rows,
            notes=_trusted(answers),
            command=command,
        )
    )


WORDS = {
    "holds": "holds: for every input of the property's boxes, in real arithmetic on the numbers in the file.",
    "violated": "violated: the input given lies in the box, and onnxruntime confirms it.",
    "verified": "verified: the claim holds for every input of the box, in real arithmetic on the numbers in the files.",
    "refuted": "refuted: the input given lies in the box, and onnxruntime confirms it.",
    "unknown": "unknown: neither was proved within the time limit. Nothing is stated.",
}
"""What each verdict says."""


def _subject(answer: Mapping[str, Any]) -> str:
    if "network" in answer:
        return str(answer["network"])
    return " and ".join(str(part["file"]) for part in answer["files"])


def _why(answer: Mapping[str, Any]) -> str:
    parts = [str(answer[name]) for name in ("method", "reason", "reduction") if answer.get(name)]
    parts += [
        f"{name} {_numbers(answer[name])}" for name in ("input", "output", "original", "reduced") if name in answer
    ]
    return "; ".join(parts)


def _numbers(values: Sequence[Any]) -> str:
    flat = _flat(values)
    text = ", ".join(f"{value:.6g}" for value in flat[:MOST_NUMBERS])
    return f"({text})" if len(flat) <= MOST_NUMBERS else f"({text}, and {len(flat) - MOST_NUMBERS} more)"


def _flat(values: Any) -> list[float]:  # noqa: ANN401 - nested lists of numbers, as JSON has them
    return [element for item in values for element in _flat(item)] if isinstance(values, list) else [values]


def _trusted(answers: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    named = sorted({name for answer in answers for name in answer.get("trusted", ())})
    if named:
        return tuple(f"Trusted: {name}." for name in named)
    if any(answer["answer"] in {"holds", "verified"} for answer in answers):
        return ("No solver's answer is trusted: redy computed every bound with rounding errors included.",)
    return ()


def simplification_page(facts: Mapping[str, Any], model: str, output: str, command: str | None = None) -> str:
    """The page of a simplification; `facts` is what `redy simplify --json` prints."""
    rows = tuple(
        (
            Cell(layer["name"]),
            Cell(layer["op"]),
            Cell(f"{layer['before']:,}", layer["before"]),
            Cell(f"{layer['after']:,}" if layer["after"] else "gone", layer["after"] or 0),
            Cell(str(layer["constants"] or ""), layer["constants"] or 0),
        )
        for layer in facts["layers"]
    )
    names = (("parameters", "parameters"), ("multiply_adds", "multiply-adds"), ("bytes", "bytes of the file"))
    ratio, measured = facts["latency_ratio"], facts["latency_milliseconds"]
    times = () if measured is None else (Change("milliseconds a sample", measured["before"], measured["after"]),)
    check = facts["check"] or "The result was not compared with the original in onnxruntime (--no-check)."
    return listing_page(
        Listing(
            title=model,
            subtitle=f"simplified to {output}",
            heading="What stays the same",
            statements=(
                "For every input, the outputs equal those of the original up to floating-point rounding.",
                check,
            ),
            columns=("layer", "operator", "channels before", "after", "constants in"),
            rows=rows,
            changes=(*(Change(name, facts[key]["before"], facts[key]["after"]) for key, name in names), *times),
            notes=(
                *(() if ratio is None else (f"Latency in onnxruntime on one thread: {ratio:.3f} of the original's.",)),
                *facts["notes"],
                *(f"Left as it was: {line}" for line in facts["refused"]),
            ),
            command=command,
        )
    )


def batch_page(rows: Iterable[Mapping[str, Any]], store: Path, command: str | None = None) -> str:
    """The page of a batch: `rows` are the jobs of its store by column name, read one by one."""
    table, shares = [], []
    for row in rows:
        left = row["parameters_after"] / max(1, row["parameters_before"]) if row["status"] == "done" else None
        shares += [] if left is None else [left]
        table.append(_job(row, left))
    mean = f", {sum(shares) / len(shares):.1%} of the parameters left on average" if shares else ""
    return listing_page(
        Listing(
            title=f"Batch: {store}",
            subtitle=f"{len(shares)} of {len(table)} jobs done{mean}",
            heading="What is guaranteed",
            statements=("Each reduced network holds its own guarantee in its metadata; `redy report` shows it.",),
            columns=("job", "network", "box", "status", "units left", "parameters left", "undecided", "seconds"),
            rows=tuple(table),
            command=command,
        )
    )


def _job(row: Mapping[str, Any], left: float | None) -> tuple[Cell, ...]:
    number, seconds = Cell(str(row["job"]), row["job"]), Cell(f"{row['seconds']:.1f}", row["seconds"])
    about = (number, Cell(row["model"]), Cell(row["bounds"]))
    if left is None:
        return (*about, Cell(f"failed: {row['error']}"), Cell("", 2.0), Cell("", 2.0), Cell("", -1.0), seconds)
    units = row["units_after"] / max(1, row["units_before"])
    undecided = Cell(f"{row['undecided']:,}", row["undecided"])
    return (*about, Cell("done"), Cell(f"{units:.1%}", units), Cell(f"{left:.1%}", left), undecided, seconds)
