"""`redy certify`: prove a claim about one file and its smaller network, and write the proof as a certificate."""

from __future__ import annotations

from pathlib import Path

import click

from redy.errors import InputError


@click.command("certify")
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("reduced", type=click.Path(path_type=Path))
@click.option("--bounds", required=True, help="The box of inputs: .json, .vnnlib, or JSON such as '[-1,1]'.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The certificate.")
@click.option("--tolerance", type=float, help="Every output differs by at most this number.")
@click.option("--margin", type=float, help="The winner is kept where it leads by more than this number.")
@click.option(
    "--winner",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Whether the largest or the lowest output wins.",
)
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="Seconds for the search.")
@click.pass_context
def certify_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    original: Path,
    reduced: Path,
    bounds: str,
    output: Path,
    tolerance: float | None,
    margin: float | None,
    winner: str,
    time_limit: float,
) -> None:
    """Prove that REDUCED keeps what is asked of ORIGINAL on a box, and write a certificate for `redy check`.

    Exit code 0: written; 3: no proof was found and nothing was written; 2: bad input or usage.
    """
    import numpy as np

    from redy.certificates import Effort, Refusal, certify_files
    from redy.certify.claims import Claim, SameWinner, Within
    from redy.cli.paths import guard, model_files
    from redy.formats.boxes import read_box
    from redy.formats.files import write_atomically
    from redy.formats.onnx_read import read_network

    if (tolerance is None) == (margin is None):
        raise InputError("give exactly one of --tolerance and --margin")
    number = tolerance if margin is None else margin
    if number is None or not 0 < number < float("inf"):
        raise InputError(f"{number}: the tolerance or margin must be a positive number")
    claim: Claim = (
        Within(np.array([number])) if margin is None else SameWinner("min" if winner == "min" else "max", number)
    )
    sources = [
        *model_files("the model", original),
        *model_files("the reduced network", reduced),
        ("the bounds", bounds),
    ]
    guard(sources, [("the certificate", output)])
    box = read_box(bounds, read_network(original).input.shape)
    made = certify_files(original, reduced, (box.lower, box.upper), claim, effort=Effort(seconds=time_limit))
    if isinstance(made, Refusal):
        click.echo(f"no certificate: {made.reason}", err=True)
        ctx.exit(3)
    write_atomically(output, lambda path: path.write_bytes(made))
    click.echo(f"{output}: {len(made)} bytes, {claim}")
