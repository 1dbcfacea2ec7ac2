"""`redy check`: does a certificate prove what it states about one or two files?"""

from __future__ import annotations

from pathlib import Path

import click

from redy.errors import InputError


@click.command("check")
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[REDUCED] CERT")
@click.pass_context
def check_command(ctx: click.Context, original: Path, files: tuple[Path, ...]) -> None:
    """Check CERT, a certificate about ORIGINAL and REDUCED (a property: about ORIGINAL alone).

    Only redy.certify does the work, which imports nothing else of redy; `python -m redy.certify` is the same.

    Exit code 0: accepted, with the statement; 1: rejected, with the first place that fails; 2: bad input or usage.
    """
    from redy.certify.__main__ import ACCEPTED, BAD, run

    if len(files) > 2:
        raise InputError("give ORIGINAL, REDUCED and one certificate")
    code, lines = run(original, files[0] if len(files) == 2 else None, files[-1])
    if code == BAD:
        raise InputError(lines[0])
    click.echo("\n".join(lines), err=code != ACCEPTED)
    ctx.exit(code)
