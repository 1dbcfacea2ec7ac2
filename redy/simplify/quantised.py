"""Weights stored as small whole numbers: w = (q - zero point) * scale, per tensor or per entry of one axis.

They are dequantised before channels are analysed and quantised again afterwards, where that gives the very same numbers
back: what was only cut from a quantised tensor always does, what another rewrite changed stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from redy.simplify.graph import Array, Graph, get_int

_WHOLE = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)


@dataclass(frozen=True, eq=False)
class Quantiser:
    """Scales (one, or one per entry of `axis`), zero points of the same size or none, and the type of q."""

    scale: Array
    zero: Array | None
    axis: int
    dtype: ir.DataType

    def dequantised(self, q: Array) -> Array:
        """The numbers in the type of the scale, rounded once."""
        view = [-1 if i == self.axis else 1 for i in range(q.ndim)] if self.scale.size > 1 else []
        shift = np.zeros((), dtype=np.int32) if self.zero is None else self.zero.astype(np.int32)
        wide = q.astype(np.int32) - shift.reshape(view if shift.size > 1 else [])
        return np.multiply(wide.astype(self.scale.dtype), self.scale.reshape(view), dtype=self.scale.dtype)

    def quantised(self, w: Array) -> tuple[Array, Quantiser] | None:
        """q and the quantiser, of the entries of the axis that are left, that give exactly `w`; None without."""
        if self.scale.size == 1:
            q = self._whole(w, self.scale.reshape(()), None if self.zero is None else self.zero.reshape(()))
            return None if q is None else (q, self)
        rows = np.moveaxis(w, self.axis, 0)
        kept: list[int] = []
        found: list[Array] = []
        for row in rows:
            for k in range(kept[-1] + 1 if kept else 0, self.scale.size):
                q = self._whole(row, self.scale[k], None if self.zero is None else self.zero[k])
                if q is not None:
                    kept.append(k)
                    found.append(q)
                    break
            else:
                return None
        zero = None if self.zero is None else self.zero[kept]
        left = Quantiser(self.scale[kept], zero, self.axis, self.dtype)
        return np.moveaxis(np.stack(found), 0, self.axis), left

    def _whole(self, w: Array, scale: Array, zero: Array | None) -> Array | None:
        """q of numbers that share a scale, where it gives them back."""
        kind = self.dtype.numpy()
        bounds = np.iinfo(kind)
        shift = 0 if zero is None else int(zero)
        with np.errstate(all="ignore"):
            q = np.rint(w.astype(np.float64) / float(scale)) + shift
        if not (np.isfinite(q) & (q >= bounds.min) & (q <= bounds.max)).all():
            return None
        one = Quantiser(np.asarray(scale), None if zero is None else np.asarray(zero), 0, self.dtype)
        whole = q.astype(kind)
        return whole if np.array_equal(one.dequantised(whole), w) else None


def quantiser_of(node: ir.Node, given: list[Array | None], dtype: ir.DataType | None) -> Quantiser | None:
    """What a DequantizeLinear of stored tensors does; None for blocks and types that are not followed."""
    q, scale = given[0], given[1]
    if q is None or scale is None or scale.ndim > 1 or get_int(node, "block_size", 0) or dtype not in _WHOLE:
        return None
    axis = get_int(node, "axis", 1) % max(q.ndim, 1)
    return Quantiser(scale, given[2] if len(given) > 2 else None, axis, dtype)


def requantise(graph: Graph) -> int:
    """Store again as whole numbers what was; returns how many tensors."""
    restored = 0
    for value in list(graph.graph.initializers.values()):
        known = next((graph.quantisers[stem] for stem in graph.quantisers if (value.name or "").startswith(stem)), None)
        array = graph.constant(value)
        readers = [use.node for use in value.uses()]
        if known is None or array is None or not readers or graph.exported(value):
            continue
        found = known.quantised(array) if array.dtype == known.scale.dtype else None
        if found is None:
            continue
        q, left = found
        first = next(node for node in graph.graph if node in readers)
        scale_type = ir.tensor(left.scale).dtype
        inputs = [
            graph.add_constant(f"{value.name}_q", q, left.dtype),
            graph.add_constant(f"{value.name}_scale", left.scale, scale_type),
        ]
        if left.zero is not None:
            inputs.append(graph.add_constant(f"{value.name}_zero", left.zero, left.dtype))
        out = graph.add_node(
            "DequantizeLinear", inputs, first, stem=f"{value.name}_dequantised", shape=array.shape, dtype=scale_type,
            attributes={"axis": left.axis} if left.scale.size > 1 else None,
        )  # fmt: skip
        graph.replace(value, out)
        restored += 1
    return restored
