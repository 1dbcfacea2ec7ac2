"""Hints for a certificate: phases that the engine has proved or points show, and partners seen at points.

The bounds allow for `CAUTION` times the rounding that the checker allows for, so that a certificate is accepted where
sums are taken in another order, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from redy.certificates.encoding import write_partners, write_phases
from redy.certificates.trees import Budget, closed
from redy.certify.networks import ACTIVE, INACTIVE, Ask, Codes
from redy.certify.space import Array, Ints, Rows, Space

CAUTION = 4.0


@dataclass
class Found:
    """Makes the hints that the walk through both networks asks for, and writes them down.

    Attributes:
        points: (m, n) inputs in the box.
        budget: of the trees for phases.
        likely: per relu of the first network what is likely (0, ACTIVE, INACTIVE); None: what the points show.
    """

    points: Array
    budget: Budget
    likely: list[Codes] | None = None
    body: bytearray = field(default_factory=bytearray)
    seen: list[Array] = field(default_factory=list)
    paired: dict[int, Ints] = field(default_factory=dict)

    def values(self, space: Space, rows: Rows) -> Array:
        """(m, r) rows at the points."""
        n = space.n
        columns = np.ones((len(self.points), len(space.reach)))
        columns[:, :n] = self.points
        for block in space.blocks:
            z = columns[:, : block.rows.T.shape[1]] @ block.rows.T.T
            v = np.maximum(z, 0)
            if block.partner is not None:
                p = columns[:, : block.partner.z.T.shape[1]] @ block.partner.z.T.T
                v = np.maximum(p + z, 0) - np.maximum(p, 0)
            columns[:, n + 1 + block.first : n + 1 + block.stop] = v
        return np.asarray(columns[:, : rows.T.shape[1]] @ rows.T.T)

    def phases(self, space: Space, rows: Rows, bounds: tuple[Array, Array], ask: Ask) -> Codes:
        """Claim the likely phases that the root bounds leave open and a tree proves."""
        z, number = self.values(space, rows), len(self.seen)
        self.seen.append(z)
        likely = np.where((z > 0).all(axis=0), ACTIVE, np.where((z < 0).all(axis=0), INACTIVE, 0))
        if self.likely is not None and number < len(self.likely) and self.likely[number].shape == likely.shape:
            likely = np.where(likely == self.likely[number], likely, 0)
        codes = np.where((bounds[0] >= 0) | (bounds[1] <= 0), 0, likely).astype(np.uint8)
        claimed, found = np.flatnonzero(codes), b""
        if len(claimed):
            question, again = ask(codes)
            found, good = closed(question, again, self.budget)
            codes[claimed[~good]] = 0
        self.body += write_phases(codes)
        if codes.any():
            self.body += found
        return codes

    def partners(self, space: Space, number: int, rows: Rows) -> Ints:
        """The unit of the first network that is nearest at the points, or -1 where none is near."""
        if number in self.paired:
            return self.paired[number]
        ours, theirs = np.concatenate([np.zeros((len(self.points), 0)), *self.seen], axis=1), self.values(space, rows)
        found = np.full(theirs.shape[1], -1)
        for k in range(theirs.shape[1] if ours.shape[1] else 0):
            distance = np.abs(ours - theirs[:, [k]]).max(axis=0)
            best = int(distance.argmin())
            if distance[best] <= np.abs(theirs[:, k]).max() / 2:
                found[k] = best
        self.body += write_partners(found)
        self.paired[number] = found
        return found
