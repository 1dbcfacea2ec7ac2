"""Layers with weights: convolutions, linear layers, normalisation; and how each is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .builder import LIVE, VARYING, Array, Builder, Tensor, map_constants
from .channels import Mask, Values, linear_cost, linear_rule

Sizes = int | Sequence[int]


def _each(value: Sizes, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value)


class Layers(Builder):
    """Builder with the layers that have weights."""

    def conv(
        self,
        x: Tensor,
        out: int,
        kernel: Sizes = 3,
        *,
        stride: Sizes = 1,
        pad: Sizes | None = None,
        auto_pad: str = "",
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        prune: bool | Sequence[int] = True,
        blind: Sequence[int] = (),
        weight: Array | None = None,
    ) -> Tensor:
        """Conv of any rank; `prune` picks filters, `blind` input channels with zero weights.

        `pad` is one size for both ends, one per axis, or ONNX `pads`; default kernel // 2.
        """
        rank = len(x.shape) - 2
        k, s, d = _each(kernel, rank), _each(stride, rank), _each(dilation, rank)
        pads = [v // 2 * w for v, w in zip(k, d, strict=True)] if pad is None else _each(pad, rank)
        pads = pads if len(pads) == 2 * rank else pads * 2
        if auto_pad:
            pads = _automatic(x.shape[2:], k, s, d, auto_pad)
        dead = self.chosen(out, prune, groups)
        weight = self._filters((out, x.shape[1] // groups, *k), dead, blind, groups, weight)
        offset = self._bias(dead, bias)
        attributes: dict[str, Any] = {"kernel_shape": k, "strides": s, "dilations": d}
        attributes |= {"auto_pad": auto_pad} if auto_pad else {"pads": pads}
        inputs = [x.name, self.initializer(weight)]
        inputs += [self.initializer(offset, "bias")] if bias else []
        (name,) = self.node("Conv", inputs, group=groups, **attributes)
        size = [(n + pads[i] + pads[i + rank] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i, n in enumerate(x.shape[2:])]
        value = _linear_value(x.channels.value, weight, offset, dead, groups, any(pads))
        result = self.tensor(name, (x.shape[0], out, *size), value)
        self._linear(x, result, groups, any(pads), blind, prod(k) * prod(size) * x.shape[0])
        return result

    def conv_transpose(
        self,
        x: Tensor,
        out: int,
        kernel: int = 2,
        *,
        stride: int = 2,
        pad: int = 0,
        groups: int = 1,
        output_padding: int = 0,
        prune: bool | Sequence[int] = True,
    ) -> Tensor:
        """ConvTranspose; weights are laid out in x out/groups x kernel."""
        rank = len(x.shape) - 2
        dead = self.chosen(out, prune, groups)
        k = [kernel] * rank
        weight = self._filters((out, x.shape[1] // groups, *k), dead, (), groups, None)
        offset = self._bias(dead, True)
        parts = [part.swapaxes(0, 1) for part in np.split(weight, groups)]
        attributes: dict[str, Any] = {"kernel_shape": k, "strides": [stride] * rank}
        attributes |= {"pads": [pad] * 2 * rank, "group": groups}
        if output_padding:
            attributes["output_padding"] = [output_padding] * rank
        inputs = [x.name, self.initializer(np.concatenate(parts)), self.initializer(offset, "bias")]
        (name,) = self.node("ConvTranspose", inputs, **attributes)
        size = [(n - 1) * stride + kernel - 2 * pad + output_padding for n in x.shape[2:]]
        edges = kernel != stride or pad > 0 or output_padding > 0
        varies = edges or kernel > 1
        value = _linear_value(x.channels.value, weight, offset, dead, groups, varies)
        result = self.tensor(name, (x.shape[0], out, *size), value)
        each = prod(k) * prod(x.shape[2:]) * x.shape[0]
        self._linear(x, result, groups, edges, (), each)
        return result

    def linear(
        self,
        x: Tensor,
        out: int,
        *,
        form: str = "gemm",
        bias: bool = True,
        prune: bool | Sequence[int] = True,
        blind: Sequence[int] = (),
        **attributes: Any,
    ) -> Tensor:
        """Gemm (attributes transB, alpha, beta; default transB=1), or MatMul and Add."""
        dead = self.chosen(out, prune)
        size = x.shape[x.axis]
        weight = self._filters((out, size), dead, blind, 1, None)
        offset = self._bias(dead, bias)
        value = _linear_value(x.channels.value, weight, offset, dead, 1, False)
        if form == "gemm":
            name = self._gemm(x, weight, offset if bias else None, attributes)
        else:
            (name,) = self.node("MatMul", [x.name, self.initializer(weight.T)])
            if bias:
                (name,) = self.node("Add", [self.initializer(offset, "bias"), name])
        shape = [*x.shape]
        shape[x.axis] = out
        result = self.tensor(name, shape, value, x.axis)
        self._linear(x, result, 1, False, blind, prod(shape) // out)
        return result

    def _gemm(self, x: Tensor, weight: Array, offset: Array | None, attributes: dict[str, Any]) -> str:
        attributes = {"transB": 1, **attributes}
        alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
        stored = weight if attributes["transB"] else weight.T
        inputs = [x.name, self.initializer(stored / alpha)]
        if offset is not None:
            inputs.append(self.initializer(offset / beta, "bias"))
        return self.node("Gemm", inputs, **attributes)[0]

    def batch_norm(self, x: Tensor, *, keep: bool = False) -> Tensor:
        """BatchNormalization; channels that are zero stay zero unless constants are wanted."""
        if self.fused and not keep:
            return x
        count = x.shape[1]
        scale = self.rng.uniform(0.6, 1.2, count)
        shift = self.rng.normal(0, 0.3, count)
        mean = self.rng.normal(0, 0.2, count)
        var = self.rng.uniform(0.5, 1.5, count)
        if not self.constants:
            zero = x.channels.value == 0
            scale[zero], shift[zero] = 0.0, 0.0
        stored = [("weight", scale), ("bias", shift), ("running_mean", mean), ("running_var", var)]
        inputs = [x.name, *(self.initializer(a, s) for s, a in stored)]
        (name,) = self.node("BatchNormalization", inputs, epsilon=1e-5)
        factor = scale / np.sqrt(var + 1e-5)
        value = x.channels.value.copy()
        known = np.isfinite(value)
        value[known] = ((value - mean) * factor + shift)[known]
        return self.through([x], name, x.shape, value)

    def prelu(self, x: Tensor, *, spread: bool = True) -> Tensor:
        """PRelu with one slope per channel (`spread`) or one for all."""
        slope = self.rng.uniform(0.05, 0.4, x.shape[1] if spread else 1)
        shape = (-1, *(1 for _ in x.shape[2:])) if spread else (1,)
        (name,) = self.node("PRelu", [x.name, self.initializer(slope.reshape(shape))])
        slopes = np.broadcast_to(slope, (x.shape[1],))
        value = x.channels.value.copy()
        known = np.isfinite(value) & (value < 0)
        value[known] = (value * slopes)[known]
        return self.through([x], name, x.shape, value)

    def _filters(
        self,
        shape: tuple[int, ...],
        dead: Mask,
        blind: Sequence[int],
        groups: int,
        given: Array | None,
    ) -> Array:
        """Random filters (out, in/groups, *kernel) with pruned ones and unread inputs zero."""
        scale = np.sqrt(2.0 / (prod(shape[1:]) * max(1 - self.pruning.ratio, 0.1)))
        fresh = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        weight = fresh if given is None else np.array(given, dtype=np.float64)
        weight[dead] = 0.0
        per_group, outs = shape[1], shape[0] // groups
        for channel in blind:
            group, inside = divmod(channel, per_group)
            weight[group * outs : (group + 1) * outs, inside] = 0.0
        return weight

    def _bias(self, dead: Mask, wanted: bool) -> Array:
        if not wanted:
            return np.zeros(len(dead))
        offset = self.rng.normal(0.1, 0.5, len(dead))
        if not self.constants:
            offset[dead] = 0.0
        return offset

    def _linear(self, x: Tensor, y: Tensor, groups: int, padded: bool, blind: Sequence[int], each: int) -> None:
        unread = np.zeros(len(x.channels.value), dtype=bool)
        unread[list(blind)] = True
        self.tape.rules.append(
            linear_rule(
                x.channels,
                y.channels,
                groups=groups,
                padded=padded,
                spatial=prod(y.spatial) > 1,
                blind=unread,
            )
        )
        self.tape.costs.append(linear_cost(x.channels, y.channels, groups=groups, each=each))


def _automatic(shape: Sequence[int], k: list[int], s: list[int], d: list[int], mode: str) -> list[int]:
    if mode == "VALID":
        return [0] * 2 * len(k)
    totals = [max((-(-n // s[i]) - 1) * s[i] + d[i] * (k[i] - 1) + 1 - n, 0) for i, n in enumerate(shape)]
    less = [t // 2 for t in totals]
    more = [t - v for t, v in zip(totals, less, strict=True)]
    return less + more if mode == "SAME_UPPER" else more + less


def _linear_value(source: Values, weight: Array, offset: Array, dead: Mask, groups: int, varies: bool) -> Values:
    """Constants of a linear layer's outputs: pruned filters, and filters that read constants only."""
    result = np.full(len(dead), LIVE)
    outs, ins = len(dead) // groups, len(source) // groups
    for o in range(len(dead)):
        seen = source[o // outs * ins :][:ins]
        if dead[o] or not seen.any():
            result[o] = offset[o]
        elif not np.isnan(seen).any():
            flat = weight[o].reshape(ins, -1).sum(axis=1)
            varying = varies or np.isinf(seen).any()
            result[o] = VARYING if varying else seen @ flat + offset[o]
    return result


__all__ = ["Layers", "map_constants"]
