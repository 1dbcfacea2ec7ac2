"""Channel analysis of a graph: which channels are constant, which are needed, which must stay or go together.

Every tensor has an array of *atoms*: as many axes as the tensor, size 1 along axes where nothing can be removed and the
full size along axes that have channels. The entries number the atoms; entries with the same atom (or with tied atoms)
are removed together or not at all. Reshape, Transpose, Concat, Split are the same operation on the array of atoms.

1. forward: `facts` - which channels are constant, with the real function evaluated at the real constant;
2. backward: `needs` - which channels any reader depends on, given what is to be dropped;
3. an atom can be dropped when each of its channels is constant (its readers absorb the constant) or not needed.
   Steps 2 and 3 are repeated from the assumption that everything is dropped until nothing is taken back: the greatest
   set of atoms for which the argument holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from redy.simplify.facts import Facts, Mask
from redy.simplify.flow import Flow, Wall
from redy.simplify.graph import Graph, dims

AtomArray = NDArray[np.int64]
PINNED = 0  # the atom of everything that must stay


@dataclass
class Trace:
    """Who asked for what, so that it can be said why a channel stays.

    Attributes:
        node: the one whose rule is at work.
        strict: the strict needs of the present pass.
        pins, constants, revived: nodes, and what they pinned, read as data though it is constant, or revived.
    """

    node: ir.Node | None = None
    pins: list[tuple[ir.Node | None, AtomArray]] = field(default_factory=list)
    strict: dict[ir.Value, list[tuple[ir.Node | None, Mask]]] = field(default_factory=dict)
    constants: list[tuple[ir.Node | None, AtomArray]] = field(default_factory=list)
    revived: list[tuple[ir.Node | None, AtomArray]] = field(default_factory=list)


class Analysis:
    """The analysis of one graph; `flow_of` chooses the rule of each node."""

    def __init__(
        self,
        graph: Graph,
        flow_of: Callable[[ir.Node, Graph], Flow],
        findings: Mapping[str, Facts] | None = None,
        allow: Callable[[str, str], bool] = lambda *_: True,
    ) -> None:
        self.graph = graph
        self.nodes = graph.nodes()
        self.findings = findings or {}
        self.atoms: dict[ir.Value, AtomArray] = {}
        self.facts: dict[ir.Value, Facts] = {}
        self.needs: dict[ir.Value, Mask] = {}
        self.strict: dict[ir.Value, Mask] = {}
        self.carriers: dict[ir.Node, int] = {}
        self._ties: list[tuple[AtomArray, AtomArray]] = []
        self._pins: list[AtomArray] = []
        self.trace = Trace()
        self._count = 1
        self.flows: dict[ir.Node, Flow] = {}
        for node in self.nodes:
            self.flows[node] = flow_of(node, graph)
        self._lay_out()
        self._forward()
        self._solve(allow)

    # --- layout: called by flows ---------------------------------------------------------------------------------

    def fresh(self, value: ir.Value, axis: int, count: int) -> None:
        """Give a value its own atoms along one axis."""
        shape = [1] * self.rank(value)
        shape[axis] = count
        self.atoms[value] = np.arange(self._count, self._count + count, dtype=np.int64).reshape(shape)
        self._count += count

    def new_atoms(self, count: int) -> AtomArray:
        self._count += count
        return np.arange(self._count - count, self._count, dtype=np.int64)

    def pin(self, value: ir.Value | None) -> None:
        """Nothing of this value can be dropped."""
        if value is not None and value in self.atoms:
            self._pins.append(self.atoms[value].ravel())
            self.trace.pins.append((self.trace.node, self._pins[-1]))

    def opaque(self, value: ir.Value) -> None:
        """A value in which no channel is known or can be dropped."""
        self.atoms[value] = np.zeros((1,) * self.rank(value), dtype=np.int64)

    def tie(self, a: AtomArray, b: AtomArray) -> None:
        """Atoms at equal places (after broadcasting) stay or go together."""
        a, b = np.broadcast_arrays(a, b)
        if a is not b:
            self._ties.append((a.ravel(), b.ravel()))

    def only_along(self, value: ir.Value, axes: Sequence[int]) -> AtomArray:
        """Atoms of a value for a reader that can only drop along `axes`: labels along others are tied together."""
        atoms = self.atoms[value]
        first = atoms
        for axis, n in enumerate(atoms.shape):
            if n > 1 and axis not in axes:
                first = first.take([0], axis=axis)
        if first.shape != atoms.shape:
            self.tie(first, atoms)
        return first

    def only_along_labels(self, value: ir.Value, axis: int) -> AtomArray:
        """One atom per label along `axis` (labels along other axes are tied to these)."""
        atoms = self.atoms[value]
        for other, n in enumerate(atoms.shape):
            if n > 1 and other != axis:
                atoms = atoms.take([0], axis=other)
        return atoms.ravel()

    def rank(self, value: ir.Value) -> int:
        shape = dims(value)
        return 0 if shape is None else len(shape)

    def _lay_out(self) -> None:
        for value in [*self.graph.graph.inputs, *self.graph.graph.initializers.values()]:
            self.opaque(value)
        for node in self.nodes:
            self.trace.node = node
            self.flows[node].layout(node, self)
            for value in node.outputs:
                if value not in self.atoms:
                    raise AssertionError(f"{node.op_type} left {value.name} without atoms")
        self.trace.node = None
        for node in self.nodes:
            for value in node.outputs:
                if self.graph.exported(value):
                    self.pin(value)

    # --- forward -------------------------------------------------------------------------------------------------

    def known(self, value: ir.Value) -> Facts:
        """Facts about a value that is not a constant of the graph."""
        return self.facts[value]

    def _forward(self) -> None:
        for value in [*self.graph.graph.inputs, *self.graph.graph.initializers.values()]:
            self.facts[value] = Facts.nothing(self.atoms[value].shape)
        for node in self.nodes:
            for value in node.outputs:
                self.facts[value] = Facts.nothing(self.atoms[value].shape)
            if not isinstance(self.flows[node], Wall):
                self.flows[node].forward(node, self)
            for value in node.outputs:
                finding = self.findings.get(value.name or "")
                if finding is not None and finding.known.shape == self.atoms[value].shape:
                    self.facts[value] = _joined(self.facts[value], finding)

    # --- backward and decision -----------------------------------------------------------------------------------

    def demand(self, value: ir.Value | None, mask: Mask, *, strict: bool = False) -> None:
        """A reader needs these channels; `strict`: as data, it cannot absorb a constant."""
        if value is None or value not in self.needs:
            return
        mask = _fitted(mask, self.needs[value].shape)
        self.needs[value] = self.needs[value] | mask
        if strict:
            self.strict[value] = self.strict[value] | mask
            self.trace.strict.setdefault(value, []).append((self.trace.node, mask))

    def demand_all(self, value: ir.Value | None) -> None:
        if value is not None and value in self.needs:
            self.demand(value, np.ones_like(self.needs[value]), strict=True)

    def absorbed(self, value: ir.Value) -> Mask:
        """Constant channels that are dropped: nothing before them matters."""
        facts = self.facts[value]
        return facts.known & self.dropped(value) & ~self.strict[value]

    def dropped(self, value: ir.Value) -> Mask:
        return ~self.alive[self.atoms[value]]

    def live(self, value: ir.Value, axis: int) -> Mask:
        """Channels that stay, along one axis of the value (size 1 where the axis has no labels)."""
        live = self.alive[self.atoms[value]]
        others = tuple(i for i in range(live.ndim) if i != axis)
        return np.asarray(live.any(axis=others))

    def revive(self, atoms: AtomArray, *, filling: bool = False) -> None:
        """Take back the decision to drop these atoms and all that are tied to them; `filling`: to fill a block."""
        self.trace.revived.append((None if filling else self.trace.node, np.asarray(atoms).ravel()))
        self._bad[self._component[atoms]] = True
        self._changed = True

    def component(self, atoms: AtomArray) -> AtomArray:
        """The same number for atoms that are tied to each other, directly or through others."""
        return self._component[atoms]

    def _components(self) -> None:
        """`_component[atom]` is the smallest atom that it is tied to, directly or through others."""
        component = np.arange(self._count, dtype=np.int64)
        if self._ties:
            a = np.concatenate([t[0] for t in self._ties])
            b = np.concatenate([t[1] for t in self._ties])
            while True:
                low = np.minimum(component[a], component[b])
                before = component.copy()
                for end in (component[a], component[b], a, b):
                    np.minimum.at(component, end, low)
                component = component[component]
                if np.array_equal(before, component):
                    break
        self._component = component

    def _solve(self, allow: Callable[[str, str], bool]) -> None:
        self._components()
        self._bad = np.zeros(self._count, dtype=bool)
        self._bad[self._component[PINNED]] = True
        for atoms in self._pins:
            self._bad[self._component[atoms]] = True
        self._changed = True
        self._settle()
        self._fill_blocks()
        self._forbid(allow)

    def _fill_blocks(self) -> None:
        """Keep as many dropped channels of a layer as fill its last block; a runtime computes them in any case."""
        if self.graph.block == 1:
            return
        for node in self.nodes:
            if not self.flows[node].owns_atoms:
                continue
            for value in node.outputs:
                atoms = self.atoms[value].ravel()
                dead = np.flatnonzero(~self.alive[atoms])
                live = atoms.size - dead.size
                if live and dead.size:
                    self.revive(atoms[dead[: -live % self.graph.block]], filling=True)
        self._settle()

    def _settle(self) -> None:
        while self._changed:
            self._changed = False
            self.alive = self._bad[self._component]
            self._backward()
            self._take_back()

    def _forbid(self, allow: Callable[[str, str], bool]) -> None:
        """Ask for leave per tensor that would lose channels; what is refused is taken back."""
        refused = False
        for node in self.nodes:
            if not self.flows[node].owns_atoms:
                continue
            for value in node.outputs:
                if self.dropped(value).any() and not allow("drop_channels", value.name or ""):
                    self._bad[self._component[self.atoms[value].ravel()]] = True
                    refused = True
        if refused:
            self._changed = True
            self._settle()

    def _backward(self) -> None:
        self.carriers.clear()
        self.trace.strict.clear()
        for value, atoms in self.atoms.items():
            wanted = self.graph.exported(value)
            self.needs[value] = np.full(atoms.shape, wanted)
            self.strict[value] = np.full(atoms.shape, wanted)
        for node in reversed(self.nodes):
            self.trace.node = node
            self.flows[node].backward(node, self)

    def _take_back(self) -> None:
        bad = np.zeros(self._count, dtype=bool)
        for value, atoms in self.atoms.items():
            needed = self.needs[value] & (~self.facts[value].known | self.strict[value])
            bad[atoms[needed]] = True
            for node, mask in self.trace.strict.get(value, ()):
                self.trace.constants.append((node, atoms[needed & mask & self.facts[value].known]))
        self._mark(bad)
        if self._changed:
            return
        for value, atoms in self.atoms.items():
            if sum(n > 1 for n in atoms.shape) > 1:
                self.trace.node = value.producer()
                self._close_product(atoms)
        for node in self.nodes:
            self.trace.node = node
            self.flows[node].close(node, self)
            self._keep_operands(node)

    def _keep_operands(self, node: ir.Node) -> None:
        """A node that stays reads at least one channel of each of its inputs, also where no value of it matters."""
        if self.flows[node].may_lose_inputs or not any(self.alive[self.atoms[v]].any() for v in node.outputs):
            return
        for value in node.inputs:
            if value is not None and value in self.atoms and not self.alive[self.atoms[value]].any():
                self.revive(self.atoms[value].ravel()[:1])

    def _mark(self, bad: Mask) -> None:
        components = np.unique(self._component[np.flatnonzero(bad)])
        if not self._bad[components].all():
            self._bad[components] = True
            self._changed = True

    def _close_product(self, atoms: AtomArray) -> None:
        """Labels along several axes: what stays must be a product of one set per axis."""
        live = self.alive[atoms]
        product = np.ones((1,) * live.ndim, dtype=bool)
        for axis in range(live.ndim):
            others = tuple(i for i in range(live.ndim) if i != axis)
            product = product & live.any(axis=others, keepdims=True)
        lacking = product & ~live
        if lacking.any():
            self.revive(atoms[lacking])


def _fitted(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """A demand for a value without labels along some axes is a demand for all of it there."""
    if mask.ndim != len(shape):
        return np.full(shape, mask.any())
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and mask.shape[i] > 1)
    return np.asarray(mask.any(axis=axes, keepdims=True)) if axes else mask


def _joined(facts: Facts, finding: Facts) -> Facts:
    """Facts with a finding's on top where nothing was known."""
    if not facts.uniform:
        return facts
    table = np.where(facts.known, facts.values(), finding.values())
    return Facts.of(facts.known | finding.known, table, facts.axes)
