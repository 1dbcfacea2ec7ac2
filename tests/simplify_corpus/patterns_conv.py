"""Patterns: convolutions, their transposes, and linear layers in all their forms."""

from __future__ import annotations

import numpy as np

from .registry import add, before_linear, between, finish, pattern, start
from .shaping import Net

for rank, size in ((1, (24,)), (2, (9, 11)), (3, (6, 7, 8))):
    add(f"conv{rank}d", between(lambda net, x: net.act(net.conv(x, 16)), size=size))
add("conv_stride", between(lambda net, x: net.act(net.conv(x, 16, stride=2))))
add("conv_dilation", between(lambda net, x: net.act(net.conv(x, 16, dilation=2))))
add("conv_unpadded", between(lambda net, x: net.act(net.conv(x, 16, pad=0))))
add("conv_1x1_padded", between(lambda net, x: net.act(net.conv(x, 16, 1, pad=1))))
add("conv_asymmetric_pads", between(lambda net, x: net.act(net.conv(x, 16, pad=(1, 0, 2, 1)))))
add("conv_rectangular", between(lambda net, x: net.act(net.conv(x, 16, (1, 5), pad=(0, 2)))))
add("conv_even_kernel", between(lambda net, x: net.act(net.conv(x, 16, 4, stride=2, pad=1))))
add("conv_large_kernel", between(lambda net, x: net.act(net.conv(x, 16, 9, pad=4))))
add("conv_without_bias", between(lambda net, x: net.act(net.conv(x, 16, bias=False))))
add("conv_no_activation", between(lambda net, x: net.conv(x, 16), act=""))
for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    for stride in (1, 2):
        add(
            f"auto_pad_{mode.lower()}_stride{stride}",
            between(lambda net, x, mode=mode, stride=stride: net.act(net.conv(x, 16, 3, stride=stride, auto_pad=mode))),
        )
add("depthwise", between(lambda net, x: net.clip(net.conv(x, 16, groups=16, prune=False))))
add("depthwise_pruned", between(lambda net, x: net.clip(net.conv(x, 16, groups=16))))
add("depthwise_stride", between(lambda net, x: net.conv(x, 16, groups=16, stride=2)))
add(
    "depthwise_unpadded",
    between(lambda net, x: net.act(net.conv(x, 16, groups=16, pad=0, prune=False))),
)
add("depthwise_first", between(lambda net, x: net.act(net.conv(x, 12, 1)), groups=3, channels=12))
add(
    "depthwise_multiplier",
    between(lambda net, x: net.act(net.conv(x, 32, groups=16, prune=False))),
    measured=False,
)
add(
    "depthwise_1d",
    between(lambda net, x: net.act(net.conv(x, 16, groups=16, prune=False)), size=(20,)),
)


@pattern()
def grouped_equal(net: Net) -> None:
    """The same number of channels is pruned in each group, before and inside."""
    x = start(net, prune=[0, 3, 4, 6, 9, 10, 13, 15])
    finish(net, net.act(net.conv(x, 16, groups=4)))


@pattern()
def grouped_unequal(net: Net) -> None:
    """Groups lose different numbers of filters and of inputs."""
    x = start(net, prune=[0, 1, 2, 4, 8])
    finish(net, net.act(net.conv(x, 16, groups=4, prune=[0, 1, 2, 6, 9, 10])))


@pattern()
def grouped_whole_groups(net: Net) -> None:
    """Two of four groups lose all their filters."""
    finish(net, net.act(net.conv(start(net), 16, groups=4, prune=[0, 1, 2, 3, 8, 9, 10, 11])))


@pattern()
def grouped_inputs_dead(net: Net) -> None:
    """All inputs of one group are pruned, its filters are not."""
    finish(net, net.act(net.conv(start(net, prune=[4, 5, 6, 7]), 16, groups=4, prune=False)))


