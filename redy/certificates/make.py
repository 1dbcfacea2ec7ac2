"""From two files, a box and a claim to a certificate, or to the reason why there is none."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from redy.certificates.encoding import content, pack
from redy.certificates.hints import CAUTION, Found
from redy.certificates.trees import Budget, grown
from redy.certify import Rejected, Unusable, check
from redy.certify.claims import Claim, SameWinner, Within
from redy.certify.encoding import Header, Part
from redy.certify.graph import Graph
from redy.certify.networks import Codes
from redy.certify.proof import Asking
from redy.certify.space import Array
from redy.certify.tree import Question

BISECTED = 16
"""With more inputs that vary, cutting the box in two is no way to a proof; bounds on the whole box must do."""
PHASES = 0.6
"""Which share of the time phases may take."""
MARGIN = 1.0 + 2.0**-20
"""By which a weakened claim is weaker than what the search reached."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no certificate."""

    reason: str


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a search may do.

    Attributes:
        seconds: for trees, in counted work of about so many CPU seconds.
        nodes: sub-boxes of one tree.
        seed: of the points at which phases and partners are looked up.
        deadline: `time.monotonic` at which the search ends whatever is left.
    """

    seconds: float = 60.0
    nodes: int = 20_000
    seed: int = 0
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Draft:
    """A proof that does not name the reduced file yet.

    Attributes:
        header: with an empty digest of the reduced file.
        body: phases, partners and trees.
    """

    header: Header
    body: bytes

    @property
    def claim(self) -> Claim:
        """What is proved."""
        return self.header.parts[0].claim

    @property
    def digest(self) -> str:
        """SHA-256 of the content with `reduced` left empty, which the reduced file can hold in its metadata."""
        return hashlib.sha256(content(self.header, self.body)).hexdigest()

    def sealed(self, reduced: Path | None) -> bytes:
        """The certificate's bytes."""
        return pack(replace(self.header, reduced=Graph(reduced).digest if reduced else ""), self.body)


def certify_files(
    original: Path,
    reduced: Path | None,
    box: tuple[Array, Array],
    claim: Claim,
    *,
    effort: Effort = Effort(),
    likely: list[Codes] | None = None,
) -> bytes | Refusal:
    """A certificate that the checker accepts, or the reason why there is none; see `draft`."""
    made = draft(original, reduced, box, claim, effort=effort, likely=likely)
    return made if isinstance(made, Refusal) else made.sealed(reduced)


def draft(
    original: Path,
    reduced: Path | None,
    box: tuple[Array, Array],
    claim: Claim,
    *,
    weakest: Claim | None = None,
    effort: Effort = Effort(),
    likely: list[Codes] | None = None,
) -> Draft | Refusal:
    """A proof that the checker accepts.

    Args:
        original: a file.
        reduced: the other file; None for a property, which is about one.
        box: the smallest and the largest inputs, in C order.
        claim: what is to be certified.
        weakest: where the search ends too early, a weaker claim of the same kind may be certified, up to this one.
        effort: how much the search may do.
        likely: per relu of the original the phases (0, ACTIVE, INACTIVE) of its units; None: what points show.
    """
    try:
        files = Graph(original), None if reduced is None else Graph(reduced)
        low, high = (np.asarray(end, dtype=np.float64).ravel() for end in box)
        header = Header(files[0].digest, "", (Part(low, high, claim),))
        with np.errstate(all="ignore"):
            made = _search(files, header, weakest, effort, likely)
            if isinstance(made, Draft):
                check(original, reduced, made.sealed(reduced))
    except (Rejected, Unusable) as reason:
        return Refusal(str(reason))
    return made


def _search(
    files: tuple[Graph, Graph | None], header: Header, weakest: Claim | None, effort: Effort, likely: list[Codes] | None
) -> Draft | Refusal:
    (part,), work = header.parts, 1e6 * effort.seconds
    if len(part.low) != files[0].size:
        return Refusal("the box and the inputs of the files differ in size")
    points = np.random.default_rng(effort.seed).uniform(part.low, part.high, (256, len(part.low)))
    few = 0 < int((part.high > part.low).sum()) <= BISECTED
    nodes = effort.nodes if few else 1
    budget = Budget(nodes, PHASES * work, header.fits, effort.deadline)
    hints = Found(points, budget, likely)
    question, again = Asking(files, part, header, hints, CAUTION).on(part.low, part.high, [])
    budget.work += (1 - PHASES) * work
    growing = grown(question, again, budget, lambda values: _need(question, values))
    leaves = growing.leaves()
    if question.open(leaves).any():
        weaker = _weaker(part.claim, question, leaves)
        if weakest is None or weaker is None or not _at_most(weaker, weakest):
            return Refusal("the search for a proof ended before it closed every sub-box")
        header = replace(header, parts=(replace(part, claim=weaker),))
    return Draft(header, bytes(hints.body) + growing.bytes())


def _lacking(question: Question, values: Array) -> Array:
    """(..., c) how much the best row of an open clause lacks, 0 for closed ones."""
    padded = np.append(values, np.full((*values.shape[:-1], 1), -np.inf), axis=-1)
    return np.asarray(np.maximum(-padded[..., question.clauses].max(axis=-1), 0.0))


def _need(question: Question, values: Array) -> float:
    """How much is lacking at a sub-box, at least a little where a clause is open."""
    open_ = question.open(values[None])[0]
    return float((_lacking(question, values) + 1e-300)[open_].max(initial=0.0))


def _weaker(claim: Claim, question: Question, leaves: Array) -> Claim | None:
    """The strongest claim of the same kind that these leaves prove."""
    if isinstance(claim, Within):
        outputs = len(question.clauses) // 2
        lacking = _lacking(question, leaves).max(axis=0).reshape(2, outputs).max(axis=0)
        error = (np.broadcast_to(claim.error, outputs) + lacking) * MARGIN
        return Within(error) if np.isfinite(error).all() else None
    if isinstance(claim, SameWinner):
        m = question.clauses.shape[1] - 2
        rows = question.clauses[:, [m - 1, m + 1]]
        lacking = np.where(question.open(leaves), np.maximum(-leaves[:, rows].max(axis=-1), 0.0), 0.0)
        return SameWinner(claim.winner, float((claim.margin + lacking.max()) * MARGIN))
    return None


def _at_most(claim: Claim, weakest: Claim) -> bool:
    if isinstance(claim, Within) and isinstance(weakest, Within):
        return bool((claim.error <= weakest.error).all())
    return isinstance(claim, SameWinner) and isinstance(weakest, SameWinner) and claim.margin <= weakest.margin
