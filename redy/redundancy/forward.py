"""Forward redundancy: the unit leaves its piece, and yet no output notices.

Lahav and Katz, "Pruning and Slicing Neural Networks using Formal Verification" (FMCAD 2021), section IV: replace the
unit by one of its pieces in a copy that shares everything before it, and ask whether the outputs of both are equal on
the box. Points discard most candidates. For the others equality is shown in this way: at every point either the unit
lies in that piece, or every ReLU that reads it (in the condensed form) is inactive both with the unit and with the
line in its place. So every reader gives one clause per network; a unit read by an output without a ReLU between is no
candidate. Bounds with rounding errors could not show that a difference is exactly zero; that signs are right they
can.

Then no value but the unit's own and its readers' pre-activations ever changes. So several findings hold together if
no unit among them and their readers has two parts: each was proved with all other units as they are.
"""

from __future__ import annotations

import math

import numpy as np

from redy.condensed.form import Walk, condense
from redy.model import Activate, Finding, Line, Proved, Unit
from redy.questions.simulate import effects
from redy.questions.situation import few_inputs
from redy.questions.unnoticed import ask_unnoticed
from redy.redundancy.lines import line_error, unit_function
from redy.redundancy.relaxed import Facts, SetAnswer

MISSES = 4
"""Questions in a row without a proof after which others are left, where cutting the box is no way to answer them."""
CANDIDATES = 40
"""Units asked about, at most, the least visible at points first."""
_SAME = 1e-12
"""A linearised effect below this share of the outputs is no effect."""


def find_forward(facts: Facts) -> SetAnswer:
    """Units that can become one of their pieces without any change of the outputs on the box.

    Each is proved with all units before it already replaced, so the findings hold together.
    """
    answer = SetAnswer()
    walk = None if _stable_left(facts) else condense(facts.network, facts.box, facts.intervals)
    if walk is None or not _all_stable_found(facts, walk):
        # A unit that is stable now but stays a unit might move out of its piece once another one is a line.
        answer.note = "passed over, for some elements are stable but not replaced (channels are only as a whole)"
        return answer
    found: list[Finding] = []
    touched: set[Unit] = set()
    missed = 0
    for unit, line, piece in _candidates(facts):
        if facts.expired():
            answer.note = "time limit"
            break
        if missed >= MISSES and not few_inputs(facts.box):
            answer.note = "given up where many inputs vary: nothing was proved in the first questions"
            break
        readers = _readers(facts, walk, unit)
        if readers is None or ({unit} | {reader for _, reader in readers}) & touched:
            continue
        answer.queries += 1
        if (proof := ask_unnoticed(walk, unit, piece, [row for row, _ in readers], facts.deadline)) is not None:
            found.append(Finding(unit, "forward", line, _error(facts, unit, line), Proved(proof)))
            touched |= {unit} | {reader for _, reader in readers}
        missed = missed + 1 if proof is None else 0
    answer.findings = tuple(found)
    return answer


def _stable_left(facts: Facts) -> bool:
    """True if bounds alone show an element stable that no finding replaces, which needs no condensed form."""
    done = {finding.unit for finding in facts.findings}
    return any(
        Unit(node.name, int(k)) not in done
        for node in facts.network.activations
        if node.name in facts.intervals
        for k in np.flatnonzero(node.function.stuck(*facts.intervals[node.name]) >= 0)
    )


def _all_stable_found(facts: Facts, walk: Walk) -> bool:
    """True if all findings so far are phases, and every unit that the condensed form folded has one."""
    if any(finding.kind != "phase" for finding in facts.findings):
        return False
    done = {finding.unit for finding in facts.findings}
    variable = {Unit(v.node, v.element) for v in walk.condensed.variables}
    units = {
        Unit(node.name, k)
        for node in facts.network.activations
        if node.name in walk.intervals
        for k in range(math.prod(node.shape))
    }
    return units <= done | variable


def _candidates(facts: Facts) -> list[tuple[Unit, Line, int]]:
    """Units whose replacement by a piece points do not notice, the least visible first."""
    units = facts.open_units()
    points = facts.points[:1024]
    scale = max(1e-30, float(np.abs(facts.network.evaluate(points)).max(initial=0.0)))
    found: list[tuple[float, Unit, Line, int]] = []
    for piece in range(2):
        lines: dict[Unit, Line] = {}
        for unit in units:
            node = facts.network.by_name[unit.node]
            assert isinstance(node, Activate)
            function = unit_function(node, unit.index)
            # More than one breakpoint: "in that piece" is not one sign, so the clause below does not say it.
            if function.pieces == 2:
                lines[unit] = Line(float(function.slopes[piece]), float(function.intercepts()[piece]))
        if not lines:
            continue
        size = np.abs(effects(facts.network, points, lines)).max(axis=(0, 1))
        found += [(float(s), u, lines[u], piece) for s, u in zip(size, lines, strict=True) if s <= _SAME * scale]
    found.sort(key=lambda item: (item[0], item[1]))
    best: dict[Unit, tuple[Unit, Line, int]] = {}
    for _, unit, line, piece in found:
        best.setdefault(unit, (unit, line, piece))
    return list(best.values())[:CANDIDATES]


def _readers(facts: Facts, walk: Walk, unit: Unit) -> list[tuple[int, Unit]] | None:
    """The variables that read the unit's, as (row, unit); None where something reads it that is not a ReLU."""
    condensed = walk.condensed
    own = [i for i, v in enumerate(condensed.variables) if (v.node, v.element) == (unit.node, unit.index)]
    if len(own) != 1:
        return None
    (column,) = own
    outputs = [walk.forms[port.name] for port in facts.network.outputs]
    if any(form.M.shape[1] > column and form.M[:, column].any() for form in outputs):
        return None
    rows = [i for i, row in enumerate(condensed.rows) if row.M.shape[1] > column and row.M[0, column] != 0]
    readers = [(i, Unit(condensed.variables[i].node, condensed.variables[i].element)) for i in rows]
    # What is not a ReLU is not zero where it is inactive.
    relus = all(unit_function(_node(facts, reader), reader.index).is_relu for _, reader in readers)
    return readers if relus else None


def _node(facts: Facts, unit: Unit) -> Activate:
    node = facts.network.by_name[unit.node]
    assert isinstance(node, Activate)
    return node


def _error(facts: Facts, unit: Unit, line: Line) -> float:
    lower, upper = (float(end.ravel()[unit.index]) for end in facts.intervals[unit.node])
    return line_error(unit_function(_node(facts, unit), unit.index), lower, upper, line)
