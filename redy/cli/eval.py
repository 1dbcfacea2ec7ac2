"""`redy eval`: the outputs of a family at given points."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import click

from redy.cli.paths import guard
from redy.errors import InputError


@click.command("eval")
@click.argument("family", type=click.Path(path_type=Path))
@click.option("--input", "points", required=True, type=click.Path(path_type=Path), help="Points as .npy (n, inputs).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write outputs as .npy; by default they are printed."
)
@click.option("--form", type=click.Choice(["shared", "folded"]), help="Default: the family's own.")
@click.option(
    "--engine",
    type=click.Choice(["numpy", "onnxruntime"]),
    default="numpy",
    show_default=True,
    help="What searches for proofs.",
)
def eval_command(
    family: Path,
    points: Path,
    output: Path | None,
    form: Literal["shared", "folded"] | None,
    engine: Literal["numpy", "onnxruntime"],
) -> None:
    """Evaluate FAMILY (a file that `redy slice` wrote) at points of its box.

    Exit code 0: done; 2: bad input or usage, such as a point outside the box.
    """
    import numpy as np

    from redy.formats.files import write_atomically
    from redy.slicing.family import Family

    guard([("the family", family), ("the points", points)], [("the outputs", output)])
    opened = Family.open(family)
    try:
        x = np.load(points, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{points}: is not a readable .npy file of numbers ({error})") from error
    if not isinstance(x, np.ndarray):
        raise InputError(f"{points}: holds several arrays; give a .npy file with one")
    try:
        y = opened.evaluate(x, form=form, engine=engine)
    except InputError as error:
        raise InputError(f"{points}: {error}") from error
    if output is None:
        # The number of outputs is given: -1 has no meaning where there are no points.
        for row in np.atleast_2d(y.reshape(len(y), math.prod(y.shape[1:])) if y.ndim > 1 else y):
            click.echo(" ".join(repr(float(value)) for value in row))
        return

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, y, allow_pickle=False)

    write_atomically(output, write)
