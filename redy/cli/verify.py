"""`redy verify`: are two networks equivalent on a box of inputs, whoever made the second?"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redy.cli.paths import guard, model_files
from redy.cli.progress import Display
from redy.cli.running import command_line
from redy.cli.shapes import shape_option
from redy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from redy.model import Array, Box, Network
    from redy.model.claims import Comparison
    from redy.questions.situation import Engine
    from redy.reduction.metadata import Stated

EXIT = {"verified": 0, "refuted": 1, "unknown": 3}
OUTPUTS = 1e-4
"""`--preserve outputs`: outputs are equal up to this share of the largest output, which is what rounding may change."""


@click.command("verify")
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("reduced", type=click.Path(path_type=Path))
@click.option("--bounds", help="Box(es): .json, .jsonl, .vnnlib, or JSON such as '[-1,1]'. Default: that in REDUCED.")
@shape_option
@click.option("--tolerance", type=float, help="Every output differs by at most this number.")
@click.option("--preserve", type=click.Choice(["outputs", "decision", "tolerance"]), help="What must be kept.")
@click.option(
    "--winner",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Whether the largest or the lowest output wins, for decisions.",
)
@click.option("--margin", type=float, help="Outputs closer than this are tied. Default: 1e-5 of the largest output.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "branch", "milp"]),
    default="auto",
    show_default=True,
    help="What searches for proofs.",
)
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="Seconds for everything.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Start of every random choice; equal seeds give equal results.",
)
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the answers as one HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code is the answer.")
@click.pass_context
def verify_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    original: Path,
    reduced: Path,
    bounds: str | None,
    shapes: dict[str, tuple[int, ...]],
    tolerance: float | None,
    preserve: str | None,
    winner: str,
    margin: float | None,
    engine: Engine,
    time_limit: float,
    seed: int,
    page_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Decide whether REDUCED keeps what is asked of ORIGINAL for every input of a box.

    --tolerance E: every output differs by at most E. --preserve outputs: by at most 1e-4 of the largest output, for
    rounding. --preserve decision: for every winner i of ORIGINAL and every output o that i beats by more than the
    margin, i still beats o in REDUCED; so the winner is kept wherever it leads by more than the margin. Without these
    options: the claim that redy wrote into REDUCED.

    Exit code 0: verified; 1: refuted, with an input that onnxruntime confirms; 3: unknown; 2: bad input or usage. With
    several boxes one refuted makes 1, else one unknown makes 3.
    """
    from redy.formats.onnx_read import read_network
    from redy.model.interface import with_shapes_of

    if preserve == "tolerance":
        if tolerance is None:
            raise InputError("--preserve tolerance: give --tolerance E, too")
        preserve = None
    if tolerance is not None and preserve is not None:
        raise InputError("give exactly one of --tolerance and --preserve, or none for the claim in the file")
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise InputError(f"--tolerance {tolerance}: must be a positive number")
    if not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}: must be a positive number of seconds")
    files = [*model_files("the original", original), *model_files("the reduced network", reduced)]
    guard([*files, ("the source of the bounds", bounds)], [("the page", page_path)])
    first = read_network(original, shapes)
    networks = first, with_shapes_of(read_network(reduced, shapes), first)
    stated = None if tolerance is not None or preserve is not None else _stated(original, reduced, networks)
    if stated is not None and not stated.box_digest and bounds is None:
        # A copy of the original holds whatever is claimed, on every box.
        bounds = "[0,0]"
    boxes = _boxes(reduced, bounds, stated, networks[0])
    deadline = time.monotonic() + time_limit
    answers = []
    display = Display("boxes" if len(boxes) > 1 else "", len(boxes), quiet=quiet or not sys.stderr.isatty())
    for number, box in enumerate(boxes):
        with display:
            display.step(f"comparing {original} and {reduced}")
            check = _Check((original, reduced), networks, box, seed)
            claim = check.claim(tolerance, preserve, winner, margin) if stated is None else stated.claim
            left = (deadline - time.monotonic()) / (len(boxes) - number)
            units = {} if stated is None else stated.units
            answer = check.answer(claim, engine, time.monotonic() + max(left, 0.0), units) | check.subject()
            display.done += 1
        answers.append(answer)
        if not quiet and not as_json:
            _say(answer)
    if page_path is not None:
        from redy.formats.files import write_text
        from redy.report.listing import verdicts_page

        write_text(page_path, verdicts_page(answers, command_line(ctx)))
    if as_json:
        click.echo(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
    states = {str(answer["answer"]) for answer in answers}
    ctx.exit(next(EXIT[state] for state in ("refuted", "unknown", "verified") if state in states))


def _stated(original: Path, reduced: Path, networks: tuple[Network, Network]) -> Stated:
    """The claim in the reduced file's metadata; that both are the same where the file is a copy of the original."""
    import numpy as np
    import onnx

    from redy.model import Within
    from redy.model.digest import network_digest
    from redy.reduction.metadata import Stated, stated

    digests = [network_digest(network) for network in networks]
    if digests[0] == digests[1]:
        size = sum(int(np.prod(port.shape)) for port in networks[0].outputs)
        return Stated(Within(np.zeros(size)), None, "", digests[0], "", {})
    entries = onnx.load(reduced, load_external_data=False).metadata_props
    found = stated({entry.key: entry.value for entry in entries}, str(reduced))
    if found.original_digest != digests[0]:
        raise InputError(
            f"{reduced}: its claim is about another original than {original}; give the one it was made from"
        )
    return found


def _boxes(reduced: Path, bounds: str | None, stated: Stated | None, network: Network) -> list[Box]:
    """The boxes that were given, or the one in the file; a claim in the file holds on its own box only."""
    from redy.formats.boxes import read_boxes

    if bounds is None:
        if stated is None or stated.box is None:
            raise InputError(f"{reduced}: holds no box; give --bounds")
        return [stated.box]
    boxes = read_boxes(bounds, network.input)
    if stated is not None and stated.box_digest and any(box.digest != stated.box_digest for box in boxes):
        raise InputError(f"{bounds}: is not the box of the claim in {reduced}; give that, or --tolerance or --preserve")
    return boxes


class _Check:
    """Two networks, their files, and a box."""

    def __init__(self, files: tuple[Path, Path], networks: tuple[Network, Network], box: Box, seed: int) -> None:
        from redy.questions.equivalence import prepare

        self.files = files
        self.prepared = prepare(*networks, box, seed)

    def subject(self) -> dict[str, object]:
        """What the answer is about: the files, the box, and the version of redy."""
        from redy.formats.files import file_digest
        from redy.model.digest import network_digest
        from redy.version import __version__

        both = zip(self.files, (self.prepared.original, self.prepared.reduced), strict=True)
        files = [{"file": str(f), "sha256": file_digest(f), "digest": network_digest(n)} for f, n in both]
        box = self.prepared.box
        ends = {"lower": box.lower.tolist(), "upper": box.upper.tolist()}
        return {"files": files, "box": {"digest": box.digest, **ends}, "redy": __version__}

    def claim(self, tolerance: float | None, preserve: str | None, winner: str, margin: float | None) -> Comparison:
        """What is asked, with the numbers that are relative made absolute."""
        import numpy as np

        from redy.model.claims import SameWinner, Within

        scale, count = self.prepared.scale, self.prepared.outputs
        if tolerance is not None:
            return Within(np.full(count, tolerance))
        if preserve == "outputs":
            return Within(np.full(count, OUTPUTS * scale))
        if count < 2 or len(self.prepared.original.outputs) != 1:
            raise InputError(f"{self.files[0]}: mode decision needs a network with one output of at least two elements")
        return SameWinner("max" if winner == "max" else "min", 1e-5 * scale if margin is None else margin)

    def answer(
        self, claim: Comparison, engine: Engine, deadline: float, units: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, object]:
        """The answer as it is printed."""
        from redy.model import Proved, Refuted
        from redy.questions.equivalence import decide

        verdict = decide(self.prepared, claim, engine, deadline, units)
        if isinstance(verdict, Proved):
            proof = verdict.proof
            return {"answer": "verified", "claim": proof.claim, "method": proof.method, "trusted": list(proof.trusted)}
        if isinstance(verdict, Refuted):
            confirmed = self._confirmed(claim, verdict.witness)
            if confirmed is not None:
                return {"answer": "refuted", "claim": str(claim), **confirmed}
            return {"answer": "unknown", "claim": str(claim), "reason": "onnxruntime does not confirm the point found"}
        return {"answer": "unknown", "claim": str(claim), "reason": verdict.reason}

    def _confirmed(self, claim: Comparison, witness: Array) -> dict[str, object] | None:
        """The witness with both outputs in onnxruntime, if the claim is broken there too."""
        import numpy as np

        from redy.formats.onnx_run import Session
        from redy.questions.query import broken

        values = []
        for file in self.files:
            found = Session(file).run_all(witness[None])
            values.append(np.concatenate([np.asarray(v, dtype=np.float64).reshape(1, -1) for v in found], axis=1))
        if not broken(claim, *values)[0] > 0:
            return None
        return {"input": witness.tolist(), "original": values[0][0].tolist(), "reduced": values[1][0].tolist()}


def _say(answer: dict[str, object]) -> None:
    click.echo(f"{answer['answer']}: {answer['claim']}")
    for name in ("reason", "input", "original", "reduced"):
        if name in answer:
            click.echo(f"  {name}: {answer[name]}")
