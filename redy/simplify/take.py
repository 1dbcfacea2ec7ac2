"""Taking the channels that stay: the context in which each rule rewrites its node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from redy.simplify.analysis import Analysis
from redy.simplify.facts import Mask
from redy.simplify.graph import Array, Graph, dims, input_of
from redy.simplify.propagate_constants import MapTable


class Take:
    """Rewrites the graph for the decision of one analysis; nodes that lose all of their channels are collected."""

    def __init__(self, a: Analysis) -> None:
        self.a = a
        self.graph: Graph = a.graph
        self.absorbed_constants = 0
        self.later_maps: list[tuple[ir.Value, MapTable]] = []
        self.replacements: list[tuple[ir.Value, ir.Value]] = []
        self.weights: dict[ir.Node, Array] = {}
        self._slices: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def live(self, value: ir.Value, axis: int) -> Mask:
        return self.a.live(value, axis)

    def gone(self, value: ir.Value | None) -> bool:
        """Whether no channel of the value is left."""
        return value is not None and value in self.a.atoms and not self.a.alive[self.a.atoms[value]].any()

    def changed(self, value: ir.Value) -> bool:
        return value in self.a.atoms and bool(self.a.dropped(value).any())

    def slice_constant(self, node: ir.Node, index: int, cuts: Sequence[tuple[int, Mask]]) -> None:
        """Let input `index` be the constant there with only the True entries along each axis; equal cuts are shared."""
        value = input_of(node, index)
        cuts = [(axis, mask) for axis, mask in cuts if mask.size > 1 and not mask.all()]
        if value is None or not cuts:
            return
        key = (value, b"".join(bytes([axis]) + mask.tobytes() for axis, mask in cuts))
        if key not in self._slices:
            array = self.graph.constant(value)
            assert array is not None
            for axis, mask in cuts:
                if array.shape[axis] == mask.size:
                    array = np.compress(mask, array, axis=axis)
            self._slices[key] = self.new_constant(value, array)
        node.replace_input_with(index, self._slices[key])

    def set_constant(self, node: ir.Node, index: int, key: tuple[bytes, ...], array: Array) -> None:
        """Let input `index` be a new constant of the same type; the same constant with the same key is shared."""
        value = input_of(node, index)
        assert value is not None
        known = (value, b"|".join(key))
        if known not in self._slices:
            self._slices[known] = self.new_constant(value, array)
        node.replace_input_with(index, self._slices[known])

    def set_weights(self, node: ir.Node, weights: Array) -> None:
        """New weights of a whole layer, given as outputs x inputs x kernel, before channels are taken from them."""
        self.weights[node] = weights

    def new_constant(self, like: ir.Value, array: Array, stem: str | None = None) -> ir.Value:
        dtype = like.dtype
        if dtype is None:
            dtype = ir.tensor(np.asarray(self.graph.constant(like))).dtype
        return self.graph.add_constant(stem or f"{like.name}_live", array, dtype)

    def replace_by_slice(self, node: ir.Node, x: ir.Value, out: ir.Value, axis: int, index: np.ndarray) -> None:
        """Let the readers of `out` read these entries of `x` along `axis`, by a Slice where they are evenly spaced."""
        step = int(index[1] - index[0]) if len(index) > 1 else 1
        even = bool((np.diff(index) == step).all()) and step > 0
        if even and self.graph.opset >= 10:
            bounds = [[int(index[0])], [int(index[-1]) + 1], [axis], [step]]
            inputs = [
                self.graph.add_constant("bound", np.asarray(b, dtype=np.int64), ir.DataType.INT64) for b in bounds
            ]
            new = self.graph.add_node("Slice", [x, *inputs], node, stem=f"{out.name}_live", dtype=out.dtype)
        else:
            indices = self.graph.add_constant("indices", np.asarray(index, dtype=np.int64), ir.DataType.INT64)
            new = self.graph.add_node(
                "Gather", [x, indices], node, stem=f"{out.name}_live", dtype=out.dtype, attributes={"axis": axis}
            )
        shape = list(dims(out) or ())
        shape[axis] = len(index)
        new.shape = ir.Shape(shape)
        self.replacements.append((out, new))

    def reshape_value(self, value: ir.Value) -> None:
        """Note the new sizes of a value."""
        shape = dims(value)
        if shape is None or value not in self.a.atoms:
            return
        atoms = self.a.atoms[value]
        value.shape = ir.Shape(
            [int(self.live(value, i).sum()) if atoms.shape[i] > 1 else d for i, d in enumerate(shape)]
        )


def renumber(mask: Mask) -> np.ndarray:
    """New index of each entry that stays."""
    return np.cumsum(mask) - 1
