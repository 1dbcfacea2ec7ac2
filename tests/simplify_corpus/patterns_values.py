"""Patterns: activations at real constants, arithmetic with every broadcast, normalisations."""

from __future__ import annotations

import numpy as np

from .builder import Tensor
from .registry import add, before_linear, between, finish, pattern, start
from .shaping import Net

UNARY: dict[str, tuple[int, dict[str, float]]] = {
    op: (17, {})
    for op in (
        *("Relu", "Sigmoid", "Tanh", "HardSwish", "Selu", "Softplus", "Softsign", "Exp", "Cos", "Sin", "Erf"),
        *("Neg", "Abs", "Atan", "Floor", "Ceil", "Round", "Sign", "Identity"),
    )
}
UNARY |= {
    "LeakyRelu": (17, {"alpha": 0.2}),
    "HardSigmoid": (17, {"alpha": 0.2, "beta": 0.4}),
    "Elu": (17, {"alpha": 0.7}),
    "Celu": (17, {"alpha": 0.8}),
    "ThresholdedRelu": (17, {"alpha": 0.3}),
    "Shrink": (17, {"lambd": 0.2, "bias": 0.1}),
    "Mish": (18, {}),
    "Gelu": (20, {}),
}
for op, (opset, attributes) in UNARY.items():
    add(
        f"act_{op.lower()}",
        between(lambda net, x, op=op, attributes=attributes: net.act(x, op, **attributes), act=""),
        opset=opset,
    )
add("act_clip", between(lambda net, x: net.clip(x, -0.5, 0.7), act=""))
add("act_clip_above_zero", between(lambda net, x: net.clip(x, 0.5, 2.0), act=""))
add("act_clip_attributes", between(lambda net, x: net.clip(x), act=""), opset=9)
add("act_prelu_channel", between(lambda net, x: net.prelu(x), act=""))
add("act_prelu_shared", between(lambda net, x: net.prelu(x, spread=False), act=""))
add("act_gelu_decomposed", between(lambda net, x: net.gelu(x), act=""))
add("act_silu_decomposed", between(lambda net, x: net.silu(x), act=""))
add("act_hard_swish_decomposed", between(lambda net, x: net.hard_swish(x), act=""), opset=13)
add("act_reciprocal_of_exp", between(lambda net, x: net.act(net.act(x, "Exp"), "Reciprocal"), act=""))
add("act_sqrt_of_relu", between(lambda net, x: net.act(x, "Sqrt")))


def _array(net: Net, *shape: int) -> np.ndarray:
    return net.rng.uniform(0.3, 1.5, shape)


SHAPES = {
    "scalar": (), "one": (1,), "channel": (16, 1, 1), "batch_channel": (1, 16, 1, 1),
    "row": (10,), "image": (10, 10), "map": (1, 16, 10, 10), "column": (10, 1),
}  # fmt: skip
for shape_name, shape in SHAPES.items():
    for op in ("Add", "Mul") if shape_name != "batch_channel" else ("Sub", "Div"):
        add(
            f"{op.lower()}_{shape_name}",
            between(lambda net, x, op=op, shape=shape: net.constant(op, x, _array(net, *shape))),
            measured=shape_name != "map",
        )
add("sub_from_channel", between(lambda net, x: net.constant("Sub", x, _array(net, 16, 1, 1), reverse=True)))
add(
    "mul_channel_zeros",
    between(lambda net, x: net.constant("Mul", x, (np.arange(16) % 3 > 0.0).reshape(16, 1, 1) * 1.5)),
)
add("div_of_constant", between(lambda net, x: net.constant("Div", net.act(x, "Exp"), np.array(2.0), reverse=True)))


@pattern(measured=False)
def mul_channel_growing(net: Net) -> None:
    """One channel times a vector of eight: broadcasting makes channels."""
    x = net.conv(net.input((1, 3, 8, 8)), 1, prune=False)
    (name,) = net.node("Mul", [x.name, net.initializer(_array(net, 8, 1, 1) * (np.arange(8) % 2)[:, None, None])])
    finish(net, net.opaque([x], name, (1, 8, 8, 8)))


