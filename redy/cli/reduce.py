"""`redy reduce`: one network, one or several boxes -> smaller networks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redy.cli.interrupts import explained
from redy.cli.paths import guard, model_files
from redy.cli.running import Task, command_line, run_tasks
from redy.cli.shapes import shape_option
from redy.errors import InputError
from redy.milp.backends import CHOICES

if TYPE_CHECKING:
    from redy.model import Port


@click.command("reduce")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--bounds", required=True, help="Box(es) of inputs: .json, .jsonl, .vnnlib, or JSON such as '[-1,1]'.")
@shape_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL.reduced.onnx beside the model.")
@click.option(
    "--preserve",
    type=click.Choice(["outputs", "decision", "tolerance"]),
    default="outputs",
    show_default=True,
    help="What stays the same on the box.",
)
@click.option("--tolerance", type=float, help="Largest change of an output, for --preserve tolerance.")
@click.option("--relative-to", help="The tolerance is a share of the output's range: 'box', or a box (file or JSON).")
@click.option(
    "--winner",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Whether the largest or the lowest output wins, for decisions.",
)
@click.option("--margin", type=float, help="Outputs closer than this are tied. Default: 1e-5 of the largest output.")
@click.option("--refit", is_flag=True, help="Fit the output layer, where that makes the proved error smaller.")
@click.option(
    "--layout",
    type=click.Choice(["auto", "chain"]),
    default="auto",
    show_default=True,
    help="chain: Gemm and Relu in turn, from a vector to a vector, for tools that read nothing else.",
)
@click.option(
    "--fewest",
    type=click.Choice(["latency", "parameters", "relus"]),
    default="latency",
    show_default=True,
    help="What the written form has least of; relus suits verifiers and solvers.",
)
@click.option("--criteria", help="Steps in order, such as phase,relaxed:10 (at most 10 s). Default: all of the mode.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "linear", "branch", "milp"]),
    default="auto",
    show_default=True,
    help="What searches for proofs.",
)
@click.option(
    "--solver",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="Who answers mixed-integer programs.",
)
@click.option("--trust", type=click.Choice(["solver"]), help="Count a solver's bound that redy could not re-derive.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "normal", "thorough"]),
    default="normal",
    show_default=True,
    help="Work of all searches: up to about 12, 60 and 1200 CPU seconds.",
)
@click.option("--time-limit", type=float, help="Seconds for the whole run; what is undecided then stays.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Boxes reduced at once.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Start of every random choice; equal seeds give equal results.",
)
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    help="The proof for `redy check`. Default: beside the output with suffix .cert, where the proof is cheap.",
)
@click.option("--no-certificate", is_flag=True, help="Write no certificate.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the report as one HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def reduce_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    model: Path,
    bounds: str,
    shapes: dict[str, tuple[int, ...]],
    output: Path | None,
    preserve: str,
    tolerance: float | None,
    relative_to: str | None,
    winner: str,
    margin: float | None,
    refit: bool,
    layout: str,
    fewest: str,
    criteria: str | None,
    engine: str,
    solver: str,
    trust: str | None,
    effort: str,
    time_limit: float | None,
    jobs: int,
    seed: int,
    report_path: Path | None,
    page_path: Path | None,
    certificate: Path | None,
    no_certificate: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove which neurons of MODEL are not needed on a box of inputs and write the smaller network.

    Several boxes in the bounds give one output each, numbered from 1 before the suffix.

    Exit code 0: done, also when a limit ended the search; 1: an internal check failed and nothing was written; 2: bad
    input or usage; 3: the network was written but no certificate was found.
    """
    from redy.formats.boxes import read_boxes
    from redy.formats.files import write_text
    from redy.formats.onnx_read import read_network

    begin = time.monotonic()
    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}: must be a positive number of seconds")
    port = read_network(model, shapes).input
    boxes = read_boxes(bounds, port)
    if certificate is not None and no_certificate:
        raise InputError("give --certificate or --no-certificate, not both")
    targets = _targets(model, output, len(boxes))
    proofs = [None if no_certificate else target.parent / f"{target.stem}.cert" for target in targets]
    if certificate is not None:
        proofs = list(_numbered(certificate, len(boxes)))
    sources = [
        *model_files("the model", model),
        ("the source of the bounds", bounds),
        ("the reference box", relative_to),
    ]
    guard(
        sources,
        [
            *(("the network", target) for target in targets),
            ("the report", report_path),
            ("the page", page_path),
            *(("the certificate", proof) for proof in proofs),
        ],
    )
    options: dict[str, Any] = {
        "preserve": preserve,
        "tolerance": tolerance,
        "relative_to": _reference(relative_to, port),
        "winner": winner,
        "margin": margin,
        "refit": refit,
        "layout": layout,
        "fewest": fewest,
        "engine": engine,
        "solver": solver,
        "trust": trust == "solver",
        "criteria": None if criteria is None else _names(criteria),
        "effort": effort,
        "seed": seed,
    }
    tasks = [
        Task(model, box, target, options, shapes, proof, certificate is not None)
        for box, target, proof in zip(boxes, targets, proofs, strict=True)
    ]
    deadline = None if time_limit is None else begin + time_limit
    documents: list[dict[str, Any]] = []
    with explained(lambda: _kept(len(documents), targets)):
        for document in run_tasks(tasks, deadline, jobs, quiet=quiet):
            document["command"] = command_line(ctx)
            documents.append(document)
            if not quiet and not as_json:
                _print_table(document)
    if page_path is not None:
        from redy.report import page

        write_text(page_path, page(documents))
    if report_path is not None or as_json:
        text = json.dumps(documents[0] if len(documents) == 1 else documents, indent=2)
        if report_path is not None:
            write_text(report_path, text + "\n")
        if as_json:
            click.echo(text)
    if certificate is not None and any(document["certificate"] is None for document in documents):
        for document in documents:
            click.echo(next((note for note in document["notes"] if note.startswith("no certificate")), ""), err=True)
        ctx.exit(3)


def _kept(done: int, targets: list[Path]) -> str:
    """What an interruption leaves behind."""
    if done == 0:
        return "nothing was written"
    return f"{done} of {len(targets)} networks are written, the last is {targets[done - 1]}; no report was written"


def _reference(text: str | None, port: Port) -> object:
    """The reference of a relative tolerance: nothing, the box of inputs, or a box of its own."""
    from redy.formats.boxes import read_box

    return text if text is None or text == "box" else read_box(text, port)


def _names(criteria: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in criteria.split(",") if name.strip())
    if not names:
        raise InputError(f"--criteria {criteria!r}: names no step")
    return names


def _targets(model: Path, output: Path | None, count: int) -> list[Path]:
    """Where to write: the output itself, or numbered from 1 before the suffix for several boxes."""
    return list(_numbered(model.with_name(f"{model.stem}.reduced.onnx") if output is None else output, count))


def _numbered(first: Path, count: int) -> list[Path]:
    if count == 1:
        return [first]
    return [first.with_name(f"{first.stem}-{k}{first.suffix}") for k in range(1, count + 1)]


def _print_table(document: dict[str, Any]) -> None:
    from rich.console import Console

    from redy.report import show

    # A file or a pipe has no width of its own: that of a wide terminal, unless COLUMNS says otherwise.
    console = Console()
    wide = not console.is_terminal and "COLUMNS" not in os.environ
    show(document, Console(width=120) if wide else console)
