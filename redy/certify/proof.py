"""The check of a certificate: from two files and a statement to rows on a box, and from trees to a proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import tree
from .claims import Property, asked
from .encoding import Body, Header, Part, unpack
from .errors import Rejected, Unusable
from .graph import Graph
from .networks import Ask, Codes, Hints, Met, Ranges, Walker
from .space import Array, Ints, Rows, Space, stacked

TRUSTED = ("IEEE float64", "numpy and its BLAS", "the parser of onnx", "SHA-256", "redy.certify")
"""What a certificate rests on, besides the files; docs/soundness.md has the lines."""


@dataclass
class Told:
    """The hints of a certificate's body; partners are told again when the networks are condensed again."""

    body: Body
    header: Header
    paired: dict[int, Ints] = field(default_factory=dict)

    def phases(self, space: Space, rows: Rows, bounds: tuple[Array, Array], ask: Ask) -> Codes:  # noqa: ARG002
        """As the body says; a tree follows where bounds do not show all of it."""
        codes = self.body.phases(len(rows.e))
        if ((codes != 0) & (bounds[0] < 0) & (bounds[1] > 0)).any():
            question, again = ask(codes)
            tree.check(question, again, *self.body.tree(), self.header.fits)
        return codes

    def partners(self, space: Space, number: int, rows: Rows) -> Ints:  # noqa: ARG002
        """As the body says."""
        if number not in self.paired:
            self.paired[number] = self.body.partners(len(rows.e))
        return self.paired[number]


@dataclass(frozen=True)
class Asking:
    """Asks a part's question on sub-boxes: both files are condensed there, with what is known around them."""

    files: tuple[Graph, Graph | None]
    part: Part
    header: Header
    hints: Hints
    caution: float = 1.0

    def on(self, low: Array, high: Array, known: Ranges) -> tuple[tree.Question, tree.Again]:
        """The question, and what asks it again inside."""
        original, reduced = self.files
        if len(low) != original.size or (reduced is not None and reduced.size != original.size):
            raise Rejected("the box and the inputs of the files differ in size")
        space, walker = self._walker(low, high, known)
        first = original.walk(space, walker.relu)
        if reduced is None:
            second = Rows(np.eye(space.n, space.n + 1), np.zeros(space.n))
        else:
            walker.join()
            second = reduced.walk(space, walker.relu)
            if len(first.e) != len(second.e):
                raise Rejected("the files differ in their number of outputs")
        question = asked(space, self.part.claim, len(first.e), stacked([first, second]))

        def again(cell: tree.Cell, lower: Array, upper: Array) -> tuple[tree.Question, tree.Again]:
            return self.on(cell.low, cell.high, [r.inside(lower, upper) for r in walker.ranges])

        return question, again

    def _walker(self, low: Array, high: Array, known: Ranges, until: int = -1) -> tuple[Space, Walker]:
        space = Space(low, high, self.caution)
        share, fits = 2.0**-self.header.share, self.header.root_fits
        return space, Walker(space, self.hints, share, fits, self._inside, known, until)

    def _inside(self, cell: tree.Cell, number: int, known: Ranges) -> tuple[Space, Rows, Ranges]:
        """The original condensed on a sub-box up to one relu."""
        space, walker = self._walker(cell.low, cell.high, known, number)
        try:
            self.files[0].walk(space, walker.relu)
        except Met as met:
            return space, met.z, walker.ranges
        raise AssertionError("a relu was not met again")


def check(original: Path, reduced: Path | None, certificate: bytes) -> Header:
    """What a certificate states about two files (a property: about one), if it proves it.

    Raises:
        Rejected: it does not; the message names the first place that fails.
        Unusable: a file is no ONNX file or cannot be certified, or the bytes are no certificate.
    """
    header, rest = unpack(certificate)
    body = Body(rest)
    if {isinstance(part.claim, Property) for part in header.parts} != {reduced is None}:
        raise Unusable("a property is about one file, every other claim about two")
    files = Graph(original), None if reduced is None else Graph(reduced)
    for graph, digest, name in zip(files, (header.original, header.reduced), ("ORIGINAL", "REDUCED"), strict=True):
        if (graph.digest if graph else "") != digest:
            raise Rejected(f"the certificate is about another file than {name}")
    for part in header.parts:
        with np.errstate(all="ignore"):  # what is not finite is rejected where it is met
            question, again = Asking(files, part, header, Told(body, header)).on(part.low, part.high, [])
            tree.check(question, again, *body.tree(), header.fits)
    if body.at != len(body.data):
        raise Rejected("bytes follow after the last tree")
    return header
