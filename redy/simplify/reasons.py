"""Why dead channels stay: asked of the analysis of the finished graph, in which nothing more can go.

A channel of a layer is dead where it is constant or where no reader needs it. Atoms that are tied stay or go together,
so the reason is sought among all that is tied to the channel: a node that pins it, a live channel, a reader that cannot
take a constant in, or a node whose channels must keep a form (a product of heads and rows, groups of one size).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import PINNED, Analysis, AtomArray
from redy.simplify.flow import Wall
from redy.simplify.graph import Graph
from redy.simplify.report import Dead, Scattered, Stayed, Why

_LEAST_SCATTERED = 0.2
Reason = tuple[Why, str, str]


def stayed(a: Analysis, names: Mapping[ir.Node, str]) -> list[Stayed]:
    """Per layer of `names` and per reason, how many of its channels are dead and stay."""
    seeker = _Seeker(a)
    found: list[Stayed] = []
    for node in a.nodes:
        if node not in names or not a.flows[node].owns_atoms:
            continue
        y = node.outputs[0]
        atoms = a.atoms[y].ravel()
        facts = a.facts[y]
        kinds = ((Dead.ZERO, facts.zero()), (Dead.CONSTANT, facts.known & ~facts.zero()), (Dead.UNREAD, ~a.needs[y]))
        seen = np.zeros(atoms.size, dtype=bool)
        for dead, mask in kinds:
            mine = np.broadcast_to(mask, a.atoms[y].shape).ravel() & a.alive[atoms] & ~seen
            seen |= mine
            counted: dict[Reason, int] = {}
            for atom in atoms[mine]:
                reason = seeker.reason(int(a.component(np.asarray(atom))))
                counted[reason] = counted.get(reason, 0) + 1
            found += [Stayed(names[node], n, atoms.size, dead, *reason) for reason, n in counted.items()]
    return found


class _Seeker:
    """Reasons by component; each is sought once."""

    def __init__(self, a: Analysis) -> None:
        self.a = a
        self.known: dict[int, Reason] = {}
        self.pins = self._by_component(a.trace.pins)
        self.constants = self._by_component(a.trace.constants)
        self.revived = self._by_component(a.trace.revived)
        self.live = self._live()

    def _by_component(self, entries: Iterable[tuple[ir.Node | None, AtomArray]]) -> dict[int, ir.Node | None]:
        """The first node per component."""
        first: dict[int, ir.Node | None] = {}
        for node, atoms in entries:
            for component in np.unique(self.a.component(atoms)).tolist():
                first.setdefault(component, node)
        return first

    def _live(self) -> dict[int, ir.Node]:
        """Per component a node that makes a live, needed channel of it: a layer if there is one."""
        a = self.a
        first: dict[int, ir.Node] = {}
        for layers in (True, False):
            for node in a.nodes:
                if a.flows[node].owns_atoms != layers:
                    continue
                for value in node.outputs:
                    live = a.needs[value] & ~a.facts[value].known
                    for component in np.unique(a.component(a.atoms[value][live])).tolist():
                        first.setdefault(component, node)
        return first

    def reason(self, component: int) -> Reason:
        if component not in self.known:
            self.known[component] = self._seek(component)
        return self.known[component]

    def _seek(self, component: int) -> Reason:
        a = self.a
        if component == int(a.component(np.asarray(PINNED))):
            return Why.TIED, self._pinned(), ""
        if component in self.pins:
            node = self.pins[component]
            if node is None:
                return Why.OUTPUT, self._exported(component), ""
            flow = a.flows[node]
            return Why.WALL, _name(node), flow.reason if isinstance(flow, Wall) else ""
        if component in self.live:
            return Why.TIED, _name(self.live[component]), ""
        reader = self.constants.get(component)
        if reader is not None:
            return Why.CONSTANT, _name(reader), ""
        if component in self.revived:
            node = self.revived[component]
            return (Why.BLOCK, "", "") if node is None else (Why.SHAPE, _name(node), "")
        return Why.UNSETTLED, "", ""

    def _pinned(self) -> str:
        """A node some of whose channels are those of a tensor of which nothing is known."""
        for value, atoms in self.a.atoms.items():
            producer = value.producer()
            if producer is not None and atoms.size > 1 and (atoms == PINNED).any():
                return _name(producer)
        return ""

    def _exported(self, component: int) -> str:
        for value, atoms in self.a.atoms.items():
            if self.a.graph.exported(value) and (self.a.component(atoms) == component).any():
                return value.name or ""
        return ""


def scattered(graph: Graph, names: Mapping[ir.Node, str]) -> list[Scattered]:
    """Layers a fifth or more of whose weights are zeros inside rows and columns that are not wholly zero."""
    found: list[Scattered] = []
    for node, name in names.items():
        if node.graph is None or len(node.inputs) < 2:
            continue
        weight = graph.constant(node.inputs[1])
        if weight is None or weight.ndim < 2 or weight.size == 0:
            continue
        zero = weight == 0
        share = float(zero.mean())
        if share < _LEAST_SCATTERED:
            continue
        for axis in (0, 1):
            others = tuple(i for i in range(zero.ndim) if i != axis)
            zero = zero.compress(~zero.all(axis=others), axis=axis)
        share = float(zero.sum() / weight.size)
        if share >= _LEAST_SCATTERED:
            found.append(Scattered(name, share))
    return found


def _name(node: ir.Node) -> str:
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type
