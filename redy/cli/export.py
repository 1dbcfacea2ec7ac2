"""`redy export`: a family, one slice of it, or a network, in a form that runs without redy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from redy.cli.paths import guard, model_files
from redy.errors import InputError


@click.command("export")
@click.argument("family", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A .onnx or a .c file.")
@click.option("--slice", "index", type=int, help="Only this slice (.onnx).")
@click.option("--form", type=click.Choice(["shared", "folded"]), help="Default: the family's own.")
@click.option("--prefix", help="Of every name in the C files of a network. Default: the name of the output.")
@click.option("--bounds", help="Box of the test vectors in the C file of a network. Default: [-1,1].")
def export_command(
    family: Path,
    output: Path,
    index: int | None,
    form: Literal["shared", "folded"] | None,
    prefix: str | None,
    bounds: str | None,
) -> None:
    """Write FAMILY as one ONNX model that picks the slice itself (shared form), or as a self-contained C99 file.

    A network (.onnx) in place of FAMILY is written as C99, a .c and a .h file with test vectors that the code checks.

    What is written is read back, and proved (a slice) or compared (a family) before it gets its name.

    Exit code 0: done; 1: the export is not what the family states and was not written; 2: bad input or usage.
    """
    from redy.formats.files import write_text
    from redy.slicing.export_c import c_source
    from redy.slicing.exported import write_slice, write_whole
    from redy.slicing.family import Family
    from redy.slicing.saved import is_source

    if family.suffix.lower() == ".onnx":
        if index is not None or form is not None:
            raise InputError(f"{family}: is a network; --slice and --form are for families")
        _network(family, output, prefix or output.stem, bounds)
        return
    if prefix is not None or bounds is not None:
        raise InputError(f"{family}: is a family; --prefix and --bounds are for networks (.onnx)")
    guard([("the family", family)], [("the export", output)])
    opened = Family.open(family)
    left = [] if opened.proved is None else (~opened.proved.kept).nonzero()[0].tolist()
    if left and (index is None or index in left):
        raise InputError(
            f"{family}: slice {left[0] if index is None else index} was not kept, since the property is not proved "
            "there; export single slices that were kept, with --slice"
        )
    if is_source(opened, output):
        raise InputError(f"{output}: is the model that {family} was made from; choose another file for the export")
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
    if index is None:
        write_whole(opened, output)
    else:
        write_slice(opened, index, output, form)


def _network(model: Path, output: Path, prefix: str, bounds: str | None) -> None:
    """Write the C99 files of a network and say what they take."""
    import numpy as np

    from redy.formats.boxes import read_box
    from redy.formats.c_write import VECTORS, c_network
    from redy.formats.files import write_text
    from redy.formats.onnx_read import read_network

    header = output.with_suffix(".h")
    if output.suffix != ".c" or output.stem != prefix:
        raise InputError(f"{output}: a network is written as {prefix}.c and {prefix}.h; name the output {prefix}.c")
    sources = [*model_files("the model", model), ("the source of the bounds", bounds)]
    guard(sources, [("the code", output), ("the header", header)])
    network = read_network(model)
    box = read_box("[-1,1]" if bounds is None else bounds, network.input.shape)
    written = c_network(network, prefix, box.sample(VECTORS, np.random.default_rng(0)))
    write_text(header, written.header)
    write_text(output, written.code)
    sizes = f"flash {written.flash:,}, RAM {written.ram:,}, stack {written.stack:,} bytes"
    click.echo(f"{output} and {header}: {sizes}; {prefix}_selftest() returns 0 where all test vectors agree")