@pattern(measured=False)
def add_growing_rank(net: Net) -> None:
    """Adding a constant of higher rank shifts the axes of the result."""
    x = net.act(net.linear(net.input((4, 6)), 8))
    (name,) = net.node("Add", [x.name, net.initializer(_array(net, 2, 1, 8))])
    y = net.opaque([x], name, (2, 4, 8), 2)
    net.output(net.linear(y, 3, form="matmul", prune=False))


@pattern(measured=False)
def add_growing_space(net: Net) -> None:
    """A 1x1 map plus a constant image: broadcasting makes pixels."""
    x = net.global_pool(start(net))
    (name,) = net.node("Add", [x.name, net.initializer(_array(net, 1, 1, 6, 6))])
    finish(net, net.opaque([x], name, (1, 16, 6, 6)))


def _branches(net: Net, op: str, first: list[int], second: list[int]) -> None:
    x = start(net, prune=False)
    a = net.conv(x, 16, prune=first)
    b = net.conv(x, 16, 1, prune=second)
    if op == "Div":
        b = net.act(b, "Exp")
    finish(net, net.act(net.combine(op, a, b)))


for op in ("Add", "Sub", "Mul", "Div"):
    add(f"branches_{op.lower()}_same", lambda net, op=op: _branches(net, op, [1, 2, 3, 9], [1, 2, 3, 9]))
    add(
        f"branches_{op.lower()}_different",
        lambda net, op=op: _branches(net, op, [1, 2, 3, 9, 12], [0, 2, 3, 8, 15]),
        measured=op in ("Add", "Sub"),
    )
add("branch_all_pruned", lambda net: _branches(net, "Add", list(range(16)), [0, 5]))
add("branch_all_pruned_factor", lambda net: _branches(net, "Mul", list(range(16)), [0, 5]), measured=False)


@pattern(measured=False)
def pixel_gate(net: Net) -> None:
    """A one-channel attention map times all channels."""
    x = start(net)
    mask = net.act(net.conv(x, 1, 1, prune=False), "Sigmoid")
    finish(net, net.combine("Mul", x, mask))


@pattern()
def residual_chain(net: Net) -> None:
    """Three blocks that add to one stream, each pruned on its own."""
    x = start(net)
    for _ in range(3):
        x = net.act(net.combine("Add", x, net.conv(net.act(net.conv(x, 16)), 16)))
    finish(net, x)


@pattern()
def residual_same_channels(net: Net) -> None:
    """All members of the stream lose the same channels."""
    dead = [0, 3, 4, 7, 8, 11, 12, 15]
    x = start(net, prune=dead)
    for _ in range(2):
        x = net.act(net.combine("Add", net.conv(net.act(net.conv(x, 24)), 16, prune=dead), x))
    finish(net, x)


@pattern()
def residual_to_itself(net: Net) -> None:
    """x + x."""
    x = start(net)
    finish(net, net.combine("Add", x, x))


@pattern()
def residual_preactivation(net: Net) -> None:
    """Stream without activation; blocks normalise first."""
    x = start(net, act="")
    for _ in range(2):
        y = net.act(net.batch_norm(x))
        y = net.conv(net.act(net.batch_norm(net.conv(y, 16))), 16)
        x = net.combine("Add", x, y)
    finish(net, net.act(net.batch_norm(x)))


@pattern()
def sum_of_three(net: Net) -> None:
    """Sum with three inputs, one of them pruned away entirely."""
    x = start(net, prune=False)
    parts = [net.conv(x, 16, 1), net.conv(x, 16, 1), net.conv(x, 16, 1, prune=range(16))]
    value = np.sum([p.channels.value for p in parts], axis=0)
    (name,) = net.node("Sum", [p.name for p in parts])
    finish(net, net.act(net.through(parts, name, parts[0].shape, value)))


@pattern(measured=False)
def max_of_branches(net: Net) -> None:
    """Max of two branches: a constant is not neutral."""
    x = start(net, prune=False)
    a, b = net.conv(x, 16), net.conv(x, 16)
    (name,) = net.node("Max", [a.name, b.name])
    finish(net, net.opaque([a, b], name, a.shape))


