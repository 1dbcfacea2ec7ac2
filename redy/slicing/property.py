"""A property of a family: proved slice by slice, about the small networks that the family evaluates.

A slice's network is a program of numbers; as a `Network` it is asked whether an input of its closed cell is unsafe, of
the parts of the property's boxes that the cell holds. A slice that none of these boxes touches has nothing to show. The
family has the property if every slice has it and the family's box holds every box of the property.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from redy.errors import InputError, Unsupported
from redy.model import Array, Box, Property, Proved, Refuted
from redy.questions.prove import prove
from redy.runs.executor import Executor, Here, chunked
from redy.slicing.program import network_of

if TYPE_CHECKING:
    from redy.slicing.family import Family

WORK = 500_000_000
"""Work on each slice, in the units of the search; a second or two."""
CHUNK = 32
"""Slices sent to a worker at once."""
OUTSIDE, HOLDS, OPEN, VIOLATED = 2, 1, 0, -1
"""What is known of a slice: no box of the property touches it, proved, unknown, violated."""


@dataclass(frozen=True, slots=True, eq=False)
class SlicesProved:
    """What is known of a property of every slice of a family.

    Attributes:
        name: of the property.
        digest: of its boxes and constraints.
        verdicts: (slices,) int8: OUTSIDE, HOLDS, OPEN or VIOLATED.
    """

    name: str
    digest: str
    verdicts: NDArray[np.int8]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(slices,) where nothing unsafe can happen."""
        return self.verdicts > OPEN

    def __str__(self) -> str:
        """The property and how many slices have it, in words."""
        proved, outside, open_, violated = ((self.verdicts == v).sum() for v in (HOLDS, OUTSIDE, OPEN, VIOLATED))
        return (
            f"{self.name}: proved in {proved} of {len(self.verdicts)} slices, {outside} not touched, "
            f"{open_} unknown, {violated} violated"
        )


@dataclass(frozen=True, slots=True, eq=False)
class FamilyVerdict:
    """A property of a whole family.

    Attributes:
        slices: what is known of each slice.
        share: the share of the family's box, by volume, in slices where it is proved or that no box touches.
        covered: whether the family's box holds every box of the property.
        witness: an unsafe input (*input shape), as `Family.evaluate` computes; or None.
    """

    slices: SlicesProved
    share: float
    covered: bool
    witness: Array | None

    @property
    def answer(self) -> str:
        """One of "holds", "violated" and "unknown"."""
        if self.witness is not None:
            return "violated"
        return "holds" if self.covered and self.slices.kept.all() else "unknown"


@dataclass(frozen=True, eq=False)
class PropertyWork:
    """A picklable function of a slice's number: its verdict, and an unsafe input where one was met.

    Attributes:
        file: the family's file.
        claim: the property.
        work: of the search, for each slice.
        time_limit: seconds for each slice, None for none.
    """

    file: bytes
    claim: Property
    work: int = WORK
    time_limit: float | None = None

    @cached_property
    def family(self) -> Family:
        """As it is read from the file."""
        from redy.slicing.saved import read_family  # noqa: PLC0415 - which imports the family, which imports this

        return read_family(io.BytesIO(self.file))

    def __call__(self, index: int) -> tuple[int, Array | None]:
        """One slice."""
        inside = restricted_to(self.claim, self.family.cut.cell(index))
        if not inside.conjunctions:
            return OUTSIDE, None
        small = network_of(self.family.program(index), self.family.network)
        try:
            verdict = prove(small, inside, work=self.work, time_limit=self.time_limit, run=self._run)
        except Unsupported:
            return OPEN, None
        if isinstance(verdict, Refuted):
            return VIOLATED, verdict.witness
        return HOLDS if isinstance(verdict, Proved) else OPEN, None

    def _run(self, points: Array) -> Array:
        """What the family computes, in the type of its weights."""
        return np.asarray(self.family.evaluate(points), dtype=np.float64).reshape(len(points), -1)


def restricted_to(claim: Property, box: Box) -> Property:
    """The part of the unsafe set whose inputs lie in a box."""
    parts = []
    for conjunction in claim:
        lower, upper = np.maximum(conjunction.box.lower, box.lower), np.minimum(conjunction.box.upper, box.upper)
        if (lower <= upper).all():
            parts.append(replace(conjunction, box=Box(lower, upper)))
    return Property(tuple(parts), claim.name)


def digest_of(claim: Property) -> str:
    """SHA-256 of what a property says, whatever its file and name are."""
    digest = hashlib.sha256()
    for c in claim:
        digest.update(f"{c.box.digest} {c.inputs.shape} {c.outputs.shape}".encode())
        for array in (c.inputs, c.outputs, c.constants, c.strict):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def prove_family(
    family: Family,
    claim: Property,
    executor: Executor | None = None,
    *,
    work: int = WORK,
    time_limit: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FamilyVerdict:
    """Whether a family has a property, slice by slice.

    Args:
        family: cut at its inputs.
        claim: about the same inputs and outputs.
        executor: where slices are proved; by default here.
        work: of the search, for each slice.
        time_limit: seconds for each slice.
        progress: called with how many slices are done, and how many there are.

    Raises:
        InputError: the family is cut at a hidden layer, or the property is about other inputs.
    """
    from redy.slicing.saved import family_bytes  # noqa: PLC0415 - which imports the family, which imports this

    box = family.cut.box
    if family.front is not None:
        raise InputError(
            "the family is cut at a hidden layer; a property of inputs is proved of families cut at inputs"
        )
    if any(conjunction.box.shape != box.shape for conjunction in claim):
        raise InputError(f"{claim.name}: is about other inputs than the family, which takes {box.shape}")
    task = PropertyWork(family_bytes(replace(family, proved=None)), claim, work, time_limit)
    verdicts, witness = np.zeros(len(family), dtype=np.int8), dict[int, Array]()
    found = (executor or Here()).run(task, chunked(range(len(family)), CHUNK))
    for done, (index, (verdict, point)) in enumerate(found, start=1):
        verdicts[index] = verdict
        if point is not None:
            witness[index] = point
        if progress:
            progress(done, len(family))
    slices = SlicesProved(claim.name, digest_of(claim), verdicts)
    covered = all((box.lower <= c.box.lower).all() and (c.box.upper <= box.upper).all() for c in claim)
    return FamilyVerdict(slices, share_of(family, slices.kept), covered, witness[min(witness)] if witness else None)


def share_of(family: Family, kept: NDArray[np.bool_]) -> float:
    """The share of the family's box, by volume, that some slices take; inputs that do not vary do not count."""
    if kept.all():
        return 1.0
    box = family.cut.box
    wide = box.width.ravel() > 0
    whole = box.width.ravel()[wide]
    parts = (family.cut.cell(int(k)).width.ravel()[wide] / whole for k in np.flatnonzero(kept))
    return math.fsum(float(np.prod(part)) for part in parts)
