"""What a reduction starts from, what its steps share, and what comes out."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redy.bounds.result import Bounds
from redy.milp.solver import Choice
from redy.model import Affine, Array, Box, Comparison, Finding, Network, Unit
from redy.questions.seen import Seen
from redy.questions.situation import Engine
from redy.reduction.limit import BUDGETS, Effort
from redy.reduction.promise import Promise
from redy.rewrite.facts import Facts
from redy.rewrite.shrink import Fewest

Preserve = Literal["outputs", "decision", "tolerance"]
Winner = Literal["max", "min"]
Layout = Literal["auto", "chain"]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; the words are those of `redy reduce`.

    Attributes:
        preserve: "outputs", "decision" or "tolerance".
        criteria: the steps, in order.
        engine: how questions are answered.
        solver: which solver is asked.
        trust: count a solver's dual bound although redy did not re-derive it.
        tolerance: the largest change of an output, for "tolerance".
        relative_to: the tolerance is a share of each output's range over this box ("box": the box of inputs itself);
            None: it is absolute.
        winner: whether the largest or the smallest output wins, for "decision".
        margin: outputs closer than this are tied, for "decision"; None: a small share of the largest output.
        seconds: how long a criterion may take, by name, where it is limited.
        time_limit: seconds for the whole run.
        seed: of every random choice.
        samples: points drawn from the box.
        corners: corners of the box tried, at most.
        budget: work that branching may do, in its own units (deterministic); by default what the effort allows.
        effort: "quick", "normal" or "thorough": the work of all searches (`redy.reduction.limit.BUDGETS`).
        refit: whether the output layer may be fitted to the original's outputs, for "tolerance".
        layout: "chain": the file is a chain of Gemm and Relu from one vector to another (`redy.rewrite.chain`).
        fewest: what the written form has least of.
    """

    preserve: Preserve = "outputs"
    criteria: tuple[str, ...] = ("phase",)
    engine: Engine = "auto"
    solver: Choice = "auto"
    trust: bool = False
    tolerance: float | None = None
    relative_to: Box | Literal["box"] | None = None
    winner: Winner = "max"
    margin: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    time_limit: float | None = None
    seed: int = 0
    samples: int = 4096
    corners: int = 1024
    budget: int | None = None
    effort: Effort = "normal"
    refit: bool = False
    layout: Layout = "auto"
    fewest: Fewest = "latency"


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What stays fixed while criteria search; the search ends at `deadline`, everything at `end` (both monotonic).

    `lean` says that error bounds are not tightened.
    """

    network: Network
    box: Box
    options: Options
    points: Array
    promise: Promise
    deadline: float | None
    progress: Progress
    end: float | None = None
    lean: bool = False

    @property
    def work(self) -> float:
        """The factor on the work of every search."""
        return BUDGETS[self.options.effort].work


@dataclass(slots=True)
class Known:
    """What the steps so far have found; each step adds to it.

    Attributes:
        seen: what points show of every pre-activation.
        bounds: sound bounds of the original's pre-activations, once a step has made them.
        findings: in the order in which they apply.
        pieces: `Activate` name -> per element (flattened) the piece in which it was proved to stay, or -1.
        undecided: units whose question is open.
        stats: per step what it did.
        winner: the output that wins on the whole box, where that was proved for the original.
        notes: what kept a step from doing more.
    """

    seen: Seen
    bounds: Bounds | None = None
    findings: list[Finding] = field(default_factory=list)
    pieces: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    undecided: list[Unit] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    winner: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What was preserved, in words and numbers.

    Attributes:
        statement: the claim about the two files, in words.
        preserve: which mode.
        error: per output a bound of |reduced - original| over the box, or None where redy has none.
        found: the largest |reduced - original| met while the bound was tightened; empty where it was not.
        trusted: what was believed and not re-derived by redy.
        claim: the claim that was proved.
        points: per output (*its shape, *input shape): where `found` was met.
    """

    statement: str
    preserve: Preserve
    error: Mapping[str, Array] | None
    trusted: tuple[str, ...]
    claim: Comparison
    found: Mapping[str, Array] = field(default_factory=dict)
    points: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """The result of `reduce`.

    Attributes:
        network: the smaller network as it is read from the file that `write_reduction` writes. Replaying `findings` on
            the original gives it bit for bit (`replay`).
        model: that file (ONNX), without metadata; None where the original's own file is what is written.
        facts: what the rewriting used besides the findings; None where it used nothing.
    """

    original: Network
    original_digest: str
    box: Box
    options: Options
    findings: tuple[Finding, ...]
    network: Network
    guarantee: Guarantee
    undecided: tuple[Unit, ...]
    units: Mapping[str, Any]
    timings: Mapping[str, float]
    stats: Mapping[str, Any]
    notes: tuple[str, ...]
    bounds: Bounds | None = None
    refit: tuple[Affine, ...] = ()
    model: bytes | None = None
    facts: Facts | None = None

    def __repr__(self) -> str:
        sizes = (f"{before:,} -> {after:,} {name}" for name, before, after in self._sizes())
        return f"Reduction({', '.join(sizes)}; {self.guarantee.statement})"

    def _repr_html_(self) -> str:
        """A table of sizes and the guarantee, for notebooks."""
        rows = "".join(
            f"<tr><td>{name}</td><td>{before:,}</td><td>{after:,}</td></tr>" for name, before, after in self._sizes()
        )
        head = "<tr><th></th><th>original</th><th>reduced</th></tr>"
        return f"<table>{head}{rows}</table><p>{html.escape(self.guarantee.statement)}</p>"

    def _sizes(self) -> tuple[tuple[str, int, int], ...]:
        first, second = self.original, self.network
        return (
            ("units", first.units, second.units),
            ("parameters", first.parameters, second.parameters),
            ("multiply-adds", first.macs, second.macs),
        )
