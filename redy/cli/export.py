"""`redy export`: a family, or one slice of it, in a form that runs without redy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from redy.cli.paths import guard
from redy.errors import InputError


@click.command("export")
@click.argument("family", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A .onnx or a .c file.")
@click.option("--slice", "index", type=int, help="Only this slice (.onnx).")
@click.option("--form", type=click.Choice(["shared", "folded"]), help="Default: the family's own.")
def export_command(family: Path, output: Path, index: int | None, form: Literal["shared", "folded"] | None) -> None:
    """Write FAMILY as one ONNX model that picks the slice itself (shared form), or as a self-contained C99 file.

    Exit code 0: done; 2: bad input or usage.
    """
    from redy.formats.files import write_atomically, write_text
    from redy.slicing.export_c import c_source
    from redy.slicing.export_onnx import family_model, slice_model
    from redy.slicing.family import Family

    guard([("the family", family)], [("the export", output)])
    opened = Family.open(family)
    if output.suffix == ".c" and index is None:
        write_text(output, c_source(opened, form))
        return
    if output.suffix != ".onnx":
        what = "one slice is written as .onnx" if output.suffix == ".c" else "the name must end in .onnx or .c"
        raise InputError(f"{output}: {what}")
    if index is None and form == "folded":
        raise InputError(
            "--form folded: one ONNX model of a whole family has the shared form; give --slice, or a .c file"
        )
    model = family_model(opened) if index is None else slice_model(opened, index, form)
    write_atomically(output, lambda temporary: temporary.write_bytes(model.SerializeToString()))
