"""What a reduction promises to preserve, with every number that is relative made absolute once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redy.errors import InputError
from redy.model import Array, Box, Network, SameWinner
from redy.questions.query import outputs
from redy.questions.seen import sample_points

if TYPE_CHECKING:
    from redy.reduction.problem import Options

MARGIN = 1e-5
"""Outputs closer than this share of the largest output are tied, by default."""
REFERENCE_POINTS = 20_000


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs are equal, up to what rounding changes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The winner is kept.

    Attributes:
        claim: which output wins, and what counts as a tie.
    """

    claim: SameWinner


@dataclass(frozen=True, slots=True, eq=False)
class Tolerance:
    """Every output stays within its tolerance.

    Attributes:
        allowed: one positive number per output element, all outputs flattened, one after the other.
        relation: where these numbers come from, in words, if they are relative.
    """

    allowed: Array
    relation: str

    def __str__(self) -> str:
        """The tolerance in words."""
        values = ", ".join(f"{value:.4g}" for value in np.unique(self.allowed)[:8])
        return f"within the tolerance {values}{self.relation}"


Promise = Outputs | Decision | Tolerance


def promise_of(network: Network, box: Box, options: Options, points: Array) -> Promise:
    """What the options promise for a network on a box, of which `points` (m, *input shape) are some.

    Raises:
        InputError: there is no decision: the network has several outputs, or fewer than two elements to decide between.
    """
    if options.preserve == "outputs":
        return Outputs()
    if options.preserve == "decision":
        return Decision(decision_claim(network, options, points))
    assert options.tolerance is not None
    size = sum(math.prod(port.shape) for port in network.outputs)
    reference = options.relative_to
    if reference is None:
        return Tolerance(np.full(size, options.tolerance), "")
    where = "the box" if reference == "box" else "the reference box"
    spans = output_range(network, box if reference == "box" else reference, options.seed)
    return Tolerance(options.tolerance * spans, f" ({options.tolerance:g} of the output's range met on {where})")


def decision_claim(network: Network, options: Options, points: Array) -> SameWinner:
    """What "the decision" means.

    Raises:
        InputError: the network has several outputs, or fewer than two elements to decide between.
    """
    if len(network.outputs) != 1 or math.prod(network.outputs[0].shape) < 2:
        raise InputError("mode decision needs a network with one output of at least two elements")
    margin = options.margin
    if margin is None:
        margin = MARGIN * max(float(np.abs(outputs(network, points)).max(initial=0.0)), 1e-30)
    return SameWinner(options.winner, margin, margin / 2)


def output_range(network: Network, box: Box, seed: int) -> Array:
    """The range of every output element met at points of a box: at most the real range, so never a laxer tolerance."""
    count = min(REFERENCE_POINTS, max(200, 2_000_000_000 // max(1, network.macs)))
    found = outputs(network, sample_points(box, count, 1024, seed))
    return np.asarray(found.max(axis=0) - found.min(axis=0))
