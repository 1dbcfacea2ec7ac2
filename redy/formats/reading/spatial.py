"""Convolutions and pooling."""

from __future__ import annotations

import math

import numpy as np

from redy.formats.reading.graph import Graph, Op, Refused, Tensor, Value, reads
from redy.model import Array, Dense, MaxPool, Operator, Positionwise
from redy.model.convolution import AveragePool, Conv, ConvTranspose, Windows


@reads("Conv")
def read_conv(graph: Graph, op: Op) -> list[Tensor]:
    """A convolution with its bias."""
    value, weight = graph.as_batched(op.value(), op.output), op.weights(1)
    windows = _windows(op, value, weight.shape[2:])
    operator = Conv(weight, value.shape[0], windows, op.attribute("group", 1))
    return [graph.affine(op.output, [(value, operator)], _bias(op, operator), batched=True)]


def _bias(op: Op, operator: Operator) -> Array | None:
    if op.input(2) is None:
        return None
    return op.weights(2).reshape(-1, *(1,) * (len(operator.out_shape) - 1))


@reads("ConvTranspose")
def read_conv_transpose(graph: Graph, op: Op) -> list[Tensor]:
    """The adjoint of the convolution with the same weight."""
    value, weight = graph.as_batched(op.value(), op.output), op.weights(1)
    rank, spatial = len(value.shape) - 1, value.shape[1:]
    kernel = weight.shape[2:]
    strides = tuple(op.attribute("strides", [1] * rank))
    dilations = tuple(op.attribute("dilations", [1] * rank))
    extra = tuple(op.attribute("output_padding", [0] * rank))
    pads = tuple(op.attribute("pads", [0] * 2 * rank))
    whole = [
        s * (n - 1) + e + d * (k - 1) + 1
        for s, n, e, d, k in zip(strides, spatial, extra, dilations, kernel, strict=True)
    ]
    mode = op.attribute("auto_pad", "NOTSET")
    wanted = op.attribute("output_shape")
    if wanted is not None or mode.startswith("SAME"):
        target = wanted[-rank:] if wanted is not None else [n * s for n, s in zip(spatial, strides, strict=True)]
        total = [w - t for w, t in zip(whole, target, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if mode != "SAME_LOWER" else (*large, *small)
    out = tuple(w - pads[i] - pads[rank + i] for i, w in enumerate(whole))
    try:
        windows = Windows(out, kernel, strides, dilations, pads)
        groups = op.attribute("group", 1)
        conv = Conv(weight, weight.shape[1] * groups, windows, groups)
    except ValueError as error:
        raise Refused(str(error)) from error
    operator = ConvTranspose(conv)
    if operator.in_shape != value.shape:
        raise Refused("an output padding of a stride or more")
    return [graph.affine(op.output, [(value, operator)], _bias(op, operator), batched=True)]


def _windows(op: Op, value: Value, kernel: tuple[int, ...], *, ceil: bool = False) -> Windows:
    """The window geometry that the attributes describe (auto_pad, ceil_mode) at the value's spatial shape."""
    spatial = value.shape[1:]
    rank = len(spatial)
    strides = tuple(op.attribute("strides", [1] * rank))
    dilations = tuple(op.attribute("dilations", [1] * rank))
    pads = list(op.attribute("pads", [0] * 2 * rank))
    mode = op.attribute("auto_pad", "NOTSET")
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if mode == "VALID":
        pads = [0] * 2 * rank
    elif mode.startswith("SAME"):
        for i, (size, step) in enumerate(zip(spatial, strides, strict=True)):
            total = max(0, (-(-size // step) - 1) * step + reach[i] - size)
            pads[i], pads[rank + i] = (
                (total // 2, total - total // 2) if mode == "SAME_UPPER" else (total - total // 2, total // 2)
            )
    elif ceil:
        for i, (size, step) in enumerate(zip(spatial, strides, strict=True)):
            padded = size + pads[i] + pads[rank + i] - reach[i]
            count = -(-padded // step) + 1
            if (count - 1) * step >= size + pads[i]:
                count -= 1  # ONNX: a window may not start in the padding at the end.
            pads[rank + i] += max(0, (count - 1) * step - padded)
    try:
        return Windows(spatial, tuple(kernel), strides, dilations, tuple(pads))
    except ValueError as error:
        raise Refused(str(error)) from error


@reads("AveragePool")
def read_average_pool(graph: Graph, op: Op) -> list[Tensor]:
    """Means over windows, padding counted or not."""
    value = graph.as_batched(op.value(), op.output)
    kernel, ceil = tuple(op.attribute("kernel_shape")), bool(op.attribute("ceil_mode", 0))
    windows = _windows(op, value, kernel, ceil=ceil)
    divisor = windows.counts()
    if op.attribute("count_include_pad", 0):
        # Padding counts, but not what ceil_mode adds beyond it.
        stated = _windows(op, value, kernel)
        rank = len(kernel)
        shape = tuple(s + stated.pads[i] + stated.pads[rank + i] for i, s in enumerate(value.shape[1:]))
        beyond = [windows.pads[rank + i] - stated.pads[rank + i] for i in range(rank)]
        divisor = Windows(shape, kernel, windows.strides, windows.dilations, (*(0,) * rank, *beyond)).counts()
    try:
        operator = AveragePool(value.shape[0], windows, divisor)
    except ValueError as error:
        raise Refused(str(error)) from error
    return [graph.affine(op.output, [(value, operator)], None, batched=True)]


@reads("GlobalAveragePool")
def read_global_average_pool(graph: Graph, op: Op) -> list[Tensor]:
    """The mean of every channel."""
    value = graph.as_batched(op.value(), op.output)
    return [graph.affine(op.output, [(value, _whole(value))], None, batched=True)]


def _whole(value: Value) -> AveragePool:
    spatial = value.shape[1:]
    rank = len(spatial)
    windows = Windows(spatial, spatial, (1,) * rank, (1,) * rank, (0,) * 2 * rank)
    return AveragePool(value.shape[0], windows, np.asarray(float(math.prod(spatial))))


@reads("ReduceMean", "ReduceSum")
def read_mean(graph: Graph, op: Op) -> list[Tensor]:
    """Sums and means over axes other than the batch; over all spatial axes the mean is a global average pool."""
    value = op.value()
    full = graph.full_shape(value)
    by_input = op.opset >= (13 if op.kind == "ReduceSum" else 18)
    given = (None if op.input(1) is None else op.constant(1)) if by_input else op.attribute("axes")
    if (given is None or np.size(given) == 0) and op.attribute("noop_with_empty_axes", 0):
        return [value]
    axes = sorted(int(a) % len(full) for a in np.ravel(given)) if given is not None and np.size(given) else None
    axes = list(range(len(full))) if axes is None else axes
    if value.batched:
        if 0 in axes and (graph.batch > 1 or graph.open_batch):
            raise Refused("a sum over the batch")
        axes = [axis - 1 for axis in axes if axis > 0] if 0 not in axes or op.attribute("keepdims", 1) else []
    if not axes:
        raise Refused("a sum over the batch")
    keep = bool(op.attribute("keepdims", 1))
    shape = tuple(1 if a in axes else n for a, n in enumerate(value.shape) if keep or a not in axes)
    if op.kind == "ReduceMean" and value.batched and len(value.shape) > 1 and axes == list(range(1, len(value.shape))):
        name = op.output if keep else f"{op.output}.mean"
        pooled = graph.affine(name, [(value, _whole(value))], None, batched=True)
        return [graph.reshaped(pooled, shape, batched=True, name=op.output)]
    rest = [a for a in range(len(value.shape)) if a not in axes]
    count = math.prod(value.shape[a] for a in axes)
    ids = np.arange(math.prod(value.shape)).reshape(value.shape).transpose(*rest, *axes)
    rows = graph.moved(value, ids.reshape(-1, count), batched=value.batched, name=f"{op.output}.rows")
    weight = np.full((1, count), 1.0 / count if op.kind == "ReduceMean" else 1.0)
    operator: Operator = Dense(weight, rows.shape, (1, 1)) if rows.shape[0] == 1 else Positionwise(weight, rows.shape)
    reduced = graph.affine(f"{op.output}.reduced", [(rows, operator)], None, batched=value.batched)
    return [graph.reshaped(reduced, shape, batched=value.batched, name=op.output)]


@reads("MaxPool", "GlobalMaxPool")
def read_max_pool(graph: Graph, op: Op) -> list[Tensor]:
    """The largest element of each window; padding never wins."""
    op.only_first_output()
    value = graph.as_batched(op.value(), op.output)
    spatial = value.shape[1:]
    kernel = tuple(op.attribute("kernel_shape", spatial))
    windows = _windows(op, value, kernel, ceil=bool(op.attribute("ceil_mode", 0)))
    ids = 1.0 + np.arange(math.prod(value.shape), dtype=np.float64).reshape(1, *value.shape)
    index = windows.unfold(ids)[0].reshape(value.shape[0], *windows.out_spatial, -1).astype(np.int64) - 1
    if (index < 0).all(axis=-1).any():
        raise Refused("a window lies wholly in the padding")
    attributes = {
        "kernel_shape": windows.kernel,
        "strides": windows.strides,
        "dilations": windows.dilations,
        "pads": windows.pads,
    }
    shape = index.shape[:-1]
    node = MaxPool(graph.claim(op.output), value.name, shape, index, attributes)
    return [graph.add(node, batched=True)]
