"""`redy prove`: has a network a property, and has it still when it is reduced?"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redy.cli.paths import guard
from redy.cli.progress import Display
from redy.cli.running import command_line
from redy.errors import InputError

if TYPE_CHECKING:
    from redy.model import Array, Property, Verdict
    from redy.questions.situation import Engine

EXIT = {"holds": 0, "violated": 1, "unknown": 3}
COMPETITION = {"holds": "unsat", "violated": "sat", "unknown": "unknown"}
"""The words of the verification competition (VNN-COMP): of the unsafe set, whether it can be reached."""

_PATH = click.Path(path_type=Path)


@click.command("prove")
@click.argument("networks", nargs=-1, required=True, type=_PATH)
@click.option(
    "--property", "properties", multiple=True, required=True, type=_PATH, help="VNN-LIB file; may be given repeatedly."
)
@click.option("--reduced", type=_PATH, help="A reduced network: the property is asked of it as well.")
@click.option("--result", type=_PATH, help="Write the verdict here in the format of VNN-COMP.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "linear", "branch", "milp"]),
    default="auto",
    show_default=True,
    help="What searches for proofs.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Slices of a family at once.")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="Seconds for everything.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write the verdicts as one HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code is the verdict.")
@click.pass_context
def prove_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    ctx: click.Context,
    networks: tuple[Path, ...],
    properties: tuple[Path, ...],
    reduced: Path | None,
    result: Path | None,
    engine: Engine,
    jobs: int,
    time_limit: float,
    page_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Decide for each of NETWORKS and each property whether the property holds for every input of its boxes.

    A VNN-LIB file describes what must not happen: the property is violated by an input that satisfies its assertions
    together with the network's outputs. Such an input is printed; it has the network's float type, lies in the box, and
    onnxruntime confirms it.

    A family (.redy, of `redy slice`) in place of a network is proved slice by slice.

    Exit code 0: all hold; 1: one is violated; 3: none is violated, but one is unknown; 2: bad input or usage.
    """
    if not 0 < time_limit < float("inf"):
        raise InputError(f"--time-limit {time_limit}: must be a positive number of seconds")
    if reduced is not None and len(networks) > 1:
        raise InputError("--reduced belongs to one network; give one")
    subjects = [*networks, *([reduced] if reduced is not None else [])]
    if result is not None and len(subjects) * len(properties) > 1:
        raise InputError("--result holds one verdict; give one network and one property")
    inputs = [*(("a network", path) for path in subjects), *(("a property", path) for path in properties)]
    guard(inputs, [("the result", result), ("the page", page_path)])
    cases = [
        _Family(network, prop, jobs) if network.suffix == ".redy" else _Case(network, prop)
        for network in subjects
        for prop in properties
    ]
    deadline = time.monotonic() + time_limit
    answers = []
    display = Display("verdicts" if len(cases) > 1 else "", len(cases), quiet=quiet or not sys.stderr.isatty())
    for number, case in enumerate(cases):
        with display:
            display.step(f"proving {case.file} of {case.network}")
            answer = case.answer(engine, max((deadline - time.monotonic()) / (len(cases) - number), 0.0))
            display.done += 1
        if case.network == reduced:
            answer["reduction"] = case.coverage()
        answers.append(answer)
        if not quiet and not as_json:
            _say(answer)
    if result is not None:
        _write_result(result, answers[0])
    if page_path is not None:
        from redy.formats.files import write_text
        from redy.report.listing import verdicts_page

        write_text(page_path, verdicts_page(answers, command_line(ctx)))
    if as_json:
        click.echo(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
    states = {str(answer["answer"]) for answer in answers}
    ctx.exit(next(EXIT[state] for state in ("violated", "unknown", "holds") if state in states))


class _Family:
    """One family and one property, by their files."""

    def __init__(self, network: Path, prop: Path, jobs: int) -> None:
        from redy.questions.prove import property_of
        from redy.slicing.family import Family

        self.network, self.file, self.jobs = network, prop, jobs
        self.family = Family.open(network)
        self.claim: Property = property_of(self.family.network, prop)

    def answer(self, engine: Engine, time_limit: float) -> dict[str, object]:
        """The answer as it is printed; `engine` is for networks."""
        from redy.runs.cluster import executor_of
        from redy.slicing.property import prove_family

        if engine != "auto":
            raise InputError(f"{self.network}: is a family; --engine is for networks")
        begin = time.perf_counter()
        each = max(1.0, time_limit * self.jobs / len(self.family))
        verdict = prove_family(self.family, self.claim, executor_of(self.jobs), time_limit=each)
        facts: dict[str, object] = {"network": str(self.network), "property": str(self.file)}
        facts |= {"answer": verdict.answer, "slices": str(verdict.slices), "share": verdict.share}
        if verdict.witness is not None:
            outputs = self.family.evaluate(verdict.witness[None])[0]
            facts |= {"input": verdict.witness.ravel().tolist(), "output": outputs.ravel().tolist()}
        elif verdict.answer == "unknown":
            outside = "a box of the property reaches out of the family's box"
            facts["reason"] = "slices are open" if verdict.covered else outside
        return {**facts, "seconds": round(time.perf_counter() - begin, 3)}

    def coverage(self) -> str:
        """A family is never the reduced network of another file."""
        raise InputError(f"{self.network}: is a family; give it as NETWORK, not with --reduced")


class _Case:
    """One network and one property, by their files."""

    def __init__(self, network: Path, prop: Path) -> None:
        from redy.formats.onnx_read import read_network
        from redy.questions.prove import property_of

        self.network, self.file = network, prop
        self.read = read_network(network)
        self.claim: Property = property_of(self.read, prop)

    def answer(self, engine: Engine, time_limit: float) -> dict[str, object]:
        """The answer as it is printed."""
        from redy.model import Proved, Refuted
        from redy.questions.prove import evaluation, prove
        from redy.questions.situation import Engines

        begin = time.perf_counter()
        run = evaluation(self.network)
        verdict: Verdict = prove(self.read, self.claim, time_limit=time_limit, engines=Engines(engine), run=run)
        facts: dict[str, object] = {"network": str(self.network), "property": str(self.file)}
        if isinstance(verdict, Proved):
            proof = verdict.proof
            facts |= {"answer": "holds", "method": proof.method, "trusted": list(proof.trusted)}
        elif isinstance(verdict, Refuted):
            facts |= {"answer": "violated", **self._witness(verdict.witness, run(verdict.witness[None])[0])}
        else:
            facts |= {"answer": "unknown", "reason": verdict.reason}
        return {**facts, "seconds": round(time.perf_counter() - begin, 3)}

    def _witness(self, point: Array, outputs: Array) -> dict[str, object]:
        return {"input": point.ravel().tolist(), "output": outputs.tolist()}

    def coverage(self) -> str:
        """What the metadata of a reduced network say about the boxes of the property."""
        import onnx

        data = {entry.key: entry.value for entry in onnx.load(self.network, load_external_data=False).metadata_props}
        digest = data.get("redy.box.digest")
        if digest is None:
            return "the file does not say on which box it was reduced"
        covered = [box for box in self.claim.boxes() if box.digest == digest]
        if covered and len(covered) == len(self.claim.boxes()):
            return "made on the property's box: what its metadata state holds for every input of the property"
        return "made on another box than the property's: its statement does not cover the property, this verdict does"


def _say(answer: dict[str, object]) -> None:
    click.echo(f"{answer['answer']}: {answer['property']} of {answer['network']} ({answer['seconds']} s)")
    for name in ("reduction", "slices", "reason", "input", "output", "trusted"):
        if answer.get(name):
            click.echo(f"  {name}: {answer[name]}")


def _write_result(path: Path, answer: dict[str, object]) -> None:
    """The verdict as VNN-COMP takes it: one word, and for `sat` the assignment."""
    from redy.formats.files import write_text

    word = COMPETITION[str(answer["answer"])]
    if word == "unknown" and "time" in str(answer["reason"]):
        word = "timeout"
    lines = []
    for letter, name in (("X", "input"), ("Y", "output")):
        values = answer.get(name, [])
        assert isinstance(values, list)
        lines += [f"({letter}_{k} {value!r})" for k, value in enumerate(values)]
    write_text(path, f"{word}\n" + (f"({chr(10).join(lines)})\n" if lines else ""))
