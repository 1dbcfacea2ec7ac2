"""`--shape NAME=1,3,32,32`: sizes of an input that the file leaves open."""

from __future__ import annotations

import re
from typing import Any

import click

_SHAPE = re.compile(r"(.+)=(\d{1,9}(?:,\d{1,9})*)")


def _parse(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in given:
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise click.BadParameter(f"{text!r} is not NAME=SIZES, such as input=1,3,32,32")
        shapes[found[1]] = tuple(int(size) for size in found[2].split(","))
    return shapes


def shape_option(command: Any) -> Any:  # noqa: ANN401 - as click's own decorators
    """Adds `--shape`, which gives the command `shapes`: input name -> sizes, batch axis included."""
    return click.option(
        "--shape",
        "shapes",
        multiple=True,
        callback=_parse,
        metavar="NAME=SIZES",
        help="Sizes of an input that the file leaves open, such as input=1,3,32,32. May be given again.",
    )(command)
