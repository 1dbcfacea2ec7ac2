"""Affine nodes: Gemm, Conv, pooling and sums of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from redy.errors import InputError
from redy.formats.writing.builder import Builder, compressed
from redy.formats.writing.movement import as_concat, write_gather
from redy.model import Affine, Array, Dense, Gather, Operator, Positionwise, Scale, Term
from redy.model.compose import is_identity
from redy.model.convolution import AveragePool, Conv, ConvTranspose, Windows


def write_affine(builder: Builder, node: Affine) -> None:
    """z = bias + sum of operator(source), with the bias inside a Gemm or Conv where one can hold it.

    Several dense terms become one Gemm on their concatenated sources, which is one product instead of several.
    """
    if as_concat(builder, node):
        return
    dense = [term for term in node.terms if isinstance(term.operator, Dense)]
    others = [term for term in node.terms if not isinstance(term.operator, Dense)]
    bias: Array | None = node.bias if node.bias.any() else None
    parts: list[Callable[[str, Array | None], str]] = []
    holder = False
    if dense:
        holder = True
        parts.append(lambda out, held: _gemm(builder, node.name, dense, held, out))
    for term in sorted(others, key=lambda term: not _holds(term.operator, node.bias)):
        holder = holder or _holds(term.operator, node.bias)
        parts.append(lambda out, held, term=term: _term(builder, node.name, term, held, out))  # type: ignore[misc]
    added = bias is not None and not holder
    simple = len(parts) == 1 and not added
    results = []
    for place, part in enumerate(parts):
        held = bias if place == 0 and holder else None
        target = node.name if simple else builder.fresh(f"{node.name}.part")
        results.append(part(target, held))
    if simple:
        if results[0] != node.name:
            builder.node("Identity", results, node.name)
        return
    if added and bias is not None:
        results.append(builder.weight(f"{node.name}.bias", compressed(bias)))
    total = results[0]
    for place, result in enumerate(results[1:], start=2):
        out = node.name if place == len(results) else builder.fresh(f"{node.name}.sum")
        total = builder.node("Add", [total, result], out)


def _holds(operator: Operator, bias: Array) -> bool:
    """Whether the operator's ONNX node can hold the bias."""
    if not isinstance(operator, Conv | ConvTranspose):
        return False
    rows = bias.reshape(bias.shape[0], -1)
    return bool((rows == rows[:, :1]).all())


def write_constant(builder: Builder, node: Affine, batch: int | None) -> None:
    """A value without a source: its bias, as often as the batch is long (`batch` is None where that is open)."""
    data = builder.weight(f"{node.name}.constant", node.bias[None])
    if batch is not None:
        shape = builder.whole_numbers(f"{node.name}.shape", [batch, *node.shape])
    else:
        whole = builder.node("Shape", [builder.batch_source], builder.fresh(f"{node.name}.input_shape"))
        ends = [builder.whole_numbers(f"{node.name}.{name}", [n]) for name, n in (("first", 0), ("second", 1))]
        rows = builder.node("Slice", [whole, *ends], builder.fresh(f"{node.name}.batch"))
        inner = builder.whole_numbers(f"{node.name}.inner", node.shape)
        shape = builder.node("Concat", [rows, inner], builder.fresh(f"{node.name}.shape"), axis=0)
    builder.node("Expand", [data, shape], node.name)


def _gemm(builder: Builder, name: str, terms: list[Term], bias: Array | None, out: str) -> str:
    operators = [term.operator for term in terms if isinstance(term.operator, Dense)]
    flats = [builder.flat(term.source) for term in terms]
    source = flats[0]
    if len(flats) > 1:
        source = builder.node("Concat", flats, builder.fresh(f"{name}.sources"), axis=1)
    weight = np.concatenate([operator.weight for operator in operators], axis=1)
    inputs = [source, builder.weight(f"{name}.weight", weight)]
    if bias is None and builder.plain:
        bias = np.zeros(len(weight))
    if bias is not None:
        inputs.append(builder.weight(f"{name}.bias", bias.ravel()))
    attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0} if builder.plain else {}
    shape = operators[0].out_shape
    if len(shape) == 1:
        return builder.node("Gemm", inputs, out, transB=1, **attributes)
    product = builder.node("Gemm", inputs, builder.fresh(f"{name}.product"), transB=1, **attributes)
    return builder.reshape(product, shape, out)


