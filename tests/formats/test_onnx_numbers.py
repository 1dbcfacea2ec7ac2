"""Numbers as they are: casts, random nodes, dropout, clip bounds, normalisations and orders of a file."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model_of, node, reference

from redy.bounds.rounding import READ, UNIT
from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.model import Affine, Elementwise, Scale

RNG = np.random.default_rng(5)
KINDS = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}
NARROWER = [("float64", "float32"), ("float32", "float16"), ("float32", "bfloat16"), ("float64", "bfloat16")]
WIDER = [("float32", "float64"), ("float16", "float32"), ("float16", "float64")]


def cast_there_and_back(source, to):
    nodes = [
        node("MatMul", "x w", "a"),
        node("Cast", "a", "c", to=KINDS[to]),
        node("Cast", "c", to=KINDS[source]),
    ]
    weights = {"w": RNG.normal(size=(3, 2)).astype(source)}
    return model_of(nodes, ("N", 3), weights, kind=KINDS[source])


@pytest.mark.parametrize(("source", "to"), NARROWER)
def test_a_narrowing_cast_is_a_function_of_its_own(source, to):
    model = cast_there_and_back(source, to)
    network = read_network(model)
    assert [n.operator for n in network.nodes if isinstance(n, Elementwise)] == ["Cast"]
    x = RNG.normal(size=(50, 3))
    z = network.evaluate(x)
    [w] = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    assert (z != x @ w.astype(np.float64)).any()
    np.testing.assert_allclose(z, Session(to_model(network)).run(x), rtol=1e-2)
    if to != "bfloat16":
        np.testing.assert_array_equal(z, z.astype(to))


@pytest.mark.parametrize(("source", "to"), WIDER)
def test_a_widening_cast_is_the_value_itself(source, to):
    model = model_of([node("Cast", "x", to=KINDS[to])], ("N", 3), {}, kind=KINDS[source], out_kind=KINDS[to])
    network = read_network(model)
    assert not any(isinstance(n, Elementwise) for n in network.nodes)


def test_a_cast_that_overflows_gives_infinity():
    nodes = [node("Cast", "x", "c", to=TensorProto.FLOAT16), node("Cast", "c", to=TensorProto.FLOAT)]
    network = read_network(model_of(nodes, ("N", 2), {}))
    assert network.evaluate(np.array([[1e5, -1e5], [1.0, 2.0]])).tolist() == [[np.inf, -np.inf], [1.0, 2.0]]


@pytest.mark.parametrize(
    "random",
    [
        [node("RandomNormal", "", "r", shape=[1, 3]), node("Add", "x r")],
        [node("RandomUniform", "", "r", shape=[1, 3], seed=1.0), node("Add", "x r")],
        [node("RandomNormalLike", "x", "r"), node("Add", "x r")],
        [node("RandomUniformLike", "x", "r"), node("Add", "x r")],
        [node("Bernoulli", "x")],
    ],
)
def test_random_numbers_are_refused(random):
    for entry in random:
        entry.input[:] = [name for name in entry.input if name]
    with pytest.raises(InputError, match="draws random numbers, so nothing can be proved"):
        read_network(model_of(random, ("N", 3), {}))


def test_random_numbers_that_nothing_reads_do_not_matter():
    unused = helper.make_node("RandomNormal", [], ["r"], shape=[3])
    network = read_network(model_of([unused, node("Relu", "x")], ("N", 3), {}))
    assert network.evaluate(np.array([[-1.0, 0, 2]])).tolist() == [[0, 0, 2]]


def test_dropout_in_training_is_refused_and_at_inference_nothing():
    weights = {"ratio": np.array(0.5, np.float32), "none": np.array(0, np.float32), "on": np.array(True)}
    with pytest.raises(InputError, match="is in training mode"):
        read_network(model_of([node("Dropout", "x ratio on")], ("N", 3), weights))
    for inputs in ("x", "x ratio", "x none on"):
        network = read_network(model_of([node("Dropout", inputs)], ("N", 3), weights))
        assert network.evaluate(np.ones((1, 3))).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("kind", "low", "high", "shown"),
    [
        ("float64", -1e39, 1e39, [-1e39, 0, 1e39]),
        ("float64", 1e39, None, [1e39, 1e39, 1e300]),
        ("float64", -np.inf, np.inf, [-1e300, 0, 1e300]),
        ("float32", np.finfo(np.float32).min, 6.0, [-1e300, 0, 6]),
        ("float32", -6.0, np.finfo(np.float32).max, [-6, 0, 1e300]),
        ("float32", np.finfo(np.float32).max, None, [np.finfo(np.float32).max] * 2 + [1e300]),
    ],
)
def test_clip_bounds_bind_unless_no_number_of_the_type_exceeds_them(kind, low, high, shown):
    weights = {"low": np.array(low, kind)} | ({} if high is None else {"high": np.array(high, kind)})
    names = "x low" if high is None else "x low high"
    network = read_network(model_of([node("Clip", names)], ("N", 3), weights, kind=KINDS[kind]))
    np.testing.assert_array_equal(network.evaluate(np.array([[-1e300, 0, 1e300]])), [shown])


def test_a_normalisation_is_read_within_one_rounding_also_where_it_cancels():
    size = 40
    scale, mean = RNG.normal(size=(2, size)).astype(np.float32)
    variance = RNG.uniform(0.1, 2, size).astype(np.float32)
    # The constant nearly cancels, so that one rounded in float64 step by step would be wrong in most of its digits.
    bias = (scale / np.sqrt(variance + np.float32(1e-5)) * mean).astype(np.float32)
    weights = {"s": scale, "b": bias, "m": mean, "v": variance}
    network = read_network(model_of([node("BatchNormalization", "x s b m v")], ("N", size, 1, 1), weights))
    affine = next(n for n in network.nodes if isinstance(n, Affine) and isinstance(n.terms[0].operator, Scale))
    factor, constant = affine.terms[0].operator.factor.ravel(), affine.bias.ravel()
    epsilon = Fraction(float(np.float32(1e-5)))
    for k in range(size):
        # factor^2 (variance + epsilon) = scale^2, so the relative error of the factor is half that of its square.
        square = Fraction(factor[k]) ** 2 * (Fraction(float(variance[k])) + epsilon) / Fraction(float(scale[k])) ** 2
        assert abs(square - 1) <= 2 * READ * Fraction(UNIT)
        exact = Fraction(float(bias[k])) - Fraction(factor[k]) * Fraction(float(mean[k]))
        loose = Fraction(UNIT) * abs(Fraction(factor[k]) * Fraction(float(mean[k])))
        assert abs(Fraction(constant[k]) - exact) <= 2 * loose


def test_nodes_out_of_order_are_sorted():
    nodes = [node("Relu", "b"), node("Add", "a c", "b"), node("MatMul", "x w", "a"), node("Neg", "a", "c")]
    model = model_of(nodes, ("N", 3), {"w": RNG.normal(size=(3, 2)).astype(np.float32)})
    x = RNG.normal(size=(5, 3))
    np.testing.assert_array_equal(read_network(model).evaluate(x), 0)
    straight = model_of([nodes[2], nodes[3], nodes[1], nodes[0]], ("N", 3), {"w": np.eye(3, 2, dtype=np.float32)})
    expected = reference(straight, x.astype(np.float32))[0]
    np.testing.assert_allclose(read_network(straight).evaluate(x), expected, atol=1e-6)
