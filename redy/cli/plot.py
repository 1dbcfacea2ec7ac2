"""`redy plot`: figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from redy.cli.paths import Named, guard, model_files
from redy.errors import InputError

if TYPE_CHECKING:
    from redy.report.plots import Outputs


@click.command("plot")
@click.argument("kind", type=click.Choice(["criteria", "slices", "decisions"]))
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Figure: .png, .svg or .pdf.")
@click.option("--bounds", help="decisions: box of inputs: .json, .vnnlib, or JSON such as '[-1,1]'.")
@click.option("--inputs", default="0,1", show_default=True, help="decisions: the two inputs that vary, from 0.")
@click.option(
    "--winner",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="decisions: whether the largest or the lowest output wins.",
)
@click.option(
    "--points", type=click.IntRange(2, 2000), default=300, show_default=True, help="decisions: points along each input."
)
def plot_command(
    kind: Literal["criteria", "slices", "decisions"],
    sources: tuple[Path, ...],
    output: Path,
    bounds: str | None,
    inputs: str,
    winner: str,
    points: int,
) -> None:
    """Write a figure of SOURCES. Needs the extra `plot`: pip install 'redy[plot]'.

    criteria: reports (JSON) of reductions; the share of units removed by each criterion. slices: a family (.redy); how
    the share of units removed is distributed over its slices. decisions: one network, or an original and its reduced
    network; the winning output over two inputs, the others at the centre of the box, and where the two differ.

    Exit code 0: done; 2: bad input or usage.
    """
    from redy.report.plots import figure_type

    read: list[Named] = [("a source", path) for path in sources]
    if kind == "decisions":
        read = [entry for path in sources for entry in model_files("a network", path)]
    guard([*read, ("the source of the bounds", bounds)], [("the figure", output)])
    figure_type(output)
    if (bounds is not None) != (kind == "decisions"):
        raise InputError("--bounds: is needed for decisions and belongs to nothing else")
    if kind == "criteria":
        _criteria(sources, output)
    elif kind == "slices":
        _slices(sources, output)
    else:
        _decisions(sources, bounds or "", _two(inputs), winner, points, output)


def _criteria(sources: tuple[Path, ...], output: Path) -> None:
    from redy.report import read_report
    from redy.report.plots import plot_criteria

    named = [(path, document) for path in sources for document in read_report(path)]
    names = [Path(document["original"]["file"] or path).stem for path, document in named]
    plot_criteria([document for _, document in named], names, output)


def _slices(sources: tuple[Path, ...], output: Path) -> None:
    from redy.report.plots import plot_slices
    from redy.slicing.family import Family

    if len(sources) != 1:
        raise InputError("redy plot slices: give one family")
    plot_slices(Family.open(sources[0]).removed(), output)


def _decisions(
    sources: tuple[Path, ...], bounds: str, inputs: tuple[int, int], winner: str, points: int, output: Path
) -> None:
    from redy.formats.boxes import read_box
    from redy.formats.onnx_read import read_network
    from redy.report.plots import plot_decisions

    if len(sources) > 2:
        raise InputError("redy plot decisions: give one network, or an original and its reduced network")
    box = read_box(bounds, read_network(sources[0]).input)
    networks = [(path.name, _outputs(path)) for path in sources]
    plot_decisions(networks, box, inputs, winner, points, output)


def _outputs(path: Path) -> Outputs:
    """What onnxruntime gives; for the first output, flattened."""
    import numpy as np

    from redy.formats.onnx_run import Session

    session = Session(path)

    def run(points: np.ndarray) -> np.ndarray:
        parts = [session.run_all(points[k : k + 4096])[0] for k in range(0, len(points), 4096)]
        found = np.concatenate([part.reshape(len(part), -1) for part in parts]).astype(np.float64)
        if found.shape[1] < 2:
            raise InputError(f"{path}: decisions need an output of at least two elements")
        return found

    return run


def _two(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--inputs {text}: must be two numbers of inputs, such as 0,1")
    return int(parts[0]), int(parts[1])