@pattern(measured=False)
def where_of_branches(net: Net) -> None:
    """Where chooses element by element between two branches."""
    x = start(net, prune=False)
    a, b = net.conv(x, 16, prune=[0, 1, 2]), net.conv(x, 16, prune=[0, 2, 5])
    (mask,) = net.node("Greater", [a.name, b.name])
    (name,) = net.node("Where", [mask, a.name, b.name])
    finish(net, net.opaque([a, b], name, a.shape))


@pattern(measured=False)
def pow_of_channel(net: Net) -> None:
    """Pow with exponents per channel: 0 ** 0 is 1."""
    x = start(net)
    (name,) = net.node("Pow", [x.name, net.initializer((np.arange(16) % 3.0).reshape(16, 1, 1))])
    finish(net, net.opaque([x], name, x.shape))


add("gate_excitation", between(lambda net, x: net.gate(x, 8)), measured=False)
add("gate_excitation_hard", between(lambda net, x: net.gate(x, 8, hard=True)), measured=False)


@pattern(measured=False)
def gate_by_gemm(net: Net) -> None:
    """Squeeze-and-excitation with Gemm and a Reshape back to N x C x 1 x 1."""
    x = start(net, batch=2)
    s = net.act(net.linear(net.flatten(net.global_pool(x)), 8))
    s = net.act(net.linear(s, 16, prune=False), "Sigmoid")
    (name,) = net.node("Reshape", [s.name, net.integers([-1, 16, 1, 1])])
    g = net.select(s, name, np.arange(16), (2, 16, 1, 1))
    finish(net, net.combine("Mul", x, g))


def _glu(net: Net, dead: list[int]) -> None:
    x = net.conv(net.input((1, 3, 8, 8)), 32, prune=dead)
    a, b = net.split(x, [16, 16])
    finish(net, net.combine("Mul", a, net.act(b, "Sigmoid")))


add("glu_same_channels", lambda net: _glu(net, [0, 2, 5, 16, 18, 21]))
add("glu_values_only", lambda net: _glu(net, [0, 2, 5, 7]), measured=False)
add("glu_gates_only", lambda net: _glu(net, [17, 19, 31]), measured=False)


@pattern(opset=17)
def layer_norm_sequence(net: Net) -> None:
    """LayerNormalization over the channels is a wall: a dead channel counts in its mean."""
    x = net.act(net.linear(net.input((1, 5, 8), axis=2), 16, form="matmul"))
    x = _layer_norm(net, x)
    net.output(net.linear(net.act(net.linear(x, 24, form="matmul")), 4, form="matmul", prune=False))


def _layer_norm(net: Net, x: Tensor) -> Tensor:
    extra = [net.initializer(net.rng.uniform(0.5, 1.5, x.shape[-1])), net.initializer(net.rng.normal(size=x.shape[-1]))]
    return net.wall("LayerNormalization", [x], extra, axis=-1)


@pattern(measured=False)
def layer_norm_decomposed(net: Net) -> None:
    """ReduceMean, Sub, Pow, Sqrt, Div over the channels."""
    x = net.act(net.linear(net.input((1, 5, 8), axis=2), 16, form="matmul"))
    (mean,) = net.node("ReduceMean", [x.name], axes=[-1])
    (centred,) = net.node("Sub", [x.name, mean])
    (square,) = net.node("Pow", [centred, net.initializer(np.array(2.0))])
    (var,) = net.node("ReduceMean", [square], axes=[-1])
    (var,) = net.node("Add", [var, net.initializer(np.array(1e-5))])
    (std,) = net.node("Sqrt", [var])
    (name,) = net.node("Div", [centred, std])
    net.output(net.linear(net.opaque([x], name, x.shape, 2), 4, form="matmul", prune=False))


@pattern()
def instance_norm(net: Net) -> None:
    """InstanceNormalization of a constant channel is its shift."""
    x = start(net)
    extra = [net.initializer(net.rng.uniform(0.5, 1.5, 16)), net.initializer(net.rng.normal(size=16))]
    finish(net, net.wall("InstanceNormalization", [x], extra))


@pattern(opset=21)
def group_norm(net: Net) -> None:
    """GroupNormalization mixes channels of a group."""
    x = start(net)
    extra = [net.initializer(net.rng.uniform(0.5, 1.5, 16)), net.initializer(net.rng.normal(size=16))]
    finish(net, net.wall("GroupNormalization", [x], extra, num_groups=4))


