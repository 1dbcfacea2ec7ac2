"""Patterns: shape of the graph - consumers, outputs, subgraphs, domains, types, opsets, traps."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from .registry import Body, add, between, finish, pattern, start
from .shaping import Net

ZERO = ("zero",)


@pattern()
def two_consumers(net: Net) -> None:
    """Two convolutions read one pruned tensor."""
    x = start(net)
    finish(net, net.combine("Add", net.conv(x, 8, prune=False), net.conv(x, 8, 1, prune=False)))


@pattern()
def consumer_blind(net: Net) -> None:
    """The reader has zero weights for some live channels: nobody needs them."""
    x = start(net, prune=[0, 1])
    finish(net, x, blind=[2, 5, 6, 15])


@pattern()
def consumers_blind_differently(net: Net) -> None:
    """Two readers ignore different channels; only those that both ignore may go."""
    x = start(net, prune=[0])
    a, b = (net.conv(x, 8, prune=False, blind=b) for b in ([2, 5, 6], [5, 6, 9]))
    finish(net, net.combine("Add", a, b))


@pattern()
def consumer_blind_chain(net: Net) -> None:
    """Unneeded channels make their producers' inputs unneeded, two layers up."""
    x = net.act(net.conv(net.input((1, 3, 8, 8)), 12, prune=False))
    x = net.act(net.conv(x, 12, 1, groups=12, prune=False))
    x = net.act(net.conv(x, 12, groups=12, prune=False))
    finish(net, x, blind=[0, 3, 4, 8])


@pattern()
def output_in_the_middle(net: Net) -> None:
    """A pruned tensor is also an output of the model: all its channels stay."""
    x = start(net)
    net.output(x)
    finish(net, net.act(net.conv(x, 16)))


@pattern()
def output_before_activation(net: Net) -> None:
    """The convolution is an output, its activation goes on."""
    y = net.conv(net.input((1, 3, 8, 8)), 16)
    net.output(y)
    finish(net, net.act(y))


@pattern()
def output_pruned(net: Net) -> None:
    """The last layer itself has pruned filters: its shape may not change."""
    net.output(net.conv(start(net), 8))


@pattern(measured=False)
def output_constant(net: Net) -> None:
    """Everything is pruned: the output is a constant and keeps name and shape."""
    x = start(net, dims=("batch", 3, 10, 10))
    net.also_at(input=(4, 3, 10, 10))
    net.output(net.act(net.conv(x, 8, prune=range(8))), dims=("batch", 8, 10, 10))


@pattern(measured=False)
def all_channels_pruned(net: Net) -> None:
    """A whole layer is pruned in the middle of the only path."""
    finish(net, net.act(net.conv(start(net), 16, prune=range(16))))


@pattern(measured=False)
def all_channels_pruned_linear(net: Net) -> None:
    """The same for Gemm, at several batch sizes."""
    x = net.input((2, 8), dims=("batch", 8))
    net.also_at(input=(5, 8))
    x = net.act(net.linear(x, 16, prune=range(16)))
    net.output(net.linear(x, 4, prune=False))


@pattern(measured=False)
def all_pruned_dynamic(net: Net) -> None:
    """A constant output of dynamic height and width."""
    x = start(net, dims=("batch", 3, "height", "width"), prune=range(16))
    net.also_at(input=(2, 3, 15, 6))
    finish(net, x, dims=("batch", 8, "height", "width"))


@pattern(measured=False)
def all_but_skip(net: Net) -> None:
    """A residual block whose last convolution is pruned entirely: only the skip remains."""
    x = start(net, prune=False)
    y = net.conv(net.act(net.conv(x, 16)), 16, prune=range(16))
    finish(net, net.act(net.combine("Add", x, y)))


@pattern(measured=False)
def tied_weights(net: Net) -> None:
    """Two convolutions share one weight initializer; only one of them has a pruned input."""
    x = start(net, 12)
    weight = net.initializer(net.rng.normal(size=(12, 12, 3, 3)) * 0.1)
    bias = net.initializer(net.rng.normal(size=12), "bias")
    for _ in range(2):
        (name,) = net.node("Conv", [x.name, weight, bias], pads=[1, 1, 1, 1])
        x = net.act(net.opaque([x], name, x.shape))
    finish(net, x)


