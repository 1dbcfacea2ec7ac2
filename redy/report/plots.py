"""Figures for papers: the share removed by criterion, its distribution over slices, and maps of decisions.

Needs the extra `plot` (matplotlib). The type of the file is that of its name: PNG, SVG or PDF.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redy.errors import InputError
from redy.formats.files import write_atomically
from redy.model import Array, Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPES = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
CRITERIA = ("phase", "forward", "result", "relaxed")
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""One for each criterion, told apart with any colour vision (Okabe and Ito)."""
BINS = 40
"""Bars of a histogram."""

Outputs = Callable[[Array], Array]
"""Points (m, *input shape) -> outputs (m, k)."""


def figure_type(path: Path) -> str:
    """The type of figure that a name asks for.

    Raises:
        InputError: another than PNG, SVG and PDF, or matplotlib is missing.
    """
    if path.suffix.lower() not in TYPES:
        raise InputError(f"{path}: the name must end in {', '.join(TYPES)}")
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra, and slow to load
    except ImportError as error:
        raise InputError("redy plot: needs matplotlib; install it with `pip install 'redy[plot]'`") from error
    return TYPES[path.suffix.lower()]


def removed_shares(document: Mapping[str, Any]) -> dict[str, float]:
    """By criterion the share of the original's units that it found not to be needed (a report of a reduction)."""
    counts = Counter(finding["kind"] for finding in document["findings"])
    units = max(1, document["original"]["units"])
    return {kind: counts[kind] / units for kind in CRITERIA}


def plot_criteria(documents: Sequence[Mapping[str, Any]], names: Sequence[str], target: Path) -> None:
    """Stacked bars, one for each reduction: the share of units removed by each criterion.

    Args:
        documents: reports of reductions.
        names: what stands beside each bar.
        target: the figure.
    """
    figure, axes = _figure(1, height=1.2 + 0.3 * len(documents))
    left = np.zeros(len(documents))
    places = np.arange(len(documents))
    shares = [removed_shares(document) for document in documents]
    for kind, colour in zip(CRITERIA, COLOURS, strict=True):
        width = np.array([share[kind] for share in shares])
        if width.any():
            axes[0].barh(places, 100 * width, left=100 * left, color=colour, label=kind)
        left += width
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 100)
    axes[0].set_xlabel("units removed (%)")
    if left.any():
        axes[0].legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    _write(figure, target)


def plot_slices(removed: Array, target: Path) -> None:
    """A histogram of the share of units removed over slices, and its cumulative curve.

    Args:
        removed: (slices,) shares in [0, 1].
        target: the figure.
    """
    figure, (bars, curve) = _figure(2)
    bars.hist(100 * removed, bins=BINS, range=(0, 100), color=COLOURS[0])
    bars.set_ylabel("slices")
    # At x: the share of slices of which at least x% of the units are removed.
    shares = np.sort(removed)
    curve.step(np.append(100 * shares, 100.0), np.append(1 - np.arange(len(shares)) / len(shares), 0.0), where="pre")
    curve.set_ylabel("share of slices with at least as many removed")
    curve.set_ylim(0, 1.02)
    for one in (bars, curve):
        one.set_xlabel("units removed (%)")
        one.set_xlim(0, 100)
    _write(figure, target)


def plot_decisions(
    networks: Sequence[tuple[str, Outputs]],
    box: Box,
    inputs: tuple[int, int],
    winner: str,
    points: int,
    target: Path,
) -> None:
    """The winning output over two inputs, the others at the centre of the box; with two networks, where they differ.

    Args:
        networks: name and outputs of the original, or of the original and the reduced network.
        box: the inputs.
        inputs: which two elements of the flattened input vary.
        winner: "max" or "min": which output wins.
        points: points along each of the two inputs.
        target: the figure.
    """
    grid, extent = _grid(box, inputs, points)
    wins = []
    for _, run in networks:
        outputs = run(grid)
        wins.append((outputs.argmax(axis=1) if winner == "max" else outputs.argmin(axis=1)).reshape(points, points))
    figure, axes = _figure(len(networks) + (len(networks) == 2))
    classes = int(max(found.max() for found in wins)) + 1
    titles = [name for name, _ in networks]
    if len(networks) == 2:
        wins.append((wins[0] != wins[1]).astype(np.int64))
        titles.append(f"different at {int(wins[2].sum()):,} of {wins[2].size:,} points")
    for place, (one, found, title) in enumerate(zip(axes, wins, titles, strict=True)):
        count, colours = (2, "Greys") if place == 2 else (classes, "tab10" if classes <= 10 else "tab20")
        image = one.imshow(
            found,
            origin="lower",
            extent=extent,
            aspect="auto",
            cmap=colours,
            vmin=-0.5,
            vmax=(max(count, 10 if classes <= 10 else 20) if place < 2 else count) - 0.5,
            interpolation="nearest",
        )
        one.set_title(title, fontsize=9, wrap=True)
        one.set_xlabel(f"input {inputs[0]}")
        if place < 2:
            bar = figure.colorbar(image, ax=one, ticks=range(classes), label="output that wins")
            bar.ax.set_ylim(-0.5, classes - 0.5)
    axes[0].set_ylabel(f"input {inputs[1]}")
    _write(figure, target)


def _grid(box: Box, inputs: tuple[int, int], points: int) -> tuple[Array, tuple[float, float, float, float]]:
    """Points (points * points, *shape) on the plane of two inputs through the centre, row by row, and its ends."""
    lower, upper = box.lower.ravel(), box.upper.ravel()
    if not all(0 <= index < lower.size for index in inputs) or inputs[0] == inputs[1]:
        raise InputError(f"--inputs {inputs[0]},{inputs[1]}: must be two different inputs from 0 to {lower.size - 1}")
    x, y = inputs
    grid = np.tile(lower + (upper - lower) / 2, (points * points, 1))
    across, up = np.linspace(lower[x], upper[x], points), np.linspace(lower[y], upper[y], points)
    grid[:, x], grid[:, y] = np.tile(across, points), np.repeat(up, points)
    return grid.reshape(-1, *box.lower.shape), (lower[x], upper[x], lower[y], upper[y])


def _figure(panels: int, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure without the state of pyplot, so that nothing opens a window."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load

    figure = Figure(figsize=(max(6.0, 3.6 * panels), height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, panels)))


def _write(figure: Figure, target: Path) -> None:
    """The same figure gives the same bytes: no date and no random names go into it."""
    import matplotlib as mpl  # noqa: PLC0415 - as above

    kind = figure_type(target)
    dates: dict[str, None] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with mpl.rc_context({"svg.hashsalt": "redy", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a character that no font has is drawn as a box
        write_atomically(target, lambda path: figure.savefig(path, format=kind, dpi=200, metadata=dates))
