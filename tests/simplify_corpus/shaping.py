"""Layers without weights: activations, arithmetic, pooling, and moves of channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .builder import LIVE, VARYING, Array, Tensor, map_constants, unary
from .channels import Values
from .layers import Layers


def _merge(rows: Array) -> Values:
    """One state per row of (channels, places) states: LIVE wins, differing constants VARY."""
    live = np.isnan(rows).any(axis=1)
    same = (rows == rows[:, :1]).all(axis=1) & np.isfinite(rows).all(axis=1)
    return np.where(live, LIVE, np.where(same, rows[:, 0], VARYING))


_ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


class Net(Layers):
    """Builder with every layer that the corpus uses."""

    def act(self, x: Tensor, op: str = "Relu", **attributes: Any) -> Tensor:
        """A unary element-wise operator."""
        (name,) = self.node(op, [x.name], **attributes)
        value = map_constants(x.channels.value, lambda v: unary(op, v, self.opset, attributes))
        return self.through([x], name, x.shape, value, x.axis)

    def clip(self, x: Tensor, low: float = 0.0, high: float = 6.0) -> Tensor:
        """Clip, with its limits as attributes before opset 11 and as inputs after."""
        if self.opset < 11:
            (name,) = self.node("Clip", [x.name], min=low, max=high)
        else:
            limits = [self.initializer(np.array(v, np.float32), "limit") for v in (low, high)]
            (name,) = self.node("Clip", [x.name, *limits])
        value = map_constants(x.channels.value, lambda v: np.clip(v, low, high))
        return self.through([x], name, x.shape, value, x.axis)

    def silu(self, x: Tensor) -> Tensor:
        """x * sigmoid(x), as exporters write it."""
        return self.combine("Mul", x, self.act(x, "Sigmoid"))

    def hard_swish(self, x: Tensor) -> Tensor:
        """HardSwish, decomposed before opset 14."""
        if self.opset >= 14:
            return self.act(x, "HardSwish")
        return self.combine("Mul", x, self.act(x, "HardSigmoid", alpha=1 / 6, beta=0.5))

    def gelu(self, x: Tensor) -> Tensor:
        """Gelu, decomposed with Erf before opset 20."""
        if self.opset >= 20:
            return self.act(x, "Gelu")
        inner = self.act(self.constant("Div", x, np.array(2**0.5)), "Erf")
        return self.constant("Mul", self.combine("Mul", x, self.constant("Add", inner, np.array(1.0))), np.array(0.5))

    def combine(self, op: str, a: Tensor, b: Tensor) -> Tensor:
        """Add, Sub, Mul or Div of two tensors that broadcast."""
        (name,) = self.node(op, [a.name, b.name])
        shape = np.broadcast_shapes(a.shape, b.shape)
        axis = a.axis if len(a.shape) >= len(b.shape) else b.axis
        left, right = np.broadcast_arrays(a.channels.value, b.channels.value)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = _ARITHMETIC[op](left, right)
        vary = (np.isinf(left) | np.isinf(right)) & ~np.isnan(left) & ~np.isnan(right)
        value = np.where(vary, VARYING, value)
        if op == "Mul":
            value = np.where((left == 0) | (right == 0), 0.0, value)
        return self.through([a, b], name, shape, value, axis)

    def constant(self, op: str, x: Tensor, array: Array, *, reverse: bool = False) -> Tensor:
        """Arithmetic with a stored array of any shape that broadcasts to `x`."""
        stored = self.initializer(np.asarray(array, np.float64), "constant")
        (name,) = self.node(op, [stored, x.name] if reverse else [x.name, stored])
        count = x.shape[x.axis]
        full = np.broadcast_to(array, x.shape)
        full = np.moveaxis(full, x.axis, 0).reshape(count, -1)
        states = np.broadcast_to(x.channels.value[:, None], full.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows = _ARITHMETIC[op](full, states) if reverse else _ARITHMETIC[op](states, full)
        result = self.through([x], name, x.shape, _merge(rows), x.axis)
        if (full == full[:1]).all():
            result.channels.rank = max(x.channels.rank, 2)
        return result

    def gate(self, x: Tensor, squeeze: int, *, hard: bool = False, inner: str = "Relu") -> Tensor:
        """Squeeze-and-excitation: x times a gate computed from its means."""
        s = self.conv(self.global_pool(x), squeeze, 1)
        s = self.silu(s) if inner == "silu" else self.act(s, inner)
        s = self.conv(s, x.shape[1], 1)
        s = self.act(s, "HardSigmoid", alpha=1 / 6, beta=0.5) if hard else self.act(s, "Sigmoid")
        return self.combine("Mul", s, x)

    # Pooling and resizing --------------------------------------------------------------------

    def pool(
        self,
        x: Tensor,
        op: str = "MaxPool",
        kernel: int = 2,
        *,
        stride: int | None = None,
        pad: int = 0,
        **attributes: Any,
    ) -> Tensor:
        """MaxPool or AveragePool (attribute count_include_pad)."""
        rank = len(x.shape) - 2
        step = stride or kernel
        (name,) = self.node(
            op,
            [x.name],
            kernel_shape=[kernel] * rank,
            strides=[step] * rank,
            pads=[pad] * 2 * rank,
            **attributes,
        )
        ceil = attributes.get("ceil_mode", 0)
        size = [(n + 2 * pad - kernel + (step - 1) * ceil) // step + 1 for n in x.shape[2:]]
        value = x.channels.value.copy()
        if op == "AveragePool" and pad and attributes.get("count_include_pad", 0):
            value[np.isfinite(value) & (value != 0)] = VARYING
        return self.through([x], name, (*x.shape[:2], *size), value)

    def global_pool(self, x: Tensor, op: str = "GlobalAveragePool", *, keep: bool = True) -> Tensor:
        """GlobalAveragePool / GlobalMaxPool, or ReduceMean over the space axes."""
        rank = len(x.shape) - 2
        shape = (*x.shape[:2], *([1] * rank)) if keep else x.shape[:2]
        if op.startswith("Global"):
            (name,) = self.node(op, [x.name])
        else:
            axes = list(range(2, 2 + rank))
            if self.opset >= 18:
                (name,) = self.node(op, [x.name, self.integers(axes)], keepdims=int(keep))
            else:
                (name,) = self.node(op, [x.name], axes=axes, keepdims=int(keep))
        return self.through([x], name, shape, x.channels.value)

    def resize(self, x: Tensor, scale: int = 2, mode: str = "nearest", **attributes: Any) -> Tensor:
        """Resize by a whole scale (Upsample before opset 10)."""
        rank = len(x.shape) - 2
        scales = self.initializer(np.array([1.0, 1.0, *([scale] * rank)], np.float32), "scales")
        if self.opset < 10:
            (name,) = self.node("Upsample", [x.name, scales], mode=mode)
        elif self.opset < 11:
            (name,) = self.node("Resize", [x.name, scales], mode=mode)
        else:
            (name,) = self.node("Resize", [x.name, "", scales], mode=mode, **attributes)
        size = [n * scale for n in x.shape[2:]]
        return self.through([x], name, (*x.shape[:2], *size), x.channels.value)

    def pad(self, x: Tensor, amounts: Sequence[int], mode: str = "constant", fill: float = 0.0) -> Tensor:
        """Pad the space axes; `amounts` are begins then ends, without batch and channel."""
        rank = len(x.shape) - 2
        pads = [0, 0, *amounts[:rank], 0, 0, *amounts[rank:]]
        if self.opset < 11:
            (name,) = self.node("Pad", [x.name], pads=pads, mode=mode, value=fill)
        else:
            inputs = [x.name, self.integers(pads)]
            if mode == "constant":
                inputs.append(self.initializer(np.array(fill, np.float32), "fill"))
            (name,) = self.node("Pad", inputs, mode=mode)
        size = [n + amounts[i] + amounts[i + rank] for i, n in enumerate(x.shape[2:])]
        value = x.channels.value.copy()
        if mode == "constant":
            value[np.isfinite(value) & (value != fill)] = VARYING
        result = self.through([x], name, (*x.shape[:2], *size), value)
        result.channels.rank = max(x.channels.rank, 2)
        return result

    # Moves of channels -----------------------------------------------------------------------

    def concat(self, *xs: Tensor, axis: int | None = None) -> Tensor:
        """Concat along the channel axis."""
        axis = xs[0].axis if axis is None else axis
        (name,) = self.node("Concat", [x.name for x in xs], axis=axis)
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        value = np.concatenate([x.channels.value for x in xs])
        result = self.tensor(name, shape, value, xs[0].axis)

        def rule(carriers: bool) -> None:
            start = 0
            for x in xs:
                x.channels.kept |= result.channels.kept[start : start + len(x.channels.kept)]
                start += len(x.channels.kept)

        self.tape.rules.append(rule)
        return result

    def split(self, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Split along the channel axis."""
        if self.opset >= 13:
            inputs = [x.name, self.integers(sizes)]
            names = self.node("Split", inputs, len(sizes), axis=x.axis)
        else:
            names = self.node("Split", [x.name], len(sizes), axis=x.axis, split=list(sizes))
        parts, start = [], 0
        for name, size in zip(names, sizes, strict=True):
            shape = list(x.shape)
            shape[x.axis] = size
            parts.append(self.select(x, name, np.arange(start, start + size), shape))
            start += size
        return parts

    def slice(self, x: Tensor, start: int, end: int, step: int = 1) -> Tensor:
        """Slice of the channel axis."""
        if self.opset >= 10:
            ends = [self.integers([v]) for v in (start, end, x.axis, step)]
            (name,) = self.node("Slice", [x.name, *ends])
        else:
            (name,) = self.node("Slice", [x.name], starts=[start], ends=[end], axes=[x.axis])
        index = np.arange(x.shape[x.axis])[slice(start, end, step)]
        shape = list(x.shape)
        shape[x.axis] = len(index)
        return self.select(x, name, index, shape)

    def gather(self, x: Tensor, index: Sequence[int]) -> Tensor:
        """Gather channels by a stored index."""
        (name,) = self.node("Gather", [x.name, self.integers(index)], axis=x.axis)
        shape = list(x.shape)
        shape[x.axis] = len(index)
        return self.select(x, name, np.array(index), shape)

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """Channel shuffle: Reshape, Transpose, Reshape."""
        _n, c, *size = x.shape
        split = self.integers([-1, groups, c // groups, *size])
        order = [0, 2, 1, *range(3, 3 + len(size))]
        (name,) = self.node("Reshape", [x.name, split])
        (name,) = self.node("Transpose", [name], perm=order)
        (name,) = self.node("Reshape", [name, self.integers([-1, c, *size])])
        return self.select(x, name, np.arange(c).reshape(groups, -1).T.ravel(), x.shape)

    def depth_to_space(self, x: Tensor, block: int = 2, mode: str = "CRD") -> Tensor:
        """DepthToSpace (pixel shuffle)."""
        n, c, *size = x.shape
        attributes = {"mode": mode} if self.opset >= 11 else {}
        (name,) = self.node("DepthToSpace", [x.name], blocksize=block, **attributes)
        out = c // block**2
        index = np.arange(c).reshape((out, -1) if mode == "CRD" else (-1, out))
        index = index if mode == "CRD" else index.T
        shape = (n, out, *(s * block for s in size))
        result = self.tensor(name, shape, _merge(x.channels.value[index]))

        def rule(carriers: bool) -> None:
            x.channels.kept[index[result.channels.kept].ravel()] = True

        self.tape.rules.append(rule)
        return result

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """Transpose; the channel axis moves along."""
        (name,) = self.node("Transpose", [x.name], perm=list(perm))
        shape = [x.shape[p] for p in perm]
        index = np.arange(len(x.channels.value))
        return self.select(x, name, index, shape, list(perm).index(x.axis))

    def flatten(self, x: Tensor, form: str = "Flatten") -> Tensor:
        """N x C x ... to N x features: Flatten, or Reshape to [N,-1], [0,-1], or all numbers."""
        n, c = x.shape[:2]
        features = prod(x.shape[1:])
        if form == "Flatten":
            (name,) = self.node("Flatten", [x.name], axis=1)
        elif form == "Shape":
            name = self._flatten_by_shape(x)
        else:
            dims = {"N,-1": [n, -1], "0,-1": [0, -1], "-1,F": [-1, features], "N,F": [n, features]}
            (name,) = self.node("Reshape", [x.name, self.integers(dims[form])])
        index = np.repeat(np.arange(c), features // c)
        return self.select(x, name, index, (n, features), 1)

    def _flatten_by_shape(self, x: Tensor) -> str:
        """x.view(x.size(0), -1) as older exporters trace it."""
        (shape,) = self.node("Shape", [x.name])
        (batch,) = self.node("Gather", [shape, self.initializer(np.array(0, np.int64), "index")])
        if self.opset >= 13:
            (batch,) = self.node("Unsqueeze", [batch, self.integers([0])])
        else:
            (batch,) = self.node("Unsqueeze", [batch], axes=[0])
        (target,) = self.node("Concat", [batch, self.integers([-1])], axis=0)
        return self.node("Reshape", [x.name, target])[0]

    def tokens(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x HW x C, as vision transformers do after patch embedding."""
        n, c, *size = x.shape
        (name,) = self.node("Reshape", [x.name, self.integers([n, c, prod(size)])])
        flat = self.select(x, name, np.arange(c), (n, c, prod(size)))
        return self.transpose(flat, [0, 2, 1])
