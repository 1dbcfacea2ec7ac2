"""Patterns: rarer operators and attributes behind a pruned layer, where a guess would be wrong."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from .builder import Tensor
from .registry import add, between, finish, pattern, start
from .shaping import Net


def _after(op: str, *extra: np.ndarray, channels: int = 16, size: tuple[int, int] = (10, 10), **attributes: object):
    """The middle of a pattern: one node that reads a pruned tensor and stored arrays."""

    def middle(net: Net, x: Tensor) -> Tensor:
        names = [net.initializer(a) for a in extra]
        return net.opaque([x], net.node(op, [x.name, *names], **attributes)[0], (1, channels, *size))

    return middle


rng = np.random.default_rng(11)
index = np.array([3, 0, 5, 5, 9], np.int64)
add("mean_variance_channels", between(_after("MeanVarianceNormalization", axes=[0, 1, 2, 3])), measured=False)
add("hardmax_channels", between(_after("Hardmax", axis=1), act="Tanh"), measured=False)
add("gather_rows", between(_after("Gather", index, size=(5, 10), axis=2)), measured=False)
add(
    "gather_elements",
    between(_after("GatherElements", rng.integers(0, 16, (1, 4, 10, 10)), channels=4, axis=1)),
    measured=False,
)
add(
    "gather_nd",
    between(_after("GatherND", np.array([[[2], [3], [2]]], np.int64), channels=3, batch_dims=1)),
    measured=False,
)
add(
    "scatter_channels",
    between(_after("ScatterElements", np.full((1, 2, 10, 10), 4), np.ones((1, 2, 10, 10)), axis=1)),
    measured=False,
)
add("einsum_channels", between(_after("Einsum", channels=16, equation="nchw->nchw")), measured=False)
add("compress_channels", between(_after("Compress", np.arange(16) % 4 == 1, channels=4, axis=1)), measured=False)
add("reverse_space", between(_after("Slice", *(np.array([v]) for v in (9, -(2**31), 3, -1)))), measured=False)
add(
    "slice_all_axes",
    between(_after("Slice", np.array([0, 2, 1, 0]), np.array([1, 14, 9, 10]), channels=12, size=(8, 10))),
    measured=False,
)
add("mod_channels", between(_after("Mod", np.full((16, 1, 1), 0.7), fmod=1)), measured=False)
add("min_constant", between(_after("Min", np.linspace(-0.5, 1.5, 16).reshape(16, 1, 1))), measured=False)
add("max_constant", between(_after("Max", np.linspace(-0.5, 1.5, 16).reshape(16, 1, 1))), measured=False)
add("sum_constant", between(_after("Sum", np.linspace(-0.5, 1.5, 16).reshape(16, 1, 1))), measured=False)
add("trilu", between(_after("Trilu")), measured=False)
add(
    "max_roi_pool",
    between(_after("MaxRoiPool", np.array([[0, 0, 0, 6, 6.0]]), size=(3, 3), pooled_shape=[3, 3])),
    measured=False,
)
add(
    "grid_sample",
    between(_after("GridSample", rng.uniform(-1.3, 1.3, (1, 6, 6, 2)), size=(6, 6), padding_mode="zeros")),
    measured=False,
)
add(
    "clip_upper_only",
    between(lambda net, x: net.opaque([x], net.node("Clip", [x.name, "", net.initializer(np.array(0.4))])[0], x.shape)),
    measured=False,
)


@pattern(measured=False)
def batch_norm_training(net: Net) -> None:
    """BatchNormalization in training mode normalises by the batch."""
    x = start(net, act="")
    extra = [net.initializer(a) for a in (np.ones(16), np.full(16, 0.3), np.zeros(16), np.ones(16))]
    names = net.node("BatchNormalization", [x.name, *extra], 3, training_mode=1)
    finish(net, net.act(net.opaque([x], names[0], x.shape)))


@pattern(measured=False)
def gather_computed_index(net: Net) -> None:
    """Which channels are read depends on the input."""
    x = start(net, act="Tanh")
    (pick,) = net.node("ArgMax", [net.node("GlobalAveragePool", [x.name])[0]], axis=1, keepdims=0)
    (pick,) = net.node("Reshape", [pick, net.integers([1])])
    (name,) = net.node("Gather", [x.name, pick], axis=1)
    finish(net, net.opaque([x], name, (1, 1, 10, 10)))


@pattern(measured=False)
def nonzero_count(net: Net) -> None:
    """NonZero of a pruned tensor: dead zeros and dead constants count differently."""
    x = start(net)
    (where,) = net.node("NonZero", [x.name])
    (count,) = net.node("Shape", [where])
    net.output(net.opaque([x], count, (2, 2)), dims=(2,), kind=TensorProto.INT64)


@pattern(measured=False)
def einsum_linear(net: Net) -> None:
    """A linear layer written as Einsum."""
    x = start(net)
    weight = net.rng.normal(size=(12, 16))
    weight[::3] = 0
    (name,) = net.node("Einsum", [x.name, net.initializer(weight)], equation="nchw,dc->ndhw")
    finish(net, net.act(net.opaque([x], name, (1, 12, 10, 10))))


@pattern(measured=False)
def where_constant_mask(net: Net) -> None:
    """Where with a stored mask per channel chooses between a tensor and a number."""
    x = start(net)
    mask = net.initializer((np.arange(16) % 3 == 0).reshape(16, 1, 1), "mask")
    (name,) = net.node("Where", [mask, x.name, net.initializer(np.array(0.8))])
    finish(net, net.act(net.opaque([x], name, x.shape)))


@pattern(measured=False)
def reshape_by_zero_and_rest(net: Net) -> None:
    """Reshape [0, -1, 5, 20]: the channel count is what is left over."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([0, -1, 5, 20])])
    finish(net, net.opaque([x], name, (1, 16, 5, 20)))