@pattern(measured=False)
def tied_embedding(net: Net) -> None:
    """A table read by Gather and, transposed, by MatMul."""
    table = net.rng.normal(size=(20, 12))
    table[:, [1, 5]] = 0
    stored = net.initializer(table)
    net.inputs.append(helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 6]))
    net.shapes.append({"tokens": (2, 6)})
    net.also_at(tokens=(3, 6))
    (name,) = net.node("Gather", [stored, "tokens"])
    x = net.tensor(name, (2, 6, 12), np.full(12, np.nan), 2)
    x = net.act(net.linear(x, 12, form="matmul"))
    (back,) = net.node("Transpose", [stored], perm=[1, 0])
    (name,) = net.node("MatMul", [x.name, back])
    net.output(net.opaque([x], name, (2, 6, 20), 2), dims=("batch", 6, 20))


@pattern(measured=False)
def shared_bias(net: Net) -> None:
    """One bias vector serves a convolution and an addition."""
    x = start(net)
    bias = net.initializer(net.rng.normal(size=16), "bias")
    weight = net.rng.normal(size=(16, 16, 1, 1))
    weight[[0, 3, 7]] = 0
    (name,) = net.node("Conv", [x.name, net.initializer(weight), bias])
    (shape,) = net.node("Reshape", [bias, net.integers([16, 1, 1])])
    (name,) = net.node("Add", [name, shape])
    finish(net, net.act(net.opaque([x], name, x.shape)))


@pattern(measured=False)
def constant_nodes(net: Net) -> None:
    """Weights come from Constant nodes, through Identity."""
    x = start(net)
    weight = net.rng.normal(size=(8, 16, 3, 3)).astype(np.float32)
    weight[[1, 2]] = 0
    (stored,) = net.node("Constant", [], value=helper.make_tensor("w", 1, weight.shape, weight.ravel().tolist()))
    (stored,) = net.node("Identity", [stored])
    (name,) = net.node("Conv", [x.name, stored], pads=[1, 1, 1, 1])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


@pattern(measured=False)
def computed_weights(net: Net) -> None:
    """Weights are the product of two initializers (a mask written into the graph)."""
    x = start(net)
    weight, mask = net.rng.normal(size=(8, 16, 3, 3)), np.ones((8, 1, 1, 1))
    mask[[0, 4, 5]] = 0
    (stored,) = net.node("Mul", [net.initializer(weight), net.initializer(mask, "mask")])
    (name,) = net.node("Conv", [x.name, stored], pads=[1, 1, 1, 1])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


@pattern(measured=False)
def weights_from_input(net: Net) -> None:
    """The filters of a convolution are an input of the model."""
    x = start(net)
    net.inputs.append(helper.make_tensor_value_info("filters", TensorProto.FLOAT, [8, 16, 3, 3]))
    net.shapes[0]["filters"] = (8, 16, 3, 3)
    (name,) = net.node("Conv", [x.name, "filters"], pads=[1, 1, 1, 1])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


@pattern(measured=False)
def initializers_as_inputs(net: Net) -> None:
    """Initializers are also inputs and may be overridden by the caller: nothing may be assumed."""
    finish(net, start(net))
    for stored in net.initializers:
        net.inputs.append(helper.make_tensor_value_info(stored.name, stored.data_type, list(stored.dims)))


@pattern(measured=False)
def unused_nodes(net: Net) -> None:
    """A branch that reaches no output, an unused initializer and an unused input."""
    x = start(net)
    net.act(net.conv(x, 8))
    net.initializer(np.ones(5), "unused")
    net.inputs.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [2]))
    net.shapes[0]["unused"] = (2,)
    finish(net, x)


@pattern(measured=False)
def input_is_output(net: Net) -> None:
    """An input goes out through Identity next to a pruned network."""
    x = net.input((1, 3, 8, 8))
    net.output(net.act(x, "Identity"))
    finish(net, net.act(net.conv(x, 12)))


def _if_branch(name: str, op: str, outer: str, shape: list[int]) -> object:
    result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape)
    return helper.make_graph([helper.make_node(op, [outer], [f"{name}_out"])], name, [], [result])