@pattern(measured=False)
def group_norm_decomposed(net: Net) -> None:
    """Reshape to groups, InstanceNormalization, Reshape back, scale and shift."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([0, 4, -1])])
    ones = [net.initializer(np.ones(4)), net.initializer(np.zeros(4))]
    (name,) = net.node("InstanceNormalization", [name, *ones])
    (shape,) = net.node("Shape", [x.name])
    (name,) = net.node("Reshape", [name, shape])
    y = net.opaque([x], name, x.shape)
    finish(net, net.constant("Mul", y, _array(net, 16, 1, 1)))


add("softmax_channels", between(lambda net, x: net.wall("Softmax", [x], axis=1)))
add("softmax_pixels", between(lambda net, x: net.wall("Softmax", [x], axis=3)), measured=False)
add("softmax_flattened", between(lambda net, x: net.wall("Softmax", [x], axis=1)), opset=11)
add("log_softmax_channels", between(lambda net, x: net.wall("LogSoftmax", [x], axis=1)))
add("lrn", between(lambda net, x: net.wall("LRN", [x], size=5)))
add("lp_normalization", between(lambda net, x: net.wall("LpNormalization", [x], axis=1, p=2)))
add("cumsum_channels", between(lambda net, x: net.wall("CumSum", [x], [net.initializer(np.array(1, np.int64))])))


@pattern(measured=False)
def reduce_over_channels(net: Net) -> None:
    """ReduceMean and ReduceMax over the channel axis count dead channels."""
    x = start(net)
    parts = []
    for op in ("ReduceMean", "ReduceMax", "ReduceMin"):
        (name,) = net.node(op, [x.name], axes=[1], keepdims=1)
        parts.append(net.opaque([x], name, (1, 1, 10, 10)))
    finish(net, net.concat(*parts))


@pattern(measured=False)
def arg_max_channels(net: Net) -> None:
    """ArgMax over channels: removing one would change the index."""
    x = start(net, act="Tanh")
    (name,) = net.node("ArgMax", [x.name], axis=1, keepdims=0)
    net.output(net.opaque([x], name, (1, 10, 10)), kind=7)


@pattern(measured=False)
def top_k_channels(net: Net) -> None:
    """TopK over channels."""
    x = start(net, act="Tanh")
    names = net.node("TopK", [x.name, net.integers([3])], 2, axis=1)
    net.output(net.opaque([x], names[0], (1, 3, 10, 10)))


@pattern()
def exact_sum_to_zero(net: Net) -> None:
    """Live filters whose weights merely sum to zero (edge detectors)."""
    x = net.input((1, 3, 10, 10))
    weight = net.rng.normal(size=(16, 3, 3, 3))
    weight[::2] -= weight[::2].mean(axis=(1, 2, 3), keepdims=True)
    edge = np.zeros((3, 3, 3))
    edge[:, 1, 0], edge[:, 1, 2] = 1.0, -1.0
    weight[0] = edge
    x = net.act(net.conv(x, 16, weight=weight, prune=[3, 5]))
    inner = net.rng.normal(size=(8, 16, 3, 3))
    inner[:, 2] = edge[0]
    inner[:, 2] -= inner[:, 2].mean()
    finish(net, net.act(net.conv(x, 8, weight=inner, prune=False)))


@pattern(measured=False)
def tiny_weights(net: Net) -> None:
    """Filters of 1e-20 are not zero: large inputs make them count."""
    weight = net.rng.normal(size=(8, 3, 3, 3))
    weight[2] *= 1e-20
    x = net.conv(net.input((1, 3, 8, 8)), 8, weight=weight, prune=[5])
    y = net.constant("Mul", x, np.where(np.arange(8) == 2, 1e20, 1.0).reshape(8, 1, 1))
    finish(net, net.act(y))


@pattern(measured=False)
def negative_zero(net: Net) -> None:
    """Weights of -0.0 are zero."""
    weight = net.rng.normal(size=(8, 3, 3, 3))
    weight[[1, 4]] = -0.0
    x = net.act(net.conv(net.input((1, 3, 8, 8)), 8, weight=weight, prune=False))
    finish(net, x)


add("constant_relu_negative", before_linear(lambda net, x: net.flatten(net.act(net.constant("Sub", x, np.array(5.0))))))
