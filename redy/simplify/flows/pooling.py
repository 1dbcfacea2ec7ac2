"""Pooling and resizing: each channel (axis 1) on its own, over the spatial axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis, AtomArray
from redy.simplify.axes import Listed, Uniform
from redy.simplify.facts import Facts, Table
from redy.simplify.flow import Along, Flow
from redy.simplify.flows.convolution import _windows
from redy.simplify.graph import Graph, dims, get_int, get_ints, get_string, input_of
from redy.simplify.take import Take


class Spatial(Along):
    """Labels pass along axis 1 only; a channel that is the same everywhere stays so."""

    def view(self, node: ir.Node, value: ir.Value, a: Analysis) -> AtomArray:  # noqa: ARG002 - one signature for all
        return a.only_along(value, [1])

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        facts = self.transform(node, a.facts[x].over([1]), a)
        for out in node.outputs:
            if facts is not None and facts.known.shape == a.atoms[out].shape:
                a.facts[out] = facts

    def transform(self, node: ir.Node, facts: Facts, a: Analysis) -> Facts | None:  # noqa: ARG002 - one signature for all
        return _only_uniform(facts)


class MaxPool(Spatial):
    def layout(self, node: ir.Node, a: Analysis) -> None:
        super().layout(node, a)
        for out in node.outputs[1:]:  # positions of the maxima count through all channels
            if out.uses() or out.is_graph_output():
                a.pin(node.inputs[0])
            a.opaque(out)


class AveragePool(Spatial):
    """The mean of a window; padding counts as zeros or not at all."""

    def transform(self, node: ir.Node, facts: Facts, a: Analysis) -> Facts | None:  # noqa: ARG002 - one signature for all
        kernel = get_ints(node, "kernel_shape", [])
        if get_int(node, "count_include_pad", 0) == 0:
            return _only_uniform(facts)
        zero = Facts(facts.zero(), np.zeros(facts.known.shape), Facts.nothing(facts.known.shape).axes)
        if get_int(node, "ceil_mode", 0) or "dilations" in node.attributes:
            return zero
        table, axes = facts.table, list(facts.axes)
        for d, window in enumerate(_windows(node, kernel, transposed=False)):
            slid = window.slide(axes[d + 2])
            if slid is None:
                return zero
            axes[d + 2], taps = slid
            table = np.concatenate([table, np.zeros_like(table.take([0], axis=d + 2))], axis=d + 2)
            table = table.take(taps, axis=d + 2).mean(axis=d + 3)
        return Facts.of(facts.known, table, axes)


class Mean(Spatial):
    """Global average pooling: the mean over all spatial positions."""

    def transform(self, node: ir.Node, facts: Facts, a: Analysis) -> Facts | None:  # noqa: ARG002 - one signature for all
        shape = dims(node.inputs[0])
        assert shape is not None
        table, axes = facts.table, list(facts.axes)
        for i in range(2, len(axes)):
            axis, length = axes[i], shape[i]
            if isinstance(axis, Uniform):
                continue
            if not isinstance(length, int):
                return _only_uniform(facts)
            table = table.take(axis.classes(length), axis=i).mean(axis=i, keepdims=True)
            axes[i] = Uniform()
        return Facts.of(facts.known, table, axes)


def _numpy(reduce: Callable[..., Table]) -> Callable[[Table, tuple[int, ...]], Table]:
    return lambda table, axes: reduce(table, axis=axes, keepdims=True)


_LENGTHLESS = ("ReduceMean", "ReduceMax", "ReduceMin")
"""Reductions of a constant that do not depend on how long the axis is."""

_REDUCTIONS: dict[str, Callable[[Table, tuple[int, ...]], Table]] = {
    "ReduceMean": _numpy(np.mean),
    "ReduceMax": _numpy(np.max),
    "ReduceMin": _numpy(np.min),
    "ReduceSum": _numpy(np.sum),
    "ReduceProd": _numpy(np.prod),
    "ReduceL1": lambda table, axes: np.abs(table).sum(axis=axes, keepdims=True),
    "ReduceL2": lambda table, axes: np.sqrt((table**2).sum(axis=axes, keepdims=True)),
    "ReduceSumSquare": lambda table, axes: (table**2).sum(axis=axes, keepdims=True),
}


class Reduce(Flow):
    """ReduceMean, ReduceMax, ReduceSum, ReduceL2 and the like over axes without labels."""

    def __init__(self, axes: list[int], keep: bool) -> None:
        self.axes, self.keep = axes, keep

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        atoms = a.only_along(x, [i for i in range(a.rank(x)) if i not in self.axes])
        a.atoms[y] = atoms if self.keep else atoms.squeeze(axis=tuple(self.axes))

    def forward(self, node: ir.Node, a: Analysis) -> None:
        x = node.inputs[0]
        assert x is not None
        facts = a.facts[x].over([i for i in range(a.rank(x)) if i not in self.axes])
        shape, reduce = dims(x), _REDUCTIONS.get(node.op_type)
        assert shape is not None
        if reduce is None:
            return
        table, axes, known = facts.table, list(facts.axes), facts.known
        counts = node.op_type not in _LENGTHLESS
        for i in self.axes:
            axis, length = axes[i], shape[i]
            axes[i] = Uniform()
            if isinstance(axis, Uniform) and not counts:
                continue
            if isinstance(length, int):
                table = table.take(axis.classes(length), axis=i)
            elif not isinstance(axis, Uniform):
                return
            else:  # a sum of as many numbers as the axis is long
                known = known & facts.zero()
        table = reduce(table, tuple(self.axes))
        if not self.keep:
            table, known = table.squeeze(tuple(self.axes)), known.squeeze(tuple(self.axes))
            axes = [axis for i, axis in enumerate(axes) if i not in self.axes]
        a.facts[node.outputs[0]] = Facts.of(known, table, axes)

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        need = a.needs[y] & ~a.absorbed(y)
        if need.any():
            a.demand(x, need if self.keep else np.expand_dims(need, tuple(self.axes)))


class Resize(Spatial):
    """Interpolation; `sizes` names the number of channels and is rewritten."""

    def take(self, node: ir.Node, t: Take) -> None:
        sizes = input_of(node, 3)
        out = node.outputs[0]
        if sizes is None or not t.changed(out):
            return
        array = t.graph.constant(sizes)
        assert array is not None
        if "axes" not in node.attributes:
            new = np.array(array)
            new[1] = int(t.live(out, 1).sum())
            t.set_constant(node, 3, (new.tobytes(),), new)


def _only_uniform(facts: Facts) -> Facts:
    if facts.uniform:
        return facts
    spread = tuple(i for i, n in enumerate(facts.known.shape) if n == 1)
    first = facts.table[tuple(slice(0, 1) if i in spread else slice(None) for i in range(facts.table.ndim))]
    same = (facts.table == first).all(axis=spread, keepdims=True)
    return Facts.of(facts.known & same, first, Facts.nothing(facts.known.shape).axes)


def _spatial(kind: type[Spatial]) -> Callable[[ir.Node, Graph], Flow | str]:
    def rule(node: ir.Node, graph: Graph) -> Flow | str:  # noqa: ARG001 - one signature for all
        return kind() if len(dims(node.inputs[0]) or ()) >= 2 else "its input has no channel axis"

    return rule


def _resize(node: ir.Node, graph: Graph) -> Flow | str:
    rank = len(dims(node.inputs[0]) or ())
    if rank < 3:
        return "its input has no spatial axes"
    if get_string(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return "it extrapolates"
    named = get_ints(node, "axes", range(rank))
    if graph.opset < 11:
        scales = graph.numbers(input_of(node, 1))
        if scales is None:
            attribute = node.attributes.get("scales")
            scales = None if attribute is None else np.asarray(attribute.as_floats())
        return Resize() if scales is not None and (scales[:2] == 1).all() else "its scales are not known"
    sizes = input_of(node, 3)
    if 1 in [n % rank for n in named] or 0 in named:
        if sizes is not None and sizes.name:
            array = graph.constant(sizes)
            shape = dims(node.inputs[0])
            assert shape is not None
            if array is None or (shape[1] != array[1]):
                return "its sizes are not known"
        else:
            numbers = graph.numbers(input_of(node, 2))
            if numbers is None or numbers.size != rank or not (numbers[:2] == 1).all():
                return "its scales are not known"
    return Resize()


def _reduce(node: ir.Node, graph: Graph) -> Flow | str:
    rank = len(dims(node.inputs[0]) or ())
    axes = graph.integers(node, "axes", 1)
    if axes is None:
        if input_of(node, 1) is not None:
            return "its axes are not known"
        axes = [] if get_int(node, "noop_with_empty_axes", 0) else list(range(rank))
    if not axes:
        return "it reduces nothing"
    return Reduce(sorted(i % rank for i in axes), get_int(node, "keepdims", 1) == 1)


RULES: dict[str, Callable[[ir.Node, Graph], Flow | str]] = {
    "MaxPool": _spatial(MaxPool),
    "LpPool": lambda *_: "its padding differs",
    "AveragePool": _spatial(AveragePool),
    "GlobalAveragePool": _spatial(Mean),
    "GlobalMaxPool": _spatial(Spatial),
    "Resize": _resize,
    "Upsample": _resize,
    **dict.fromkeys([*_REDUCTIONS, "ReduceLogSum", "ReduceLogSumExp"], _reduce),
}
__all__ = ["RULES", "Listed"]
