"""The check of a certificate: from two files and a statement to rows on a box, and from trees to a proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import tree
from .claims import Property
from .encoding import Body, Header, Part, unpack
from .errors import Rejected, Unusable
from .graph import Graph
from .networks import Hints, Walker
from .space import Array, Ints, Rows, Space

TRUSTED = ("IEEE float64", "numpy and its BLAS", "the parser of onnx", "SHA-256", "redy.certify")
"""What a certificate rests on, besides the files; docs/soundness.md has the lines."""


@dataclass
class Told:
    """The hints of a certificate's body."""

    body: Body
    header: Header

    def phases(self, rows: Rows, lower: Array, upper: Array) -> NDArray[np.uint8]:  # noqa: ARG002 - only their number counts
        """As the body says; the tree that follows is read by `prove`, which every layer with claims needs."""
        return self.body.phases(len(lower))

    def prove(self, space: Space, rows: Rows) -> bool:
        """The rows are >= 0 at every leaf of the next tree."""
        count = len(rows.e)
        question = tree.Question(rows, np.zeros(count, bool), np.arange(count)[:, None])
        tree.check(space, question, self.body.tree(), self.header.fold, self.header.fits)
        return True

    def partners(self, rows: Rows) -> Ints:
        """As the body says."""
        return self.body.partners(len(rows.e))


def question_of(
    files: tuple[Graph, Graph | None], part: Part, header: Header, hints: Hints, caution: float = 1.0
) -> tuple[Space, tree.Question]:
    """The space of both networks on the part's box and the question that proves its claim."""
    original, reduced = files
    if len(part.low) != original.size or (reduced is not None and reduced.size != original.size):
        raise Rejected("the box and the inputs of the files differ in size")
    space = Space(part.low, part.high, caution)
    walker = Walker(space, hints, 2.0**-header.share, header.root_fits)
    first = original.walk(walker.affine, walker.first)
    if reduced is None:
        return space, part.claim.question(walker.affine, first, None)
    second = reduced.walk(walker.affine, walker.second)
    if len(first.e) != len(second.e):
        raise Rejected("the files differ in their number of outputs")
    return space, part.claim.question(walker.affine, first, second)


def check(original: Path, reduced: Path | None, certificate: bytes) -> Header:
    """What a certificate states about two files (a property: about one), if it proves it.

    Raises:
        Rejected: it does not; the message names the first place that fails.
        Unusable: a file is no ONNX file or cannot be certified, or the bytes are no certificate.
    """
    header, body = unpack(certificate)
    single = all(isinstance(part.claim, Property) for part in header.parts)
    if single != (reduced is None) or single != any(isinstance(part.claim, Property) for part in header.parts):
        raise Unusable("a property is about one file, every other claim about two")
    files = Graph(original), None if reduced is None else Graph(reduced)
    for graph, digest, name in zip(files, (header.original, header.reduced), ("ORIGINAL", "REDUCED"), strict=True):
        if (graph.digest if graph else "") != digest:
            raise Rejected(f"the certificate is about another file than {name}")
    for part in header.parts:
        with np.errstate(all="ignore"):  # what is not finite is rejected where it is met
            space, question = question_of(files, part, header, Told(body, header))
            tree.check(space, question, body.tree(), header.fold, header.fits)
    body.end()
    return header