add("grouped_first", between(lambda net, x: net.act(net.conv(x, 8)), groups=3, channels=12))
add("grouped_two", between(lambda net, x: net.act(net.conv(x, 16, groups=2, prune=False)), prune=[0, 8]))
add("conv_transpose", between(lambda net, x: net.act(net.conv_transpose(x, 16))))
add(
    "conv_transpose_overlapping",
    between(lambda net, x: net.act(net.conv_transpose(x, 16, 4, stride=2, pad=1))),
)
add(
    "conv_transpose_output_padding",
    between(lambda net, x: net.act(net.conv_transpose(x, 16, 3, stride=2, pad=1, output_padding=1))),
)
add(
    "conv_transpose_grouped",
    between(lambda net, x: net.act(net.conv_transpose(x, 16, groups=2, prune=False))),
    measured=False,
)
add("conv_transpose_depthwise", between(lambda net, x: net.conv_transpose(x, 16, 2, groups=16, prune=False)))
add("conv_transpose_1d", between(lambda net, x: net.conv_transpose(x, 8, 4, pad=1), size=(16,)))


def _chain(form: str, **attributes: float) -> object:
    def body(net: Net) -> None:
        x = net.input((2, 12), dims=("batch", 12))
        net.also_at(input=(7, 12))
        for neurons in (32, 24):
            x = net.act(net.linear(x, neurons, form=form, **attributes))
        net.output(net.linear(x, 5, prune=False, form=form, **attributes))

    return body


add("gemm", _chain("gemm"))
add("gemm_untransposed", _chain("gemm", transB=0))
add("gemm_alpha_beta", _chain("gemm", alpha=0.5, beta=2.0))
add("gemm_beta_zero_like", _chain("gemm", transB=0, alpha=2.0, beta=0.25))
add("matmul_add", _chain("matmul"))


@pattern(measured=False)
def gemm_trans_a(net: Net) -> None:
    """Gemm reads its activation transposed: features are rows."""
    x = net.input((12, 4))
    x = net.tensor(x.name, (12, 4), np.full(4, np.nan), 1)
    weight = net.initializer(net.rng.normal(size=(9, 12)))
    (name,) = net.node("Gemm", [x.name, weight], transA=1, transB=1)
    y = net.act(net.opaque([x], name, (4, 9)))
    y = net.act(net.linear(y, 16))
    net.output(net.linear(y, 3, prune=False))


@pattern(measured=False)
def gemm_beta_zero(net: Net) -> None:
    """beta = 0 switches the bias off, whatever it holds."""
    x = net.act(net.linear(net.input((2, 8)), 16))
    (name,) = net.node(
        "Gemm",
        [x.name, net.initializer(net.rng.normal(size=(5, 16))), net.initializer(np.full(5, 7.0))],
        transB=1,
        beta=0.0,
    )
    net.output(net.opaque([x], name, (2, 5)))


@pattern(measured=False)
def gemm_row_bias(net: Net) -> None:
    """Gemm whose C has one value per row (batch entry), not per column."""
    x = net.act(net.linear(net.input((3, 8)), 16))
    weight = net.initializer(net.rng.normal(size=(16, 8)) * (np.arange(8) % 2))
    (name,) = net.node("Gemm", [x.name, weight, net.initializer(net.rng.normal(size=(3, 1)), "bias")])
    y = net.act(net.opaque([x], name, (3, 8)))
    net.output(net.linear(y, 4, prune=False))


@pattern(measured=False)
def matmul_weight_left(net: Net) -> None:
    """MatMul with the stored matrix on the left: channels are rows."""
    x = net.input((1, 6, 5))
    weight = net.rng.normal(size=(10, 6))
    weight[::2] = 0
    (name,) = net.node("MatMul", [net.initializer(weight), x.name])
    y = net.act(net.opaque([x], name, (1, 10, 5)))
    (name,) = net.node("MatMul", [net.initializer(net.rng.normal(size=(4, 10))), y.name])
    net.output(net.opaque([y], name, (1, 4, 5)))


def _sequence(form: str) -> object:
    def body(net: Net) -> None:
        x = net.input((2, 7, 12), dims=("batch", "length", 12), axis=2)
        net.also_at(input=(3, 11, 12))
        x = net.act(net.linear(x, 32, form=form))
        y = net.linear(x, 16, form=form)
        net.output(net.linear(net.act(y, "Tanh"), 6, form=form, prune=False), dims=("batch", "length", 6))

    return body


add("matmul_3d", _sequence("matmul"))


@pattern()
def matmul_4d(net: Net) -> None:
    """MatMul on activations of four axes."""
    x = net.input((1, 2, 5, 8), axis=3)
    x = net.act(net.linear(x, 16, form="matmul"))
    net.output(net.linear(x, 4, form="matmul", prune=False))