@pattern(measured=False)
def subgraph_if(net: Net) -> None:
    """Both branches of If read a pruned tensor of the outer graph."""
    x = start(net)
    (total,) = net.node("ReduceSum", [x.name], keepdims=0)
    (flag,) = net.node("Greater", [total, net.initializer(np.array(40.0))])
    shape = [1, 16, 10, 10]
    (name,) = net.node(
        "If", [flag],
        then_branch=_if_branch("then", "Neg", x.name, shape), else_branch=_if_branch("else", "Sigmoid", x.name, shape),
    )  # fmt: skip
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def subgraph_if_weights(net: Net) -> None:
    """A convolution inside If reads outer weights and the outer pruned tensor."""
    x = start(net)
    weight = net.initializer(net.rng.normal(size=(16, 16, 1, 1)))
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16, 10, 10]) for n in ("t", "e")]
    then = helper.make_graph([helper.make_node("Conv", [x.name, weight], ["t"])], "then", [], outs[:1])
    other = helper.make_graph([helper.make_node("Relu", [x.name], ["e"])], "else", [], outs[1:])
    (total,) = net.node("ReduceMax", [x.name], keepdims=0)
    (flag,) = net.node("Less", [total, net.initializer(np.array(3.0))])
    (name,) = net.node("If", [flag], then_branch=then, else_branch=other)
    y = net.opaque([x], name, x.shape)
    (name,) = net.node("Conv", [y.name, weight])
    finish(net, net.act(net.opaque([y], name, x.shape)))


@pattern(measured=False)
def subgraph_loop(net: Net) -> None:
    """Loop adds an outer pruned tensor three times."""
    x = start(net)
    shape = [1, 16, 10, 10]
    ins = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, shape),
    ]
    outs = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, shape),
    ]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["state", x.name], ["next"])]
    body = helper.make_graph(nodes, "body", ins, outs)
    count = net.initializer(np.array(3, np.int64), "count")
    y = net.conv(net.act(x, "Tanh"), 16, 1)
    (name,) = net.node("Loop", [count, "", y.name], body=body)
    finish(net, net.opaque([x, y], name, x.shape))


@pattern(measured=False)
def subgraph_scan(net: Net) -> None:
    """Scan over time with an outer pruned vector."""
    x = net.input((5, 16), axis=1)
    gain = net.act(net.linear(x, 16, prune=[0, 1, 2]))
    (mean,) = net.node("ReduceMean", [gain.name], axes=[0], keepdims=0)
    ins = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16]) for n in ("state", "step")]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16]) for n in ("next", "scanned")]
    nodes = [
        helper.make_node("Mul", ["state", mean], ["scaled"]),
        helper.make_node("Add", ["scaled", "step"], ["next"]),
        helper.make_node("Identity", ["next"], ["scanned"]),
    ]
    body = helper.make_graph(nodes, "body", ins, outs)
    start_state = net.initializer(np.zeros(16), "state")
    names = net.node("Scan", [start_state, gain.name], 2, body=body, num_scan_inputs=1)
    net.output(net.linear(net.opaque([gain], names[1], (5, 16)), 4, prune=False))


@pattern(measured=False)
def recurrent_lstm(net: Net) -> None:
    """LSTM reads pruned features."""
    x = net.input((6, 2, 8), axis=2)
    x = net.act(net.linear(x, 16, form="matmul"))
    extra = [net.initializer(net.rng.normal(size=s) * 0.3) for s in ((1, 20, 16), (1, 20, 5), (1, 40))]
    names = net.node("LSTM", [x.name, *extra], 3, hidden_size=5)
    net.output(net.opaque([x], names[0], (6, 1, 2, 5), 3))


@pattern(measured=False)
def custom_domain(net: Net) -> None:
    """An operator of a foreign domain between pruned convolutions."""
    x = start(net)
    (name,) = net.node("BiasGelu", [x.name, net.initializer(net.rng.normal(size=10))], domain="com.microsoft")
    y = net.opaque([x], name, x.shape)
    finish(net, net.act(net.conv(y, 16)))


@pattern(measured=False)
def foreign_relu(net: Net) -> None:
    """A foreign operator called Gelu reads a pruned tensor: its name proves nothing."""
    x = start(net, act="")
    (name,) = net.node("Gelu", [x.name], domain="com.microsoft")
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def local_function(net: Net) -> None:
    """A model-local function named Relu in a domain of its own that adds one."""
    one = helper.make_node("Constant", [], ["one"], value_float=1.0)
    body = [one, helper.make_node("Add", ["x", "one"], ["y"])]
    net.functions.append(
        helper.make_function("local", "Relu", ["x"], ["y"], body, [helper.make_opsetid("", net.opset)])
    )
    x = start(net, act="")
    (name,) = net.node("Relu", [x.name], domain="local")
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def dropout_training_output(net: Net) -> None:
    """Dropout (a no-op at inference) with its mask as a second, unused output."""
    x = start(net)
    names = net.node("Dropout", [x.name], 2)
    finish(net, net.through([x], names[0], x.shape, x.channels.value))


