"""`redy slice`: a box is cut into slices, the network reduced for each, and all of it written as one family."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from redy.cli.interrupts import explained
from redy.cli.paths import guard, model_files, store_files
from redy.cli.progress import Display
from redy.cli.workers import worker_options
from redy.errors import InputError

if TYPE_CHECKING:
    from redy.slicing.run import Progress


@click.command("slice")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--bounds", required=True, help="Box of inputs: .json, .vnnlib, or JSON such as '[-1,1]'.")
@click.option("--splits", help="Parts per input: one number for all inputs, or one each, such as 8,4,4,2,2.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL.redy beside the model.")
@click.option("--adaptive", is_flag=True, help="Cut where a cut removes most, into --budget slices.")
@click.option("--budget", type=click.IntRange(min=1), help="Number of slices, for --adaptive.")
@click.option("--flash", help="Cut for the fastest C99 code within so many bytes, such as 256k or 1M.")
@click.option("--at", "layer", help="Cut the values of this ReLU layer instead of the input, into 2^UNITS slices.")
@click.option("--units", type=click.IntRange(min=1), help="How many units of the layer are halved, for --at.")
@click.option(
    "--preserve",
    type=click.Choice(["outputs", "decision", "tolerance"]),
    default="outputs",
    show_default=True,
    help="What stays the same on the box.",
)
@click.option(
    "--winner",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Whether the largest or the lowest output wins, for decisions.",
)
@click.option("--margin", type=float, help="Outputs closer than this are tied. Default: 1e-5 of the largest output.")
@click.option("--tolerance", type=float, help="Largest change of an output, for --preserve tolerance.")
@click.option(
    "--relative-to", type=click.Choice(["box"]), help="The tolerance is a share of the output's range met on the box."
)
@click.option(
    "--form",
    type=click.Choice(["shared", "folded", "auto"]),
    default="auto",
    show_default=True,
    help="Whether slices share one set of weights or each has folded weights of its own.",
)
@click.option("--store-folded", is_flag=True, help="Store the folded networks; else they are folded at first use.")
@click.option("--work", type=click.IntRange(min=0), default=200_000_000, show_default=True, help="Search per slice.")
@click.option("--samples", type=click.IntRange(min=0), default=1024, show_default=True, help="Points per slice.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Start of every random choice; equal seeds give equal results.",
)
@click.option("--time-limit", type=float, help="Seconds per slice; a slice that needs more is recorded as partial.")
@click.option("--property", "prop", type=click.Path(path_type=Path), help="Keep slices where it is proved (VNN-LIB).")
@worker_options
@click.option("--store", type=click.Path(path_type=Path), help="Results store (SQLite). Default: OUTPUT.sqlite.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the family as one HTML page.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
def slice_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    model: Path,
    bounds: str,
    splits: str | None,
    output: Path | None,
    adaptive: bool,
    budget: int | None,
    flash: str | None,
    layer: str | None,
    units: int | None,
    preserve: Literal["outputs", "decision", "tolerance"],
    winner: Literal["max", "min"],
    margin: float | None,
    tolerance: float | None,
    relative_to: Literal["box"] | None,
    form: Literal["shared", "folded", "auto"],
    store_folded: bool,
    work: int,
    samples: int,
    seed: int,
    time_limit: float | None,
    prop: Path | None,
    jobs: int,
    scheduler: str | None,
    store: Path | None,
    resume: bool,
    csv_path: Path | None,
    parquet: Path | None,
    page_path: Path | None,
    quiet: bool,
) -> None:
    """Cut a box into slices, find what MODEL does not need on each, and write the family of small networks.

    Every finished slice is durable in the store: after an interruption the same command with --resume goes on.

    Exit code 0: done, also when limits ended the search of slices; 1: an internal check failed; 2: bad input or usage.
    """
    from redy.formats.boxes import read_box
    from redy.formats.onnx_read import read_network
    from redy.slicing.pipeline import slice_network
    from redy.slicing.property import share_of

    if adaptive != (budget is not None):
        raise InputError("--adaptive and --budget (the number of slices) are given together")
    target = model.with_suffix(".redy") if output is None else output
    path = target.with_name(target.name + ".sqlite") if store is None else store
    outputs = [("the family", target), *store_files(path), ("the CSV file", csv_path), ("the Parquet file", parquet)]
    outputs.append(("the page", page_path))
    sources = [*model_files("the model", model), ("the source of the bounds", bounds), ("the property", prop)]
    guard(sources, outputs)
    with explained(lambda: _kept(shown.at, path)), _Shown() as shown:
        family = slice_network(
            model,
            read_box(bounds, read_network(model).input),
            splits=None if splits is None else _numbers(splits),
            budget=budget,
            flash=None if flash is None else _size(flash),
            at=layer,
            units=units,
            preserve=preserve,
            winner=winner,
            margin=margin,
            tolerance=tolerance,
            relative_to=relative_to,
            form=form,
            store_folded=store_folded,
            work=work,
            samples=samples,
            seed=seed,
            time_limit=time_limit,
            prop=prop,
            jobs=jobs,
            scheduler=scheduler,
            store=path,
            resume=resume,
            csv=csv_path,
            parquet=parquet,
            progress=None if quiet else shown.show,
            say=lambda line: click.echo(line, err=True),
        )
    family.save(target)
    if page_path is not None:
        from redy.formats.files import write_text
        from redy.report.family_page import family_page

        write_text(page_path, family_page(family, target.name))
    if not quiet:
        click.echo(family.summary())
        if family.proved is not None:
            click.echo(
                f"property         {family.proved}: {share_of(family, family.proved.kept):.1%} of the box is kept"
            )
        if flash is not None:
            from redy.slicing.export_c import c_source
            from redy.slicing.flash import flash_size

            click.echo(
                f"flash            {flash_size(c_source(family))} bytes of C99 code and tables, {family.form} form"
            )
        click.echo(f"file             {target}: {target.stat().st_size} bytes")


def _size(text: str) -> int:
    """Bytes, with k and M for 1024 and 1024^2.

    Raises:
        InputError: something else.
    """
    match = re.fullmatch(r"(\d+)\s*([kKmM]?)i?[bB]?", text.strip())
    if match is None:
        raise InputError(f"--flash {text}: must be a number of bytes, such as 262144, 256k or 1M")
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()]


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas.

    Raises:
        InputError: something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--splits {text}: must be whole numbers, such as 8 or 8,4,4,2,2") from None


class _Shown(ExitStack):
    """A run of slices on the display; a stage with another number of slices begins a display of its own."""

    at: Progress | None = None

    def show(self, at: Progress) -> None:
        """Show where the run stands."""
        if self.at is None or at.total != self.at.total:
            self.close()
            self._display = self.enter_context(Display("slices", at.total, at.done - 1))
        self.at = at
        partial = f", {at.partial} partial" if at.partial else ""
        self._display.advance(at.done, f"{at.removed:.1%} of units not needed so far{partial}")


def _kept(at: Progress | None, store: Path) -> str:
    """What an interruption leaves behind."""
    done = "the finished slices" if at is None else f"{at.done:,} of {at.total:,} slices"
    return f"{done} are kept in {store}; the same command with --resume goes on"
