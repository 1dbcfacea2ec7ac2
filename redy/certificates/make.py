"""From two files, a box and a claim to the bytes of a certificate, or to the reason why there is none."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redy.certificates.hints import CAUTION, Search
from redy.certify import Rejected, Unusable, check
from redy.certify.claims import Claim
from redy.certify.encoding import Header, Part, pack
from redy.certify.graph import Graph
from redy.certify.networks import Walker
from redy.certify.space import Array, Space

BISECTED = 16
"""With more inputs that vary, cutting the box in two is no way to a proof; bounds on the whole box must do."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no certificate."""

    reason: str


def certify_files(
    original: Path,
    reduced: Path | None,
    box: tuple[Array, Array],
    claim: Claim,
    *,
    nodes: int = 4000,
    seconds: float = 60.0,
    seed: int = 0,
) -> bytes | Refusal:
    """A certificate that the checker accepts.

    Args:
        original: a file.
        reduced: the other file; None for a property, which is about one.
        box: the smallest and the largest inputs, in C order.
        claim: what is to be certified.
        nodes: how many sub-boxes one tree may have.
        seconds: how long the search for trees may take.
        seed: of the points at which phases and partners are looked up.
    """
    try:
        files = Graph(original), None if reduced is None else Graph(reduced)
        low, high = (np.asarray(end, dtype=np.float64).ravel() for end in box)
        part = Part(low, high, claim)
        header = Header(files[0].digest, files[1].digest if files[1] else "", (part,), fold=255)
        with np.errstate(all="ignore"):
            body = _body(files, header, nodes, time.monotonic() + seconds, seed)
        if isinstance(body, Refusal):
            return body
        data = pack(header, body)
        check(original, reduced, data)
    except (Rejected, Unusable) as reason:
        return Refusal(str(reason))
    return data


def _body(files: tuple[Graph, Graph | None], header: Header, nodes: int, deadline: float, seed: int) -> bytes | Refusal:
    (part,), (first, second) = header.parts, files
    if len(part.low) != first.size or (second is not None and second.size != first.size):
        return Refusal("the box and the inputs of the files differ in size")
    points = np.random.default_rng(seed).uniform(part.low, part.high, (256, len(part.low)))
    space = Space(part.low, part.high, CAUTION)
    few = int((part.high > part.low).sum()) <= BISECTED
    search = Search(space, points, nodes if few else 1, header.fits, deadline)
    walker = Walker(space, search, 2.0**-header.share, header.root_fits)
    y = first.walk(walker.affine, walker.first)
    other = None if second is None else second.walk(walker.affine, walker.second)
    if other is not None and len(other.e) != len(y.e):
        return Refusal("the files differ in their number of outputs")
    found, dropped = search.search(part.claim.question(walker.affine, y, other))
    if dropped.any():
        return Refusal("the search for a proof ended before it closed every sub-box")
    return bytes(search.body) + found