@pattern(measured=False)
def dropout_mask_read(net: Net) -> None:
    """The mask of Dropout goes out as well."""
    x = start(net)
    names = net.node("Dropout", [x.name], 2)
    finish(net, net.opaque([x], names[0], x.shape))
    net.output(net.opaque([x], names[1], x.shape), kind=TensorProto.BOOL)


@pattern(measured=False)
def shape_of_pruned(net: Net) -> None:
    """The Shape of a pruned tensor is an output: it must still say 16."""
    x = start(net)
    (shape,) = net.node("Shape", [x.name])
    net.output(net.opaque([x], shape, (4, 4), 1), dims=(4,), kind=7)
    finish(net, net.act(x, "Tanh"))


@pattern(measured=False)
def shape_in_arithmetic(net: Net) -> None:
    """x is divided by the root of its own channel count, read from Shape."""
    x = start(net)
    (shape,) = net.node("Shape", [x.name])
    (count,) = net.node("Gather", [shape, net.initializer(np.array(1, np.int64))])
    (count,) = net.node("Cast", [count], to=TensorProto.FLOAT)
    (root,) = net.node("Sqrt", [count])
    (name,) = net.node("Div", [x.name, root])
    finish(net, net.through([x], name, x.shape, x.channels.value))


@pattern(measured=False)
def size_of_pruned(net: Net) -> None:
    """Size counts elements."""
    x = start(net)
    (size,) = net.node("Size", [x.name])
    (size,) = net.node("Cast", [size], to=TensorProto.FLOAT)
    (name,) = net.node("Mul", [x.name, size])
    finish(net, net.opaque([x], name, x.shape))


@pattern(measured=False)
def random_normal_like(net: Net) -> None:
    """RandomNormalLike of a pruned tensor feeds only a Mul by zero."""
    x = start(net)
    (noise,) = net.node("RandomNormalLike", [x.name], seed=1.0)
    (noise,) = net.node("Mul", [noise, net.initializer(np.zeros(1))])
    (name,) = net.node("Add", [x.name, noise])
    finish(net, net.through([x], name, x.shape, x.channels.value))


@pattern(measured=False)
def infinite_bias(net: Net) -> None:
    """A pruned channel with bias -inf behind a Sigmoid is exactly zero, not NaN."""
    x = net.conv(net.input((1, 3, 8, 8)), 8, bias=False, prune=[1, 2])
    bias = np.where(np.arange(8) == 1, -np.inf, 0.5)
    (name,) = net.node("Add", [x.name, net.initializer(bias.reshape(8, 1, 1))])
    finish(net, net.act(net.opaque([x], name, x.shape), "Sigmoid"))


@pattern(measured=False, kinds=ZERO)
def nan_weights(net: Net) -> None:
    """A filter of NaN is not zero; the output it feeds is NaN and must stay so."""
    weight = net.rng.normal(size=(8, 3, 3, 3))
    weight[3, 0, 0, 0] = np.nan
    x = net.conv(net.input((1, 3, 8, 8)), 8, weight=weight, prune=[1, 2])
    net.output(net.act(x))


@pattern(measured=False)
def constant_to_infinity(net: Net) -> None:
    """Reciprocal of a zero channel is inf; a Clip behind it makes it 6 again."""
    x = start(net)
    (name,) = net.node("Reciprocal", [x.name])
    finish(net, net.clip(net.opaque([x], name, x.shape)))


def _typed(dtype: object) -> Body:
    def body(net: Net) -> None:
        x = start(net)
        x = net.act(net.combine("Add", x, net.conv(x, 16)))
        net.output(net.linear(net.flatten(net.global_pool(x)), 6, prune=False))

    return body


add("float16", _typed(np.float16), dtype=np.float16, tolerance=5e-3)
add("float64_conv", _typed(np.float64), dtype=np.float64)


@pattern(dtype=np.float64, tolerance=1e-9)
def float64(net: Net) -> None:
    """A perceptron in double precision."""
    x = net.act(net.linear(net.input((2, 8)), 32))
    net.output(net.linear(net.act(net.linear(x, 16, form="matmul"), "Sigmoid"), 3, prune=False))


@pattern(dtype=ml_dtypes.bfloat16, tolerance=5e-2, measured=False)
def bfloat16_gemm(net: Net) -> None:
    """MatMul in bfloat16 between casts."""
    net.inputs.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, [2, 8]))
    net.shapes.append({"input": (2, 8)})
    (name,) = net.node("Cast", ["input"], to=TensorProto.BFLOAT16)
    x = net.tensor(name, (2, 8), np.full(8, np.nan))
    x = net.act(net.linear(x, 16, form="matmul"))
    x = net.linear(x, 4, form="matmul", prune=False)
    (name,) = net.node("Cast", [x.name], to=TensorProto.FLOAT)
    net.output(net.opaque([x], name, (2, 4)), kind=TensorProto.FLOAT)


