"""A network on a box: what is constant there flows forward, what is dead goes, what is little becomes a matrix."""

from __future__ import annotations

from redy.model import Network
from redy.rewrite.constants import constants_of, propagate_constants, varying
from redy.rewrite.dead import Kept, drop_dead, needed_elements
from redy.rewrite.facts import Facts, straightened, with_pieces
from redy.rewrite.fuse import fuse
from redy.rewrite.matrices import as_matrices

ROUNDS = 4
"""Each makes more constant, dead or small; most networks need two."""


def on_box(network: Network, facts: Facts, *, straight: bool) -> tuple[Network, Kept]:
    """The network that computes the same on the box, in fewer operations, and which elements of its values stayed.

    Args:
        network: the lines of findings are in place.
        facts: what holds on the box.
        straight: whether activations that are lines everywhere are composed with what stands around them.
    """
    current, origin = with_pieces(network, facts.pieces), Kept()
    current = straightened(current) if straight else current
    size = (-1, -1, -1)
    for _ in range(ROUNDS):
        current, known = constants_of(current, facts.box)
        current = as_matrices(current, known, needed_elements(current))
        current = propagate_constants(current, facts.box)
        current, kept = drop_dead(varying(current, facts.box))
        origin = followed(origin, kept)
        current = fuse(current) if straight else current
        origin = {name: index for name, index in origin.items() if name in current.shapes}
        before, size = size, (current.parameters, current.macs, len(current.nodes))
        if size == before:
            break
    return current, origin


def followed(origin: Kept, kept: Kept) -> Kept:
    """Which elements of the first values stand in the last, after two steps."""
    return {name: origin[name][index] if name in origin else index for name, index in kept.items()}
