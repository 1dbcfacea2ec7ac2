"""Conv and ConvTranspose of any dimension, stride, dilation, padding and number of groups.

Both are written with weights W (O, I / groups, *kernel): y_o = b_o + sum_i W_oi * x_i, the sum over the group of o.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis, AtomArray
from redy.simplify.axes import Axis, Window
from redy.simplify.facts import Facts, Mask, Table
from redy.simplify.flow import Flow
from redy.simplify.graph import Array, Graph, dims, get_int, get_ints, get_string, input_of
from redy.simplify.propagate_constants import MapTable, absorb, choose
from redy.simplify.take import Take

_BLOCK = 8
_WORTH_ALIGNING = 0.4  # of the original channels; with fewer, even the slow form is faster than the original was
_SMALLEST_ALIGNED = 48  # below, the layer is too small for its form to matter


class Convolution(Flow):
    """Conv (`transposed` False) or ConvTranspose."""

    owns_atoms = True

    def __init__(self, node: ir.Node, graph: Graph, transposed: bool) -> None:
        self.transposed = transposed
        self.groups = get_int(node, "group", 1)
        weight = node.inputs[1]
        shape = dims(weight)
        assert shape is not None
        assert weight is not None
        sizes = [int(d) for d in shape]  # type: ignore[arg-type]  # a constant has a static shape
        self.kernel = sizes[2:]
        self.inputs, self.outputs = (
            (sizes[0], sizes[1] * self.groups) if transposed else (sizes[1] * self.groups, sizes[0])
        )
        self.nonzero = _nonzero(self.weights(node, graph))
        self.windows = _windows(node, self.kernel, transposed)

    def weights(self, node: ir.Node, graph: Graph) -> Array:
        weight = graph.constant(node.inputs[1])
        assert weight is not None
        return _to_output_first(weight, self.groups) if self.transposed else weight

    @property
    def depthwise(self) -> bool:
        return 1 < self.groups == self.inputs == self.outputs

    def layout(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        atoms = a.only_along(x, [1])
        if self.depthwise and atoms.size == self.inputs:
            a.atoms[y] = atoms
            return
        a.fresh(y, 1, self.outputs)
        for value in node.inputs[1:]:
            a.pin(value)

    # --- constants -----------------------------------------------------------------------------------------------

    def input_facts(self, node: ir.Node, a: Analysis) -> Facts:
        x = node.inputs[0]
        assert x is not None
        facts = a.facts[x].over([1])
        if facts.known.size != self.inputs:
            return Facts.nothing((1, self.inputs) + (1,) * len(self.kernel))
        return facts

    def response(self, node: ir.Node, graph: Graph, facts: Facts, channels: Mask) -> MapTable | None:
        """What the constant inputs `channels` add to every output, over classes; None if that depends on sizes."""
        slid = []
        for window, axis in zip(self.windows, facts.axes[2:], strict=True):
            result = window.slide(axis)
            if result is None:
                return None
            slid.append(result)
        weights = self.weights(node, graph)
        keep = np.flatnonzero(channels)
        per_group = self.inputs // self.groups
        table = np.where(channels.reshape(-1, *([1] * (facts.table.ndim - 2))), facts.table[0], 0.0)
        axes: tuple[Axis, ...] = (facts.axes[0], facts.axes[0], *[axis for axis, _ in slid])
        if self.groups == 1:
            out = _correlate(weights[:, keep].astype(np.float64)[None], table[keep][None], [taps for _, taps in slid])
        else:
            grouped = weights.reshape(self.groups, self.outputs // self.groups, per_group, *self.kernel)
            used = np.unique(keep // per_group)
            inputs = table.reshape(self.groups, per_group, *table.shape[1:])[used]
            part = _correlate(grouped[used].astype(np.float64), inputs, [taps for _, taps in slid])
            out = np.zeros((self.groups, *part.shape[1:]))
            out[used] = part
        out = out.reshape(1, self.outputs, *out.shape[2:])
        return MapTable(out, axes)

    def blocked(self, unknown: Mask) -> Mask:
        """Outputs that some of the input channels `unknown` reach."""
        per_out = unknown.reshape(self.groups, -1).repeat(self.outputs // self.groups, axis=0)
        return np.asarray((self.nonzero & per_out).any(axis=1))

    def forward(self, node: ir.Node, a: Analysis) -> None:
        y = node.outputs[0]
        facts = self.input_facts(node, a)
        known_in = facts.known.ravel()
        known = ~self.blocked(~known_in)
        bias = _bias(node, a.graph, self.outputs)
        if bias is None or not known.any():
            return
        shape = (1, self.outputs) + (1,) * len(self.kernel)
        table: Table = np.where(known, bias, 0.0).reshape(shape)
        axes = Facts.nothing(shape).axes
        useful = known_in & ~facts.zero().ravel() & self.reached(known)
        if useful.any():
            response = self.response(node, a.graph, facts, useful)
            if response is None:
                known = known & ~self.blocked(useful)
            else:
                table = np.where(known.reshape(shape), response.table + table, 0.0)
                axes = response.axes
        a.facts[y] = Facts.of(known.reshape(shape), table, axes)

    def reached(self, outputs: Mask) -> Mask:
        """Input channels that have a weight other than zero to one of these outputs."""
        hit = (self.nonzero & outputs[:, None]).reshape(self.groups, -1, self.inputs // self.groups)
        return np.asarray(hit.any(axis=1).ravel())

    # --- needs ---------------------------------------------------------------------------------------------------

    def backward(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        for value in node.inputs[1:]:
            a.demand_all(value)
        outputs = (a.needs[y] & ~a.absorbed(y)).ravel()
        if not outputs.any():
            return
        need = self.reached(outputs)
        shape = a.needs[x].shape
        if shape[1] != self.inputs:
            a.demand_all(x)
            return
        view = (1, self.inputs) + (1,) * (len(shape) - 2)
        a.demand(x, need.reshape(view))
        facts = self.input_facts(node, a)
        live = a.live(x, 1)
        constants = need & facts.known.ravel() & ~facts.zero().ravel()
        strict = choose(self, node, a, facts, constants, live)
        a.demand(x, strict.reshape(view), strict=True)

    def close(self, node: ir.Node, a: Analysis) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        live_in, live_out = a.live(x, 1), a.live(y, 1)
        labels_in = a.only_along_labels(x, 1)
        labels_out = a.atoms[y].ravel()
        if self.groups == 1 or not live_out.any():
            return
        if self.depthwise and labels_in.size == self.inputs:
            self._align(a, live_in, labels_in, a.graph.widths.get(node, self.outputs))
            return
        outs = live_out.reshape(self.groups, -1)
        group = np.asarray(outs.any(axis=1))
        if labels_in.size == self.inputs:
            ins = live_in.reshape(self.groups, -1)
            group |= ins.any(axis=1)
            _equalise(a, ins, labels_in.reshape(self.groups, -1), group)
        else:
            group[:] = True
        _equalise(a, outs, labels_out.reshape(self.groups, -1), group)

    def _align(self, a: Analysis, live: Mask, labels: AtomArray, width: int) -> None:
        """Keep a multiple of 8 channels where there was one: onnxruntime is 2-3 times slower without."""
        count = int(live.sum())
        lacking = -count % _BLOCK
        if (
            width >= _SMALLEST_ALIGNED
            and width % _BLOCK == 0
            and lacking
            and count > _WORTH_ALIGNING * width
            and count + lacking <= live.size
        ):
            a.revive(labels[np.flatnonzero(~live)[:lacking]], filling=True)

    # --- rewriting -----------------------------------------------------------------------------------------------

    def take(self, node: ir.Node, t: Take) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        assert node.inputs[1] is not None
        live_in = t.live(x, 1)
        if live_in.size != self.inputs:
            live_in = np.ones(self.inputs, dtype=bool)
        live_out = t.live(y, 1)
        if live_in.all() and live_out.all():
            return
        absorb(self, node, t, live_in)
        changed = t.weights.get(node)
        weights = self.weights(node, t.graph) if changed is None else changed
        grouped = weights.reshape(self.groups, self.outputs // self.groups, -1, *self.kernel)
        ins, outs = live_in.reshape(self.groups, -1), live_out.reshape(self.groups, -1)
        rows = [grouped[g][outs[g]][:, ins[g]] for g in range(self.groups) if outs[g].any() or ins[g].any()]
        groups = len(rows)
        new = np.concatenate(rows, axis=0)
        if self.transposed:
            new = _to_input_first(new, groups)
        key = (live_in.tobytes(), live_out.tobytes(), b"" if changed is None else str(id(node)).encode())
        t.set_constant(node, 1, key, new)
        if self.groups > 1:
            node.attributes["group"] = ir.AttrInt64("group", groups)
        if input_of(node, 2) is not None:
            t.slice_constant(node, 2, [(0, live_out)])


def _equalise(a: Analysis, live: Mask, labels: AtomArray, group: Mask) -> None:
    """Revive so that every group that stays has as many channels as the fullest one."""
    wanted = max(int(live[group].sum(axis=1).max(initial=0)), 1)
    for g in np.flatnonzero(group):
        lacking = wanted - int(live[g].sum())
        if lacking > 0:
            a.revive(labels[g][np.flatnonzero(~live[g])[:lacking]])


def _correlate(weights: Table, table: Table, taps: list[np.ndarray]) -> Table:
    """(G, O, I, *kernel) with (G, I, *classes) -> (G, O, *out classes); taps[d] (out classes, kernel), -1 reads 0."""
    for axis, index in enumerate(taps):
        position = 2 + 2 * axis
        zero = np.zeros_like(table.take([0], axis=position))
        table = np.concatenate([table, zero], axis=position)
        table = table.take(index, axis=position)  # index -1 is the zero just appended
    spatial = len(taps)
    outs = [2 + 2 * d for d in range(spatial)]
    kernels = [3 + 2 * d for d in range(spatial)]
    table = table.transpose(0, *outs, 1, *kernels)
    shape = table.shape[1 : 1 + spatial]
    flat = table.reshape(table.shape[0], int(np.prod(shape)), -1)
    out = weights.reshape(weights.shape[0], weights.shape[1], -1) @ flat.transpose(0, 2, 1)
    return out.reshape(weights.shape[0], weights.shape[1], *shape)


def _nonzero(weights: Array) -> Mask:
    """(O, I / groups): whether any tap is not exactly zero (NaN and infinity are not zero)."""
    return np.asarray((weights.reshape(weights.shape[0], weights.shape[1], -1) != 0).any(axis=2))


def _bias(node: ir.Node, graph: Graph, outputs: int) -> Table | None:
    value = input_of(node, 2)
    return np.zeros(outputs) if value is None else graph.numbers(value)


def _to_output_first(weight: Array, groups: int) -> Array:
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], *weight.shape[2:])
    return grouped.swapaxes(1, 2).reshape(groups * weight.shape[1], -1, *weight.shape[2:])


def _to_input_first(weight: Array, groups: int) -> Array:
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], *weight.shape[2:])
    return grouped.swapaxes(1, 2).reshape(groups * weight.shape[1], -1, *weight.shape[2:])


def _windows(node: ir.Node, kernel: list[int], transposed: bool) -> list[Window]:
    rank = len(kernel)
    strides = get_ints(node, "strides", [1] * rank)
    dilations = get_ints(node, "dilations", [1] * rank)
    pads = get_ints(node, "pads", [0] * (2 * rank))
    auto = get_string(node, "auto_pad", "NOTSET")
    shape_in = (dims(node.inputs[0]) or ())[2:]
    shape_out = (dims(node.outputs[0]) or ())[2:]
    unclear = transposed and (auto != "NOTSET" or "output_shape" in node.attributes)
    windows = []
    for d in range(rank):
        length = shape_in[d] if isinstance(shape_in[d], int) and not unclear else None
        out = shape_out[d] if isinstance(shape_out[d], int) else None
        begin, end = pads[d], pads[d + rank]
        if auto in ("SAME_UPPER", "SAME_LOWER") and not transposed:
            span = (kernel[d] - 1) * dilations[d]
            total = (
                span
                if length is None
                else max(((-(-int(length) // strides[d])) - 1) * strides[d] + span + 1 - int(length), 0)
            )
            begin, end = (total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2)
        elif auto == "VALID":
            begin = end = 0
        windows.append(
            Window(length, out, kernel[d], strides[d], dilations[d], begin, end, transposed)  # type: ignore[arg-type]
        )
    return windows


def _choose(transposed: bool) -> Callable[[ir.Node, Graph], Flow | str]:
    def rule(node: ir.Node, graph: Graph) -> Flow | str:
        if not graph.is_constant(node.inputs[1]) or graph.constant(node.inputs[1]) is None:
            return "its weights are not constants"
        if input_of(node, 2) is not None and not graph.is_constant(node.inputs[2]):
            return "its bias is not a constant"
        return Convolution(node, graph, transposed)

    return rule


RULES = {"Conv": _choose(False), "ConvTranspose": _choose(True)}
