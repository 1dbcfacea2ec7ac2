"""Concat, Split, Slice and Gather: channels move from tensor to tensor unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.axes import Axis, Listed, Uniform
from redy.simplify.facts import Facts, align
from redy.simplify.flow import Flow
from redy.simplify.graph import Graph, data, dims, get_int, input_of
from redy.simplify.take import Take, renumber


class Concat(Flow):
    """One after the other along `axis`."""

    may_lose_inputs = True

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def layout(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        sizes = [(dims(v) or ())[self.axis] for v in node.inputs]
        values = [v for v in node.inputs if v is not None]
        if any(not isinstance(n, int) for n in sizes):
            self._refuse(values, out, a)
            return
        parts = []
        for value, n in zip(values, sizes, strict=True):
            atoms = a.only_along(value, [self.axis]) if not a.graph.is_constant(value) else a.atoms[value]
            if atoms.shape[self.axis] != n:
                a.pin(value)
                shape = [int(n) if i == self.axis else 1 for i in range(atoms.ndim)]  # type: ignore[arg-type]
                atoms = np.zeros(shape, dtype=np.int64)
            parts.append(atoms)
        a.atoms[out] = np.concatenate(parts, axis=self.axis)

    def _refuse(self, values: list[ir.Value], out: ir.Value, a: Analysis) -> None:
        for value in values:
            a.pin(value)
        a.opaque(out)

    def forward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        if a.atoms[out].size == 1:
            return
        parts = []
        for value in node.inputs:
            assert value is not None
            facts = a.facts[value].over([self.axis])
            n = (dims(value) or ())[self.axis]
            if facts.known.shape[self.axis] != n:
                facts = Facts.nothing([n if i == self.axis else 1 for i in range(facts.known.ndim)])  # type: ignore[misc]
            parts.append(facts)
        try:
            tables, axes = align([(f.table, f.axes) for f in parts])
        except ValueError:
            return
        shape = np.max([t.shape for t in tables], axis=0)
        full = []
        for table in tables:
            target = [table.shape[i] if i == self.axis else int(shape[i]) for i in range(table.ndim)]
            full.append(np.broadcast_to(table, target))
        known = np.concatenate([f.known for f in parts], axis=self.axis)
        a.facts[out] = Facts.of(known, np.concatenate(full, axis=self.axis), axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        need = a.needs[out] & ~a.absorbed(out)
        start = 0
        for value in node.inputs:
            assert value is not None
            if need.shape[self.axis] == 1:
                if need.any():
                    a.demand_all(value)
                continue
            n = int((dims(value) or ())[self.axis])  # type: ignore[arg-type]  # checked in layout
            part = need.take(np.arange(start, start + n), axis=self.axis)
            start += n
            if value in a.needs and a.needs[value].shape[self.axis] == n:
                a.demand(value, part)
            elif part.any():
                a.demand_all(value)

    def take(self, node: ir.Node, t: Take) -> None:
        kept = [v for v in node.inputs if not t.gone(v)]
        if len(kept) == len(node.inputs):
            return
        new = kept + [None] * (len(node.inputs) - len(kept))
        for index, value in enumerate(new):
            node.replace_input_with(index, value)
        node.resize_inputs(len(kept))


class Pick(Flow):
    """Split, Slice, Gather: output entries are entries of the input. `indices` has one list per output."""

    def __init__(self, axis: int, indices: list[np.ndarray]) -> None:
        self.axis, self.indices = axis, indices

    def _labelled(self, node: ir.Node, a: Analysis) -> bool:
        return bool(a.atoms[data(node)].shape[self.axis] > 1)

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        for out, index in zip(node.outputs, self.indices, strict=True):
            atoms = a.atoms[x]
            picked = atoms.take(index, axis=self.axis) if self._labelled(node, a) else atoms
            a.atoms[out] = self.shaped(picked)

    def shaped(self, array: np.ndarray) -> np.ndarray:
        return array

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        facts = a.facts[x]
        length = (dims(x) or ())[self.axis]
        for out, index in zip(node.outputs, self.indices, strict=True):
            known, table, axes = facts.known, facts.table, list(facts.axes)
            axis = axes[self.axis]
            if self._labelled(node, a):
                known, table = known.take(index, axis=self.axis), table.take(index, axis=self.axis)
            elif not isinstance(axis, Uniform):
                if not isinstance(length, int):
                    continue
                axes[self.axis] = Listed(np.arange(len(index), dtype=np.int64))
                table = table.take(axis.classes(length)[index], axis=self.axis)
            a.facts[out] = self.shaped_facts(known, table, axes)

    def shaped_facts(self, known: np.ndarray, table: np.ndarray, axes: list[Axis]) -> Facts:
        return Facts.of(known, table, axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        need_x = np.zeros_like(a.needs[x])
        for out, index in zip(node.outputs, self.indices, strict=True):
            need = self.unshaped(a.needs[out] & ~a.absorbed(out))
            if self._labelled(node, a):
                moved = np.moveaxis(need_x, self.axis, 0)
                np.logical_or.at(moved, index, np.moveaxis(need, self.axis, 0))
            else:
                need_x |= need
        a.demand(x, need_x)

    def unshaped(self, need: np.ndarray) -> np.ndarray:
        return need

    def take(self, node: ir.Node, t: Take) -> None:
        x = node.inputs[0]
        assert x is not None
        if not self._labelled(node, t.a) or not t.changed(x):
            return
        live = t.live(x, self.axis)
        number = renumber(live)
        kept = [number[index[live[index]]] for index in self.indices]
        self.rewrite(node, t, kept)

    def rewrite(self, node: ir.Node, t: Take, kept: list[np.ndarray]) -> None:
        raise NotImplementedError


class Split(Pick):
    """Consecutive runs of the axis."""

    def rewrite(self, node: ir.Node, t: Take, kept: list[np.ndarray]) -> None:
        sizes = [len(index) for index in kept]
        x = node.inputs[0]
        assert x is not None
        if any(n == 0 for n in sizes):  # an output that is gone cannot be asked for: slice out the others
            for out, index in zip(node.outputs, kept, strict=True):
                if len(index):
                    t.replace_by_slice(node, x, out, self.axis, index)
            return
        if t.graph.opset < 13:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
        else:
            value = t.graph.add_constant("split", np.asarray(sizes, dtype=np.int64), ir.DataType.INT64)
            if len(node.inputs) < 2:
                node.resize_inputs(2)
            node.replace_input_with(1, value)
            node.attributes.pop("num_outputs", None)


class Slice(Pick):
    """Evenly spaced entries of the axis."""

    def rewrite(self, node: ir.Node, t: Take, kept: list[np.ndarray]) -> None:
        x = node.inputs[0]
        assert x is not None
        if len(kept[0]):
            t.replace_by_slice(node, x, node.outputs[0], self.axis, kept[0])


class Gather(Pick):
    """Indices of rank 0 take the axis away."""

    def __init__(self, axis: int, indices: np.ndarray) -> None:
        super().__init__(axis, [indices.reshape(-1)])
        self.scalar = indices.ndim == 0

    def shaped(self, array: np.ndarray) -> np.ndarray:
        return array.squeeze(self.axis) if self.scalar else array

    def shaped_facts(self, known: np.ndarray, table: np.ndarray, axes: list[Axis]) -> Facts:
        if self.scalar:
            axes = axes[: self.axis] + axes[self.axis + 1 :]
            return Facts.of(known.squeeze(self.axis), table.squeeze(self.axis), axes)
        return Facts.of(known, table, axes)

    def unshaped(self, need: np.ndarray) -> np.ndarray:
        return np.expand_dims(need, self.axis) if self.scalar else need

    def rewrite(self, node: ir.Node, t: Take, kept: list[np.ndarray]) -> None:
        if len(kept[0]) == 0:
            return
        index = kept[0].reshape(()) if self.scalar else kept[0]
        value = t.graph.add_constant("indices", np.asarray(index, dtype=np.int64), ir.DataType.INT64)
        node.replace_input_with(1, value)


def _concat(node: ir.Node, graph: Graph) -> Flow | str:  # noqa: ARG001 - one signature for all
    rank = len(dims(node.outputs[0]) or ())
    if rank == 0 or any(len(dims(v) or ()) != rank for v in node.inputs):
        return "its rank is not known"
    return Concat(get_int(node, "axis", 1) % rank)


def _split(node: ir.Node, graph: Graph) -> Flow | str:
    shape = dims(node.inputs[0]) or ()
    axis = get_int(node, "axis", 0) % max(len(shape), 1)
    if not isinstance(shape[axis], int):
        return "the size of what it splits is not known"
    if graph.integers(node, "split", 1) is None and input_of(node, 1) is not None:
        return "its sizes are not known"
    sizes = [(dims(v) or ())[axis] for v in node.outputs]
    if any(not isinstance(n, int) for n in sizes) or sum(sizes) != shape[axis]:  # type: ignore[arg-type]
        return "its sizes are not known"
    bounds = np.cumsum([0, *sizes])
    return Split(axis, [np.arange(bounds[i], bounds[i + 1]) for i in range(len(sizes))])


def _slice(node: ir.Node, graph: Graph) -> Flow | str:
    shape = dims(node.inputs[0]) or ()
    starts, ends = graph.integers(node, "starts", 1), graph.integers(node, "ends", 2)
    if starts is None or ends is None:
        axes = graph.integers(node, "axes", 3)
        return "its bounds are not known" if axes is None else SliceOfDynamic([axis % len(shape) for axis in axes])
    axes, steps = graph.integers(node, "axes", 3), graph.integers(node, "steps", 4)
    if (axes is None and input_of(node, 3) is not None) or (steps is None and input_of(node, 4) is not None):
        return "its bounds are not known"
    axes = list(range(len(starts))) if axes is None else axes
    if len(axes) != 1:
        return SliceOfDynamic([axis % len(shape) for axis in axes])
    axis = axes[0] % len(shape)
    length = shape[axis]
    if not isinstance(length, int):
        return SliceOfDynamic([axis])
    step = 1 if steps is None else steps[0]
    end = None if step < 0 and ends[0] < -length else ends[0]
    index = np.arange(length)[slice(starts[0], end, step)]
    return Slice(axis, [index]) if len(index) else "it is empty"


class SliceOfDynamic(Flow):
    """A slice of several axes, or of one whose bounds or length are not known: labels along the others pass."""

    def __init__(self, axes: list[int]) -> None:
        self.axes = axes

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        if any(a.atoms[x].shape[axis] > 1 for axis in self.axes):
            a.pin(x)
            a.opaque(y)
        else:
            a.atoms[y] = a.atoms[x]

    def forward(self, node: ir.Node, a: Analysis) -> None:
        assert node.inputs[0] is not None
        facts = a.facts[node.inputs[0]]
        if a.atoms[node.outputs[0]].shape == facts.known.shape and all(
            isinstance(facts.axes[axis], Uniform) for axis in self.axes
        ):
            a.facts[node.outputs[0]] = facts

    def backward(self, node: ir.Node, a: Analysis) -> None:
        out = node.outputs[0]
        need = a.needs[out] & ~a.absorbed(out)
        if need.any():
            a.demand(node.inputs[0], need)


class Lookup(Flow):
    """Entries of a table or tensor along `axis`, whichever they are: labels pass along the other axes.

    A stored table has labels along axis 1, the channels of the map that is made of it.
    """

    def __init__(self, axis: int, *, stored: bool) -> None:
        self.axis, self.stored = axis, stored

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = data(node), node.outputs[0]
        count = (dims(x) or ())[1] if self.stored else 1
        if self.stored and isinstance(count, int) and count > 1:
            a.fresh(y, 1, count)
        elif self.stored or a.atoms[x].shape[self.axis] > 1:
            a.pin(x)
            a.opaque(y)
        else:
            a.atoms[y] = a.atoms[x]
        for value in node.inputs[1:]:
            a.pin(value)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        need = a.needs[y] & ~a.absorbed(y)
        for value in node.inputs[1:]:
            a.demand_all(value)
        if not self.stored and need.any():
            a.demand(data(node), need, strict=True)

    def take(self, node: ir.Node, t: Take) -> None:
        live = t.live(node.outputs[0], 1)
        if self.stored and live.size > 1:
            t.slice_constant(node, 0, [(1, live)])


def lookup(node: ir.Node, graph: Graph, axis: int) -> Flow | None:
    """The rule of a node that spreads a table of channels (axis 1), None where it is another."""
    shape, index = dims(node.inputs[0]), dims(node.inputs[1])
    rank = 0 if shape is None else len(shape)
    if rank < 3 or axis == 1 or index is None or len(dims(node.outputs[0]) or ()) != rank:
        return None
    return Lookup(axis, stored=graph.is_constant(node.inputs[0]))


def _gather(node: ir.Node, graph: Graph) -> Flow | str:
    shape = dims(node.inputs[0]) or ()
    indices = graph.constant(node.inputs[1])
    axis = get_int(node, "axis", 0) % max(len(shape), 1)
    if len(dims(node.inputs[1]) or ()) == 1 and (indices is None or graph.is_constant(node.inputs[0])):
        return lookup(node, graph, axis) or "its indices are not a constant list"
    if graph.is_constant(node.inputs[0]) or indices is None or indices.ndim > 1:
        return "its indices are not a constant list"
    axis = get_int(node, "axis", 0) % max(len(shape), 1)
    length = shape[axis] if shape else None
    if not isinstance(length, int) or indices.size == 0:
        return "the size of what it gathers from is not known"
    return Gather(
        axis, np.where(indices.astype(np.int64) < 0, indices.astype(np.int64) + length, indices.astype(np.int64))
    )


RULES = {"Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather}
