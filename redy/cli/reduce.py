"""`redy reduce`: one network, one or several boxes -> smaller networks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
@click.option("--certificate", type=click.Path(path_type=Path), help="Write a proof for `redy check`; one box.")
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
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove which neurons of MODEL are not needed on a box of inputs and write the smaller network.

    Several boxes in the bounds give one output each, numbered from 1 before the suffix.

    Exit code 0: done, also when a limit ended the search; 1: an internal check failed and nothing was written; 2: bad
    input or usage; 3: the network was written but no certificate was found.
    """
    from redy.formats.boxes import read_boxes
    from redy.formats.files import file_digest, write_text
    from redy.formats.onnx_read import read_network

    begin = time.monotonic()
    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}: must be a positive number of seconds")
    port = read_network(model, shapes).input
    boxes = read_boxes(bounds, port)
    if certificate is not None and (len(boxes) != 1 or (preserve == "decision" and margin is None)):
        raise InputError("--certificate needs one box, and with --preserve decision a --margin")
    targets = _targets(model, output, len(boxes))
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
            ("the certificate", certificate),
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
    tasks = [Task(model, box, target, options, shapes) for box, target in zip(boxes, targets, strict=True)]
    deadline = None if time_limit is None else begin + time_limit
    documents = []
    for document in run_tasks(tasks, deadline, jobs, quiet=quiet):
        document["command"] = command_line(ctx)
        documents.append(document)
        if not quiet and not as_json:
            _print_table(document)
    if certificate is not None and not _certified(tasks[0], documents[0], certificate):
        click.get_current_context().exit(3)
    if certificate is not None:
        documents[0]["certificate"] = {"file": str(certificate), "sha256": file_digest(certificate)}
    if page_path is not None:
        from redy.report import page

        write_text(page_path, page(documents))
    if report_path is not None or as_json:
        text = json.dumps(documents[0] if len(documents) == 1 else documents, indent=2)
        if report_path is not None:
            write_text(report_path, text + "\n")
        if as_json:
            click.echo(text)


def _certified(task: Task, document: dict[str, Any], target: Path) -> bool:
    """Write the certificate of the reduction: the decision, or outputs within 1.3 times the proved error."""
    import numpy as np

    from redy.certificates import Refusal, certify_files
    from redy.certify.claims import Claim, SameWinner, Within
    from redy.formats.files import write_atomically

    options, error = task.options, document["guarantee"]["error"]
    claim: Claim
    if options["preserve"] == "decision":
        claim = SameWinner("min" if options["winner"] == "min" else "max", options["margin"])
    else:
        proved = np.concatenate([np.ravel(values) for values in (error or {"": [0.0]}).values()]) * 1.3
        if options["preserve"] == "tolerance":
            proved = proved / 1.3 if options["relative_to"] is not None else np.minimum(proved, options["tolerance"])
        claim = Within(np.maximum(proved, 1e-12))
    made = certify_files(task.model, task.target, (task.box.lower, task.box.upper), claim)
    if isinstance(made, Refusal):
        click.echo(f"{target}: no certificate: {made.reason}", err=True)
        return False
    write_atomically(target, lambda path: path.write_bytes(made))
    return True


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
    first = model.with_name(f"{model.stem}.reduced.onnx") if output is None else output
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
