"""The certificate of a reduction: made for the file that is about to be written, which names it in its metadata."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx

from redy.certificates import Draft, Effort, Refusal, draft
from redy.certify.claims import Claim, SameWinner, Within
from redy.certify.networks import ACTIVE, INACTIVE, Codes
from redy.model import SameWinner as WinnerKept
from redy.questions.query import outputs
from redy.reduction.limit import TimeUp, ended_after
from redy.reduction.problem import Reduction
from redy.reduction.promise import Tolerance, promise_of

MOST = 20.0
"""The CPU seconds after which it is ended, in those of the search: counted work is far from time on some machines."""
LATE = 0.2
"""Seconds that it has also behind a time limit."""
KEY = "redy.certificate"
"""Where the metadata hold `Draft.digest`."""
SLACK, FLOOR = 1.25, 1e-12
"""A certified error is asked for at this multiple of the proved one, and not below this number."""
MARGIN, LARGEST = 1000.0, 1e-2
"""A certified margin may be so many times the proved one; where outputs are kept, an error this share of them."""
USUAL, ASKED = 1.5, 60.0
"""Seconds that the search may take, in counted work: by default, and where the certificate was asked for."""
WIDEST = 2**21
"""Units times columns of the condensed form; for larger networks certificates are made on demand only."""


class Certifier:
    """The hook of `write_reduction`.

    Attributes:
        data: the certificate's bytes, once the hook was called; None where there is none.
        claim: what it states, in words.
        reason: why there is none.
    """

    def __init__(self, reduction: Reduction, source: Path, *, asked: bool, end: float | None = None) -> None:
        self.reduction, self.source, self.asked = reduction, source, asked
        self.end = math.inf if end is None else max(end, time.monotonic() + LATE)
        self.data: bytes | None = None
        self.claim, self.reason = "", ""

    def __call__(self, written: Path) -> None:
        """Make the certificate for a file and put its digest into the file's metadata."""
        if not self.asked and not _fit(self.reduction):
            self.reason = "for a network of this size it is made on request; give --certificate FILE"
            return
        copied = written.read_bytes() == self.source.read_bytes()
        claim, weakest = _claims(self.reduction, copied=copied)
        box, seconds = self.reduction.box, ASKED if self.asked else USUAL
        effort = Effort(seconds, seed=self.reduction.options.seed, deadline=self.end)
        made: Draft | Refusal
        try:
            with ended_after(cpu=MOST * seconds):
                ends, likely = (box.lower, box.upper), _phases(self.reduction)
                made = draft(self.source, written, ends, claim, weakest=weakest, effort=effort, likely=likely)
        except TimeUp:
            made = Refusal("the time for it was over")
        if isinstance(made, Refusal):
            self.reason = made.reason
            return
        if not copied:
            model = onnx.load(written)
            entry = model.metadata_props.add()
            entry.key, entry.value = KEY, made.digest
            written.write_bytes(model.SerializeToString(deterministic=True))
        self.data, self.claim = made.sealed(written), str(made.claim)


def _fit(reduction: Reduction) -> bool:
    """Whether a certificate is made without being asked for: the search is short where boxes are cut, else one pass."""
    units, size = reduction.original.units, reduction.box.lower.size
    return units * (units + size) <= WIDEST


def _claims(reduction: Reduction, *, copied: bool) -> tuple[Claim, Claim]:
    """What is asked for, and the weakest claim that still keeps what the mode promises."""
    promised, network, box = reduction.guarantee.claim, reduction.original, reduction.box
    if isinstance(promised, WinnerKept):
        return SameWinner(promised.winner, promised.margin), SameWinner(promised.winner, MARGIN * promised.margin)
    proved = np.zeros_like(promised.tolerance) if copied else promised.tolerance
    if reduction.options.preserve == "tolerance":
        promise = promise_of(network, box, reduction.options, box.center[None])
        assert isinstance(promise, Tolerance)
        most = promise.allowed
    else:
        values = outputs(network, np.concatenate([box.lower[None], box.upper[None], box.center[None]]))
        most = np.full(proved.shape, LARGEST * max(float(np.abs(values).max(initial=0.0)), 1e-30))
    most = np.maximum(most, proved)
    return Within(np.minimum(np.maximum(proved * SLACK, FLOOR), most)), Within(most)


def _phases(reduction: Reduction) -> list[Codes] | None:
    """Per relu the phases that the bounds of the reduction show, where all activations are relus."""
    nodes = reduction.original.activations
    if reduction.bounds is None or not all(node.function.is_relu for node in nodes):
        return None
    pieces = reduction.bounds.pieces(reduction.original)
    if any(node.name not in pieces for node in nodes):
        return None
    return [np.array([0, INACTIVE, ACTIVE], np.uint8)[pieces[node.name].ravel() + 1] for node in nodes]
