"""Phase redundancy: a unit that stays in one piece of its activation on the whole box is that piece's line there.

Lahav and Katz, "Pruning and Slicing Neural Networks using Formal Verification" (FMCAD 2021), section IV. Whether
elements stay is asked in `redy.questions.phases`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redy.bounds.result import Bounds
from redy.model import Activate, Array, Box, Finding, Line, Network, Phase, PiecewiseLinear, Proof, Proved, Unit
from redy.questions.phases import PhaseSettings, decide_phases
from redy.questions.seen import Seen
from redy.redundancy.lines import exact_intercept


@dataclass(slots=True)
class PhaseAnswer:
    """What is known about the phases of all units.

    Attributes:
        bounds: sound bounds of every pre-activation.
        findings: one per unit that is stuck, in the order of the network.
        pieces: `Activate` name -> per element (flattened) the piece in which it stays, or -1.
        undecided: units not proved stuck and not seen in two pieces.
        notes: what kept a method from answering, in words.
        stats: per method what it did (elements proved, sub-boxes, questions, seconds).
    """

    bounds: Bounds
    findings: tuple[Finding, ...] = ()
    pieces: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    undecided: tuple[Unit, ...] = ()
    notes: list[str] = field(default_factory=list)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)


def find_phases(network: Network, box: Box, seen: Seen, points: Array, settings: PhaseSettings) -> PhaseAnswer:
    """Prove as many units as the settings allow to be in one phase on the box.

    Args:
        network: the network.
        box: its shape is the input's.
        seen: what points show (`redy.questions.seen`).
        points: the points themselves (n, *input shape), for solvers.
        settings: engine, solver, limits.

    Raises:
        CheckFailed: a proof contradicts a point; nothing may be built on it.
        InputError: the engine or the solver that was asked for by name cannot work on this network.
    """
    found = decide_phases(network, box, seen, points, settings)
    findings: list[Finding] = []
    undecided: list[Unit] = []
    stays: dict[str, NDArray[np.int64]] = {}
    for node in network.activations:
        proofs, moving = found.proofs[node.name], found.moving[node.name]
        pieces = np.full(math.prod(node.shape), -1)
        pieces[list(proofs)] = [piece for piece, _ in proofs.values()]
        stays[node.name] = pieces
        function = node.function.broadcast_to(node.shape)
        intercepts = function.intercepts()
        for unit, elements in units_of(node):
            first = int(elements[0])
            same = (pieces[elements] == pieces[first]).all() and _same_line(
                function.slopes, intercepts, elements, int(pieces[first])
            )
            if pieces[first] >= 0 and same:
                own = [proofs[int(element)][1] for element in elements]
                findings.append(_finding(function, unit, elements, int(pieces[first]), own))
            elif not moving[elements].any() and (pieces[elements] < 0).any():
                undecided.append(unit)
    return PhaseAnswer(found.bounds, tuple(findings), stays, tuple(undecided), found.notes, found.stats)


def units_of(node: Activate) -> list[tuple[Unit, NDArray[np.int64]]]:
    """The units of an activation with their elements (flattened): neurons, or channels (first axis) of an image."""
    size = math.prod(node.shape)
    if node.shape and math.prod(node.shape[:-1]) != 1:
        elements = np.arange(size).reshape(node.shape[0], -1)
        return [(Unit(node.name, channel), row) for channel, row in enumerate(elements)]
    return [(Unit(node.name, index), np.array([index])) for index in range(size)]


def _same_line(slopes: Array, intercepts: Array, elements: NDArray[np.int64], piece: int) -> bool:
    """True if the piece is the same line for all elements of a unit."""
    lines = (part[piece].ravel()[elements] for part in (slopes, intercepts))
    return piece >= 0 and all(bool((line == line[0]).all()) for line in lines)


def _finding(
    function: PiecewiseLinear, unit: Unit, elements: NDArray[np.int64], piece: int, proofs: list[Proof]
) -> Finding:
    first = int(elements[0])
    breakpoints, slopes = (part.reshape(len(part), -1)[:, first] for part in (function.breakpoints, function.slopes))
    exact = exact_intercept(PiecewiseLinear(breakpoints, slopes, function.value.ravel()[first]), piece)
    intercept = float(exact)
    apart = abs(Fraction(intercept) - exact)
    error = 0.0 if apart == 0 else math.nextafter(float(apart), math.inf)
    proof = proofs[0] if len(proofs) == 1 else _channel_proof(unit, piece, proofs)
    return Finding(unit, "phase", Line(float(slopes[piece]), intercept), error, Proved(proof))


def _channel_proof(unit: Unit, piece: int, proofs: list[Proof]) -> Proof:
    methods = "+".join(dict.fromkeys(proof.method for proof in proofs))
    # The elements share the trees of their searches.
    evidence = tuple({id(item): item for proof in proofs for item in proof.evidence}.values())
    return Proof(f"{Phase(unit.node, unit.index, piece)}, at every position", methods, evidence)
