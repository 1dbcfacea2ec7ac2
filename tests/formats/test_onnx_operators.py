"""Each operator of the reading list: network and written model agree with the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model_of, node, reference

from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.model import Foreign

RNG = np.random.default_rng(7)


def w(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, dtype=np.int64)


IMAGE = ("N", 4, 6, 7)
VECTOR = ("N", 6)

CASES = {
    "gemm": (VECTOR, [node("Gemm", "x w c", alpha=0.5, beta=2.0)], {"w": w(6, 4), "c": w(4)}),
    "gemm transB": (VECTOR, [node("Gemm", "x w", transB=1)], {"w": w(4, 6)}),
    "gemm scalar bias": (VECTOR, [node("Gemm", "x w c")], {"w": w(6, 4), "c": w(1)}),
    "gemm transA": ((6, 1), [node("Gemm", "x w c", transA=1)], {"w": w(6, 4), "c": w(4)}),
    "gemm constant left": ((6, 3), [node("Gemm", "w x c", alpha=2.0)], {"w": w(4, 6), "c": w(4, 1)}),
    "gemm value as addend": (VECTOR, [node("Gemm", "x w x")], {"w": w(6, 6)}),
    "matmul": (VECTOR, [node("MatMul", "x w", "z"), node("Add", "z b")], {"w": w(6, 4), "b": w(4)}),
    "matmul 3-D": (("N", 3, 6), [node("MatMul", "x w", "z"), node("Add", "b z")], {"w": w(6, 4), "b": w(4)}),
    "matmul bias map": (("N", 3, 6), [node("MatMul", "x w", "z"), node("Add", "b z")], {"w": w(6, 4), "b": w(3, 4)}),
    "matmul from the left": (("N", 6, 3), [node("MatMul", "w x")], {"w": w(4, 6)}),
    "matmul left, column": (("N", 6, 1), [node("MatMul", "w x")], {"w": w(4, 6)}),
    "matmul vector": (("N", 6), [node("MatMul", "x w")], {"w": w(6)}),
    "matmul no batch": ((6,), [node("MatMul", "x w")], {"w": w(6, 4)}),
    "matmul no batch left": ((6,), [node("MatMul", "w x")], {"w": w(4, 6)}),
    "matmul several rows": ((5, 6), [node("MatMul", "x w")], {"w": w(6, 4)}),
    "add broadcast": (IMAGE, [node("Add", "x b")], {"b": w(4, 1, 1)}),
    "add batch 1 constant": (IMAGE, [node("Add", "b x")], {"b": w(1, 4, 1, 7)}),
    "sub constant": (VECTOR, [node("Sub", "x b")], {"b": w(6)}),
    "constant sub": (VECTOR, [node("Sub", "b x")], {"b": w(6)}),
    "mul": (IMAGE, [node("Mul", "b x")], {"b": w(4, 1, 1)}),
    "div": (VECTOR, [node("Div", "x b")], {"b": w(6) + 5}),
    "constant div": (VECTOR, [node("Exp", "x", "z"), node("Div", "b z")], {"b": w(6)}),
    "neg": (VECTOR, [node("Neg", "x")], {}),
    "sum": (VECTOR, [node("Sum", "x b x")], {"b": w(6)}),
    "sub of itself": (VECTOR, [node("Relu", "x", "z"), node("Sub", "x z")], {}),
    "two values": (VECTOR, [node("Relu", "x", "z"), node("Mul", "x z")], {}),
    "gate broadcast": (
        IMAGE,
        [node("GlobalAveragePool", "x", "g"), node("Sigmoid", "g", "s"), node("Mul", "x s")],
        {},
    ),
    "conv": (
        IMAGE,
        [node("Conv", "x w b", strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 1], group=2)],
        {"w": w(6, 2, 3, 2), "b": w(6)},
    ),
    "conv same upper": (IMAGE, [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": w(3, 4, 3, 2)}),
    "conv same lower": (IMAGE, [node("Conv", "x w", auto_pad="SAME_LOWER", strides=[1, 2])], {"w": w(3, 4, 2, 4)}),
    "conv valid": (IMAGE, [node("Conv", "x w", auto_pad="VALID")], {"w": w(3, 4, 3, 3)}),
    "conv 1d": (("N", 3, 9), [node("Conv", "x w b", pads=[1, 1])], {"w": w(5, 3, 3), "b": w(5)}),
    "conv 3d": (("N", 2, 4, 5, 3), [node("Conv", "x w", pads=[1, 0, 0, 0, 1, 1])], {"w": w(3, 2, 2, 3, 2)}),
    "conv bias map": (IMAGE, [node("Conv", "x w", "z"), node("Add", "z b")], {"w": w(3, 4, 3, 3), "b": w(3, 4, 5)}),
    "conv transpose": (
        IMAGE,
        [node("ConvTranspose", "x w b", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])],
        {"w": w(4, 3, 3, 2), "b": w(3)},
    ),
    "batch normalization": (
        IMAGE,
        [node("BatchNormalization", "x s b m v")],
        {"s": w(4), "b": w(4), "m": w(4), "v": np.abs(w(4)) + 0.1},
    ),
    "flatten": (IMAGE, [node("Flatten", "x")], {}),
    "reshape": (IMAGE, [node("Reshape", "x s")], {"s": ints(0, -1, 7)}),
    "reshape batch -1": (IMAGE, [node("Reshape", "x s")], {"s": ints(-1, 7, 24)}),
    "reshape batch 1": ((1, 4, 6), [node("Reshape", "x s")], {"s": ints(1, -1)}),
    "exporter's view": (
        IMAGE,
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "n", axis=0),
            node("Unsqueeze", "n axes", "nn"),
            node("Concat", "nn rest", "target", axis=0),
            node("Reshape", "x target", "z"),
            node("MatMul", "z w"),
        ],
        {"zero": np.array(0), "axes": ints(0), "rest": ints(-1), "w": w(168, 3)},
    ),
    "squeeze": (("N", 1, 6), [node("Squeeze", "x a")], {"a": ints(1)}),
    "squeeze all": ((1, 1, 6), [node("Squeeze", "x")], {}),
    "unsqueeze": (VECTOR, [node("Unsqueeze", "x a")], {"a": ints(1, -1)}),
    "transpose": (IMAGE, [node("Transpose", "x", perm=[0, 2, 3, 1])], {}),
    "concat": ((1, 4, 6, 7), [node("Relu", "x", "z"), node("Concat", "x z c", axis=1)], {"c": w(1, 2, 6, 7)}),
    "concat dense": (
        VECTOR,
        [node("Relu", "x", "z"), node("Concat", "z x", "c", axis=-1), node("Gemm", "c w b")],
        {"w": w(12, 3), "b": w(3)},
    ),
    "split": (IMAGE, [node("Split", "x s", "a b", axis=2), node("Concat", "b a", axis=2)], {"s": ints(2, 4)}),
    "slice": (
        IMAGE,
        [node("Slice", "x b e a s")],
        {"b": ints(1, 5), "e": ints(4, -9), "a": ints(1, 2), "s": ints(1, -2)},
    ),
    "pad": (IMAGE, [node("Pad", "x p v")], {"p": ints(0, 0, 1, 2, 0, 1, 0, 0), "v": np.float32(0.75)}),
    "pad zero": (IMAGE, [node("Pad", "x p")], {"p": ints(0, 0, 1, 2, 0, 1, 0, 0)}),
    "pad reflect": (IMAGE, [node("Pad", "x p", mode="reflect")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "pad edge": (IMAGE, [node("Pad", "x p", mode="edge")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "gather": (IMAGE, [node("Gather", "x i", axis=1)], {"i": ints(3, 0, 0)}),
    "depth to space": (IMAGE, [node("DepthToSpace", "x", blocksize=2)], {}),
    "average pool": (IMAGE, [node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])], {}),
    "average pool counting pads": (
        IMAGE,
        [node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], count_include_pad=1)],
        {},
    ),
    "average pool ceil": (IMAGE, [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "global average pool": (IMAGE, [node("GlobalAveragePool", "x", "g"), node("Flatten", "g")], {}),
    "mean over space": (IMAGE, [node("ReduceMean", "x", axes=[2, 3], keepdims=0)], {}),
    "mean over channels": (IMAGE, [node("ReduceMean", "x", axes=[1], keepdims=1)], {}),
    "sum over all": (VECTOR, [node("ReduceSum", "x a", keepdims=0)], {"a": ints(-1)}),
    "max pool": (IMAGE, [node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])], {}),
    "max pool ceil": (IMAGE, [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "global max pool": (IMAGE, [node("GlobalMaxPool", "x")], {}),
    "relu": (VECTOR, [node("Relu", "x")], {}),
    "leaky relu": (VECTOR, [node("LeakyRelu", "x", alpha=0.3)], {}),
    "leaky relu default": (VECTOR, [node("LeakyRelu", "x")], {}),
    "prelu channel": (IMAGE, [node("PRelu", "x s")], {"s": w(4, 1, 1)}),
    "prelu shared": (VECTOR, [node("PRelu", "x s")], {"s": w(1)}),
    "clip": (VECTOR, [node("Clip", "x l h")], {"l": np.float32(-0.5), "h": np.float32(0.25)}),
    "clip below": (VECTOR, [node("Clip", "x - h")], {"h": np.float32(0.25)}),
    "clip above": (VECTOR, [node("Clip", "x l")], {"l": np.float32(-0.5)}),
    "clip nothing": (VECTOR, [node("Clip", "x")], {}),
    "clip crossed": (VECTOR, [node("Clip", "x l h")], {"l": np.float32(1), "h": np.float32(0)}),
    "hard sigmoid": (VECTOR, [node("HardSigmoid", "x", alpha=0.5, beta=0.25)], {}),
    "hard sigmoid default": (VECTOR, [node("HardSigmoid", "x")], {}),
    "abs": (VECTOR, [node("Abs", "x")], {}),
    "max constant": (VECTOR, [node("Max", "x c")], {"c": w(6)}),
    "min scalar": (VECTOR, [node("Min", "c x")], {"c": np.float32(0.1)}),
    "max of values": (VECTOR, [node("Neg", "x", "z"), node("Max", "x z c")], {"c": np.float32(0.1)}),
    "min of values": (VECTOR, [node("Tanh", "x", "z"), node("Min", "x z")], {}),
    "identity": (VECTOR, [node("Identity", "x")], {}),
    "dropout": (VECTOR, [node("Dropout", "x")], {}),
    "relu then identity": (VECTOR, [node("Relu", "x", "z"), node("Identity", "z")], {}),
    "softmax": (VECTOR, [node("Softmax", "x", axis=-1)], {}),
    "layer normalization": (VECTOR, [node("LayerNormalization", "x s b")], {"s": w(6), "b": w(6)}),
    "attention": (
        ("N", 3, 4),
        [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "q"), node("Softmax", "q", "p"),
         node("MatMul", "p x")],
        {},
    ),
    "no batch softmax": ((2, 3), [node("Softmax", "x", "z", axis=0), node("Add", "z x")], {}),
    "elementwise": (
        VECTOR,
        [node("Sigmoid", "x", "a"), node("Tanh", "a", "b"), node("HardSwish", "b", "c"), node("Elu", "c", "d"),
         node("Softplus", "d", "e"), node("Erf", "e", "f"), node("Exp", "f", "g"), node("Sqrt", "g")],
        {},
    ),
    "where": (VECTOR, [node("Where", "c x b")], {"c": np.array([True, False] * 3), "b": w(6)}),
    "constant node": (
        VECTOR,
        [node("Constant", "", "c", value_float=2.0), node("Mul", "x c")],
        {},
    ),
}  # fmt: skip


def sample_shape(shape):
    return tuple(3 if size == "N" else size for size in shape)


@pytest.mark.parametrize("name", CASES)
def test_operator_agrees_with_the_reference_and_survives_writing(name):
    shape, nodes, weights = CASES[name]
    model = model_of(nodes, shape, weights)
    network = read_network(model)
    x = np.random.default_rng(1).normal(size=sample_shape(shape)).astype(np.float32)
    expected = reference(model, x)[0]
    batched = network.input.batch is not None
    samples = x if batched else x[None]
    wanted = expected if network.outputs[0].batch is not None else expected[None]
    found = network.evaluate(samples)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)

    written = to_model(network)
    out = written.graph.output[0].type.tensor_type.shape.dim
    assert len(out) == expected.ndim
    ran = Session(written).run_all(samples)[0]
    np.testing.assert_allclose(ran.reshape(wanted.shape), wanted, rtol=2e-5, atol=2e-6)
    again = read_network(written)
    np.testing.assert_allclose(again.evaluate(samples), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("included", "ceil"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_average_pool_forms_agree_with_onnxruntime(included, ceil):
    pool = node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=included,
                ceil_mode=ceil)  # fmt: skip
    model = model_of([pool], ("N", 2, 6, 8), opset=19)
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(read_network(model).evaluate(x), Session(model).run(x), rtol=1e-5, atol=1e-6)


def test_operators_of_the_list_are_not_carried_as_foreign():
    carried = {"softmax", "layer normalization", "attention", "no batch softmax", "clip crossed", "constant div"}
    for name, (shape, nodes, weights) in CASES.items():
        network = read_network(model_of(nodes, shape, weights))
        foreign = [part.name for part in network if isinstance(part, Foreign)]
        assert bool(foreign) == (name in carried), f"{name}: {foreign}"


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 21, 23, 26])
def test_a_usual_network_reads_at_every_opset(opset):
    weights = {"w": w(3, 1, 3, 3), "v": w(27, 4), "c": w(4)}
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f v c"),
    ]
    model = model_of(nodes, ("N", 1, 6, 6), weights, opset=opset)
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    network = read_network(model)
    np.testing.assert_allclose(network.evaluate(x), reference(model, x)[0], rtol=1e-5, atol=1e-6)
    assert to_model(network).opset_import[0].version == max(13, opset)


OLD = {
    "squeeze and unsqueeze": (9, [node("Unsqueeze", "x", "u", axes=[1, 5]), node("Squeeze", "u", axes=[1])]),
    "split": (9, [node("Split", "x", "a b", axis=1, split=[1, 3]), node("Concat", "b a", axis=1)]),
    "slice": (9, [node("Slice", "x", starts=[1, 0], ends=[9, -1], axes=[1, 3])]),
    "pad": (9, [node("Pad", "x", mode="constant", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)]),
    "clip": (7, [node("Clip", "x", min=-0.25, max=0.5)]),
    "clip one side": (7, [node("Clip", "x", max=0.5)]),
    "dropout": (7, [node("Dropout", "x", ratio=0.9)]),
    "reductions": (9, [node("ReduceMean", "x", "m", axes=[3], keepdims=0), node("ReduceSum", "m", axes=[1])]),
    "softmax over all after its axis": (9, [node("Softmax", "x", axis=1)]),
    "log softmax": (11, [node("LogSoftmax", "x", axis=2)]),
    "upsample": (8, [node("Upsample", "x", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])]),
    "average pool": (7, [node("AveragePool", "x", kernel_shape=[2, 2], auto_pad="SAME_UPPER")]),
    "max pool": (7, [node("MaxPool", "x", kernel_shape=[3, 2], auto_pad="SAME_LOWER", strides=[2, 1])]),
    "flatten": (7, [node("Flatten", "x", axis=1)]),
    "sum": (7, [node("Sum", "x x x")]),
    "global": (7, [node("GlobalMaxPool", "x", "g"), node("GlobalAveragePool", "x", "h"), node("Add", "g h")]),
}


@pytest.mark.parametrize("name", OLD)
def test_older_forms_agree_with_onnxruntime(name):
    opset, nodes = OLD[name]
    model = model_of(nodes, IMAGE, opset=opset)
    network = read_network(model)
    x = np.random.default_rng(2).normal(size=sample_shape(IMAGE)).astype(np.float32)
    expected = Session(model).run(x)
    np.testing.assert_allclose(network.evaluate(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Session(to_model(network)).run(x), expected, rtol=1e-5, atol=1e-6)
