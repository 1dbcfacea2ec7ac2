"""`redy simplify`: a pruned model made smaller, exactly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redy.cli.paths import guard, model_files
from redy.cli.running import command_line

if TYPE_CHECKING:
    import onnx

    from redy.simplify import Simplified
    from redy.simplify.latency import Latency
    from redy.simplify.pipeline import Optimize


_FEW = 8
"""Layers named in one line."""


@click.command("simplify")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the smaller model goes.")
@click.option(
    "--residual",
    type=click.Choice(["union", "expand", "auto"]),
    default="auto",
    show_default=True,
    help="Channels constant in one of several added tensors: computed all the same, put in place, or the cheaper.",
)
@click.option("--no-check", is_flag=True, help="Do not compare the result with the original in onnxruntime.")
@click.option(
    "--optimize",
    type=click.Choice(["latency", "macs", "parameters"]),
    default="latency",
    show_default=True,
    help="latency: the result is timed, and rewrites that make it slower are left out.",
)
@click.option("--fix-inputs", is_flag=True, help="Initializers that are also inputs become constants.")
@click.option("--seed", default=0, show_default=True, help="Seed of the inputs of the comparison.")
@click.option(
    "--report",
    is_flag=False,
    flag_value="-",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Print the table (the default); with a path, also write the report there as JSON.",
)
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the report as one HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def simplify_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    model: Path,
    output: Path,
    residual: str,
    no_check: bool,
    optimize: Optimize,
    fix_inputs: bool,
    seed: int,
    report: Path | None,
    page_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Remove the channels of a pruned MODEL that are constant or unused, exactly.

    Needs no data and no input box. What the model computes stays the same up to floating-point rounding, and so do its
    inputs, outputs, opset and domains; operators that are not known are left alone.

    Exit code 0: done; 1: the check of the result failed and nothing was written; 2: bad input or usage.
    """
    from redy.formats.files import write_text
    from redy.simplify import simplify
    from redy.simplify.choice import SLOWEST
    from redy.simplify.files import load, save
    from redy.simplify.latency import measure

    target = report if report is not None and str(report) != "-" else None
    outputs = [("the network", output), ("the network's external data", output.with_name(f"{output.name}.data"))]
    guard(model_files("the model", model), [*outputs, ("the report", target), ("the page", page_path)])
    original = load(model)
    if not quiet:
        click.echo(f"simplifying {model}", err=True)
    result = simplify(
        original, residual=residual, check=not no_check, seed=seed, fix_inputs=fix_inputs, optimize=optimize
    )
    latency = result.report.latency
    if latency is None and result.model is not original:
        latency = measure(original, result.model, SLOWEST, seed)
    facts = as_dict(original, result, latency)
    save(result.model, output)
    if target is not None:
        write_text(target, json.dumps(facts, indent=2) + "\n")
    if page_path is not None:
        from redy.report.listing import simplification_page

        write_text(page_path, simplification_page(facts, str(model), str(output), command_line(ctx)))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif not quiet:
        _print(facts, output)


def as_dict(original: onnx.ModelProto, result: Simplified, latency: Latency | None) -> dict[str, Any]:
    """The report as plain JSON values; sizes in bytes, latency as new over old and in milliseconds."""
    from redy.simplify.files import size_of

    found = result.report
    return {
        "layers": [dataclasses.asdict(layer) for layer in found.layers],
        "parameters": {"before": found.before.parameters, "after": found.after.parameters},
        "multiply_adds": {"before": found.before.multiply_adds, "after": found.after.multiply_adds},
        "bytes": {"before": size_of(original), "after": size_of(result.model)},
        "constants_propagated": found.constants_propagated,
        "latency_ratio": 1.0 if result.model is original else None if latency is None else latency.ratio,
        "latency_milliseconds": None if latency is None else dataclasses.asdict(latency),
        "rewrites": found.rewrites,
        "refused": found.refused,
        "stayed": [
            dataclasses.asdict(entry)
            | {"dead": entry.dead.name.lower(), "why": entry.why.name.lower(), "text": entry.text}
            for entry in found.left.stayed
        ],
        "unstructured_sparsity": [dataclasses.asdict(entry) for entry in found.left.scattered],
        "notes": found.notes,
        "check": None if found.deviation is None else found.deviation.text,
    }


def _print(facts: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from redy.report import listed

    console = Console()
    columns = ("layer", "channels before", "after", "constants in", "operator")
    rows = [
        (
            layer["name"],
            str(layer["before"]),
            str(layer["after"] or "gone"),
            str(layer["constants"] or ""),
            layer["op"],
        )
        for layer in facts["layers"]
    ]
    table = listed(columns, rows, columns[1:4], console)
    totals = Table("", "before", "after", "ratio")
    for name in ("parameters", "multiply_adds", "bytes"):
        before, after = facts[name]["before"], facts[name]["after"]
        totals.add_row(name.replace("_", "-"), f"{before:,}", f"{after:,}", f"{after / before:.3f}" if before else "")
    ratio, times = facts["latency_ratio"], facts["latency_milliseconds"]
    before, after = ("", "") if times is None else (f"{times['before']:.3f} ms", f"{times['after']:.3f} ms")
    shown = "not measured" if ratio is None else f"{ratio:.3f}"
    totals.add_row("latency in onnxruntime, 1 thread", before, after, shown)
    console.print(table)
    console.print(totals)
    for line in facts["notes"]:
        console.print(f"note: {line}", markup=False)
    for entry in facts["stayed"]:
        console.print(entry["text"], markup=False)
    sparse = facts["unstructured_sparsity"]
    if sparse:
        named = ", ".join(f"{entry['layer']} {entry['share']:.0%}" for entry in sparse[:_FEW])
        rest = f" and {len(sparse) - _FEW} more layers" if len(sparse) > _FEW else ""
        console.print(f"unstructured sparsity, which saves no work: zeros inside channels that stay in {named}{rest}")
    for line in facts["refused"]:
        console.print(f"left as it was: {line}", markup=False)
    if facts["check"]:
        console.print(f"check: {facts['check']}", markup=False)
    console.print(f"written: {output}", markup=False)