def _term(builder: Builder, name: str, term: Term, bias: Array | None, out: str) -> str:
    """The tensor that holds operator(source): `out`, or the source itself where the operator is the identity."""
    operator, source = term.operator, builder.tensor(term.source)
    if is_identity(operator):
        return source
    if isinstance(operator, Gather):
        return write_gather(builder, term.source, operator, out)
    if isinstance(operator, Scale):
        if (operator.factor == -1).all():
            return builder.node("Neg", [source], out)
        return builder.node("Mul", [source, builder.weight(f"{name}.factor", compressed(operator.factor))], out)
    if isinstance(operator, Positionwise):
        return builder.node("MatMul", [source, builder.weight(f"{name}.weight", operator.weight.T)], out)
    if isinstance(operator, Conv):
        inputs = [source, builder.weight(f"{name}.weight", operator.weight)]
        inputs += [] if bias is None else [_channel_bias(builder, name, bias)]
        return builder.node("Conv", inputs, out, group=operator.groups, **_geometry(operator.windows))
    if isinstance(operator, ConvTranspose):
        return _conv_transpose(builder, name, operator, source, bias, out)
    if isinstance(operator, AveragePool):
        return _average_pool(builder, name, operator, source, out)
    matrix = Dense(operator.matrix(), operator.in_shape, operator.out_shape)
    return _gemm(builder, name, [Term(term.source, matrix)], None, out)


def _channel_bias(builder: Builder, name: str, bias: Array) -> str:
    return builder.weight(f"{name}.bias", bias.reshape(bias.shape[0], -1)[:, 0])


def _geometry(windows: Windows) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(windows.kernel),
        "strides": list(windows.strides),
        "dilations": list(windows.dilations),
        "pads": list(windows.pads),
    }


def _conv_transpose(
    builder: Builder, name: str, operator: ConvTranspose, source: str, bias: Array | None, out: str
) -> str:
    windows, rank = operator.conv.windows, len(operator.conv.windows.spatial)
    extra = [
        padded - (s * (n - 1) + d * (k - 1) + 1)
        for padded, s, n, d, k in zip(
            windows.padded, windows.strides, windows.out_spatial, windows.dilations, windows.kernel, strict=True
        )
    ]
    if len(extra) != rank or min(extra) < 0:
        raise InputError(f"{name}: this transposed convolution has no ONNX form")
    inputs = [source, builder.weight(f"{name}.weight", operator.conv.weight)]
    inputs += [] if bias is None else [_channel_bias(builder, name, bias)]
    attributes = _geometry(windows)
    return builder.node("ConvTranspose", inputs, out, group=operator.conv.groups, output_padding=extra, **attributes)


def _average_pool(builder: Builder, name: str, operator: AveragePool, source: str, out: str) -> str:
    windows, size = operator.windows, float(math.prod(operator.windows.kernel))
    plain = set(windows.strides) | set(windows.dilations) <= {1} and not any(windows.pads)
    if windows.kernel == windows.spatial and plain and (operator.divisor == size).all():
        return builder.node("GlobalAveragePool", [source], out)
    attributes = _geometry(windows)
    if set(windows.dilations) == {1}:
        del attributes["dilations"]
    if np.array_equal(operator.divisor, windows.counts()):
        return builder.node("AveragePool", [source], out, **attributes)
    if (operator.divisor == size).all():
        return builder.node("AveragePool", [source], out, count_include_pad=1, **attributes)
    pooled = builder.node("AveragePool", [source], builder.fresh(f"{name}.pooled"), count_include_pad=1, **attributes)
    return builder.node("Mul", [pooled, builder.weight(f"{name}.share", size / operator.divisor)], out)