@pattern(measured=False, tolerance=5e-3)
def mixed_precision(net: Net) -> None:
    """Cast to float16 around one convolution."""
    x = start(net)
    (name,) = net.node("Cast", [x.name], to=TensorProto.FLOAT16)
    weight = net.rng.normal(size=(8, 16, 1, 1)).astype(np.float16) * np.float16(0.2)
    weight[[1, 3]] = 0
    net.initializers.append(helper.make_tensor("half", TensorProto.FLOAT16, weight.shape, weight.tobytes(), raw=True))
    (name,) = net.node("Conv", [name, "half"])
    (name,) = net.node("Cast", [name], to=TensorProto.FLOAT)
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


@pattern(measured=False)
def quantised_qdq(net: Net) -> None:
    """QuantizeLinear / DequantizeLinear around weights and activations."""
    x = start(net)
    scale, zero = net.initializer(np.array(0.05)), net.initializer(np.array(0, np.int8), "zero")
    (name,) = net.node("QuantizeLinear", [x.name, scale, zero])
    (name,) = net.node("DequantizeLinear", [name, scale, zero])
    weight = net.rng.integers(-100, 100, (8, 16, 3, 3)).astype(np.int8)
    weight[[0, 5]] = 0
    stored = net.initializer(weight, "quantised")
    scales = net.initializer(np.full(8, 0.01), "scales")
    zeros = net.initializer(np.zeros(8, np.int8), "zeros")
    (stored,) = net.node("DequantizeLinear", [stored, scales, zeros], axis=0)
    (name,) = net.node("Conv", [name, stored], pads=[1, 1, 1, 1])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


@pattern(measured=False)
def quantised_offset(net: Net) -> None:
    """A zero point of 7: stored zeros are not zero, stored sevens are."""
    x = start(net)
    weight = net.rng.integers(-100, 100, (8, 16, 1, 1)).astype(np.int8)
    weight[0], weight[1] = 0, 7
    parts = [
        net.initializer(weight, "quantised"),
        net.initializer(np.array(0.01)),
        net.initializer(np.array(7, np.int8), "zero"),
    ]
    (stored,) = net.node("DequantizeLinear", parts)
    (name,) = net.node("Conv", [x.name, stored])
    finish(net, net.act(net.opaque([x], name, (1, 8, 10, 10))))


def _plain(net: Net) -> None:
    x = start(net, dims=("batch", 3, 10, 10))
    net.also_at(input=(3, 3, 10, 10))
    x = net.pool(net.act(net.batch_norm(net.conv(x, 16))))
    x = net.act(net.combine("Add", x, net.conv(x, 16)))
    net.output(net.linear(net.flatten(x), 6, prune=False))


for opset in (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23):
    add(f"opset{opset}", _plain, opset=opset)


def _long(net: Net, x: object) -> object:
    for _ in range(12):
        x = net.act(net.conv(x, 8))  # type: ignore[arg-type]
    return x


add("long_chain", between(_long))


@pattern()
def several_inputs(net: Net) -> None:
    """Two inputs of different symbolic sizes meet in a sum."""
    a = net.input((1, 3, 8, 8), name="left", dims=("batch", 3, 8, 8))
    b = net.input((1, 5, 8, 8), name="right", dims=("batch", 5, 8, 8))
    net.also_at(left=(2, 3, 8, 8), right=(2, 5, 8, 8))
    x = net.combine("Add", net.conv(a, 12), net.conv(b, 12))
    finish(net, net.act(x))


@pattern(measured=False)
def batch_constant_branch(net: Net) -> None:
    """A branch whose channels are all constant decides the batch size through broadcasting."""
    a = net.input((2, 8), name="left", dims=("batch", 8))
    b = net.input((1, 8), name="right")
    x = net.act(net.linear(a, 6, prune=range(6)))
    y = net.act(net.linear(b, 6, prune=[0]))
    net.also_at(left=(4, 8))
    net.output(net.combine("Add", x, y), dims=("batch", 6))


@pattern(measured=False)
def identical_names(net: Net) -> None:
    """Names that a careless tool would invent are taken."""
    x = start(net)
    for taken in ("redy", "carrier", "bias", "weight", "constant", "0"):
        net.initializer(net.rng.normal(size=3), name=taken)
    finish(net, net.constant("Add", x, net.rng.normal(size=(16, 1, 1))))