@pattern(measured=False)
def reshape_crosses_channels(net: Net) -> None:
    """Reshape 16 x 10 x 10 to 20 x 8 x 10: channels are cut apart."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 20, 8, 10])])
    finish(net, net.opaque([x], name, (1, 20, 8, 10)))


@pattern(measured=False)
def flatten_axis_two(net: Net) -> None:
    """Flatten at axis 2 makes rows of channels."""
    x = start(net)
    (name,) = net.node("Flatten", [x.name], axis=2)
    y = net.opaque([x], name, (16, 100))
    net.output(net.linear(y, 5, prune=False), dims=(16, 5))


@pattern(measured=False)
def flatten_axis_zero(net: Net) -> None:
    """Flatten at axis 0."""
    x = start(net)
    (name,) = net.node("Flatten", [x.name], axis=0)
    net.output(net.linear(net.opaque([x], name, (1, 1600)), 5, prune=False))


@pattern(measured=False)
def batch_folded_into_channels(net: Net) -> None:
    """Reshape of a batch of two into channels: 2 x 16 becomes 1 x 32."""
    x = start(net, batch=2)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 32, 10, 10])])
    net.output(net.conv(net.opaque([x], name, (1, 32, 10, 10)), 4, prune=False), dims=(1, 4, 10, 10))


@pattern(measured=False)
def temporal_shift(net: Net) -> None:
    """Channels of neighbouring frames are exchanged: Slice and Concat over batch and channels."""
    x = start(net, batch=4)
    (head,) = net.node("Slice", [x.name, *(net.integers(v) for v in ([1, 0], [4, 4], [0, 1]))])
    (pad,) = net.node("Pad", [head, net.integers([0, 0, 0, 0, 1, 0, 0, 0])])
    (rest,) = net.node("Slice", [x.name, net.integers([4]), net.integers([16]), net.integers([1])])
    (name,) = net.node("Concat", [pad, rest], axis=1)
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def conv_weight_through_identity_shared(net: Net) -> None:
    """A weight goes through Identity to a convolution and is also an output."""
    x = start(net)
    weight = net.rng.normal(size=(8, 16, 1, 1))
    weight[::2] = 0
    stored = net.initializer(weight)
    (copy,) = net.node("Identity", [stored])
    (name,) = net.node("Conv", [x.name, stored])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))
    net.output(net.tensor(copy, (8, 16, 1, 1), np.full(16, np.nan), 1), dims=(8, 16, 1, 1))


@pattern(measured=False)
def quantised_dynamic(net: Net) -> None:
    """DynamicQuantizeLinear takes its scale from the range of all channels, constants included."""
    x = start(net, act="Tanh")
    y, scale, zero = net.node("DynamicQuantizeLinear", [x.name], 3)
    (name,) = net.node("DequantizeLinear", [y, scale, zero])
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def sequence_of_tensors(net: Net) -> None:
    """SplitToSequence and ConcatFromSequence over channels."""
    x = start(net)
    (parts,) = net.node("SplitToSequence", [x.name, net.initializer(np.array(8, np.int64))], axis=1)
    (name,) = net.node("ConcatFromSequence", [parts], axis=1)
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def optional_bias_empty(net: Net) -> None:
    """Conv and Gemm whose optional bias is an empty name."""
    x = start(net)
    weight = net.rng.normal(size=(8, 16, 1, 1))
    weight[1::2] = 0
    (name,) = net.node("Conv", [x.name, net.initializer(weight), ""])
    y = net.flatten(net.global_pool(net.act(net.opaque([x], name, (1, 8, 10, 10)))))
    (name,) = net.node("Gemm", [y.name, net.initializer(net.rng.normal(size=(8, 3))), ""])
    net.output(net.opaque([y], name, (1, 3)))


@pattern(measured=False)
def output_is_also_read_inside_if(net: Net) -> None:
    """A branch of If names its own tensor like one of the outer graph's readers."""
    x = start(net)
    result = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    then = helper.make_graph(
        [helper.make_node("Slice", [x.name, "from", "to", "axis"], ["inner"])], "then", [], [result]
    )
    other = helper.make_graph([helper.make_node("Identity", [x.name], ["inner"])], "else", [], [result])
    for name, value in (("from", 2), ("to", 9), ("axis", 1)):
        net.initializer(np.array([value]), name=name)
    (flag,) = net.node("Greater", [net.node("ReduceMax", [x.name], keepdims=0)[0], net.initializer(np.array(1e9))])
    (name,) = net.node("If", [flag], then_branch=then, else_branch=other)
    finish(net, net.opaque([x], name, x.shape))
