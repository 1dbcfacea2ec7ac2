"""`redy explain`: what became of one unit."""

from __future__ import annotations

from pathlib import Path

import click

from redy.errors import InputError


@click.command("explain")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--unit", "name", required=True, help="LAYER/INDEX, such as relu_3/17; INDEX counts from 0.")
def explain_command(result: Path, name: str) -> None:
    """Say what became of one unit in the report RESULT (JSON, of `redy reduce --report`), and why.

    Exit code 0: done; 2: bad input or usage, or no such unit.
    """
    from redy.report import read_report
    from redy.report.cells import FATES, describe, unit

    layer, slash, index = name.rpartition("/")
    if not slash or not (index.isascii() and index.isdecimal()):
        raise InputError(f"--unit {name}: must be LAYER/INDEX, such as relu_3/17")
    documents = read_report(result)
    for number, document in enumerate(documents, start=1):
        units = {row["name"]: row["units"] for row in document["layers"] if row["units"]}
        if layer not in units:
            raise InputError(f"--unit {name}: {result} has no layer {layer}; its layers are {', '.join(units)}")
        if int(index) >= units[layer]:
            raise InputError(f"--unit {name}: {layer} has the units 0 to {units[layer] - 1}")
        fate, finding = unit(document, layer, int(index))
        if len(documents) > 1:
            click.echo(f"box {number}:")
        for part in describe(layer, int(index), fate, finding, (document.get("bounds") or {}).get(layer)).split("; "):
            click.echo(part)
        click.echo(FATES[fate])