@pattern(measured=False)
def matmul_batched_weight(net: Net) -> None:
    """MatMul with one stored matrix per batch entry: not a linear layer over channels."""
    x = net.input((2, 3, 4), axis=2)
    weight = net.rng.normal(size=(2, 4, 6))
    weight[:, :, 1] = 0
    weight[0, :, 2] = 0
    (name,) = net.node("MatMul", [x.name, net.initializer(weight)])
    y = net.act(net.opaque([x], name, (2, 3, 6), 2))
    net.output(net.linear(y, 4, form="matmul", prune=False))


@pattern(measured=False)
def matmul_vector(net: Net) -> None:
    """MatMul with a stored vector removes the channel axis."""
    x = net.act(net.linear(net.input((2, 8)), 16))
    (name,) = net.node("MatMul", [x.name, net.initializer(net.rng.normal(size=16))])
    net.output(net.opaque([x], name, (2, 1)), dims=(2,))


@pattern(measured=False)
def matmul_of_activations(net: Net) -> None:
    """Attention scores: both operands of MatMul are computed."""
    x = net.input((1, 6, 8), axis=2)
    a, b = (net.linear(x, 16, form="matmul", prune=[1, 3, 5, 7]) for _ in range(2))
    b = net.transpose(b, [0, 2, 1])
    (name,) = net.node("MatMul", [a.name, b.name])
    net.output(net.opaque([a, b], name, (1, 6, 6), 2))


for form in ("Flatten", "N,-1", "0,-1", "-1,F", "N,F", "Shape"):
    stem = form.lower().replace(",", "_").replace("-1", "rest")
    add(f"flatten_{stem}", before_linear(lambda net, x, form=form: net.flatten(net.pool(x), form)))
add("flatten_of_mean", before_linear(lambda net, x: net.flatten(net.global_pool(x))))
add("mean_without_space", before_linear(lambda net, x: net.global_pool(x, "ReduceMean", keep=False)))
add(
    "mean_axes_input",
    before_linear(lambda net, x: net.global_pool(x, "ReduceMean", keep=False)),
    opset=18,
)
add("global_max_pool", before_linear(lambda net, x: net.flatten(net.global_pool(x, "GlobalMaxPool"))))


def _bn(net: Net, *, first: bool, form: str) -> None:
    if form == "linear":
        x = net.input((4, 12), dims=("batch", 12))
        x = net.act(net.batch_norm(net.linear(x, 32)))
        net.output(net.linear(x, 5, prune=False))
        return
    x = net.input((1, 3, 10, 10))
    if form == "transpose":
        x = net.batch_norm(net.conv_transpose(x, 16))
    elif first:
        x = net.conv(net.act(net.batch_norm(net.conv(x, 16, bias=False))), 12, prune=False)
        x = net.batch_norm(x)
    else:
        x = net.batch_norm(net.conv(x, 16, bias=False))
    finish(net, net.act(x))


add("batch_norm_after_conv", lambda net: _bn(net, first=False, form="conv"))
add("batch_norm_chain", lambda net: _bn(net, first=True, form="conv"))
add("batch_norm_conv_transpose", lambda net: _bn(net, first=False, form="transpose"))
add("batch_norm_gemm", lambda net: _bn(net, first=False, form="linear"))


@pattern()
def batch_norm_before_padded_conv(net: Net) -> None:
    """BatchNorm in front of a zero-padded convolution: its shift must not leak into the border."""
    x = start(net)
    finish(net, net.batch_norm(x))


@pattern()
def batch_norm_of_input(net: Net) -> None:
    """BatchNorm on the input itself, then a zero-padded convolution."""
    x = net.batch_norm(net.input((1, 3, 8, 8)))
    finish(net, net.act(net.conv(x, 12)))


@pattern(measured=False)
def batch_norm_dead_statistics(net: Net) -> None:
    """A pruned channel whose running variance is 0 and mean tiny."""
    x = net.conv(net.input((1, 3, 8, 8)), 8, bias=False, prune=[1, 4])
    mean, var = np.zeros(8), np.ones(8)
    mean[[1, 4]], var[[1, 4]] = 1e-30, 0.0
    extra = [net.initializer(a) for a in (np.ones(8), net.rng.normal(size=8), mean, var)]
    (name,) = net.node("BatchNormalization", [x.name, *extra], epsilon=1e-3)
    finish(net, net.act(net.opaque([x], name, x.shape)))
