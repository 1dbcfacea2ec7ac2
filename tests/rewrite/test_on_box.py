"""What a box makes constant flows through any operator, what is dead goes; the network computes the same on the box."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from dense_networks import random_network
from drawing import generators
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

import redy
from redy.formats.onnx_read import read_network
from redy.model import Box, Network
from redy.rewrite import Facts, Refusal, shrink
from redy.rewrite.constants import propagate_constants
from redy.rewrite.dead import drop_dead
from redy.rewrite.settle import on_box

KINDS = ("Sigmoid", "Tanh", "Relu", "Softplus", "Mul", "MaxPool", "AveragePool", "Sin", "MatMul", "Flatten")


def random_model(rng: np.random.Generator) -> onnx.ModelProto:
    """A convolution, then some operators of `KINDS` in any order, then a dense layer; output y."""
    nodes, weights, shape = [], [], [2, 6, 6]

    def weight(name: str, *size: int) -> str:
        values = rng.normal(size=size).astype(np.float32)
        values[rng.random(size) < 0.2] = 0.0
        weights.append(numpy_helper.from_array(values, name))
        return name

    def add(kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    pads = [1, 1, 1, 1] if rng.random() < 0.5 else [0, 0, 0, 0]
    at = add("Conv", ["x", weight("w", 3, 2, 3, 3), weight("b", 3)], pads=pads)
    shape = [3, *((6, 6) if any(pads) else (4, 4))]
    for kind in rng.choice(KINDS, int(rng.integers(1, 5))):
        if kind == "Mul":
            at = add("Mul", [at, add("Sigmoid", [at])])
        elif kind in {"MaxPool", "AveragePool"} and len(shape) == 3 and shape[1] >= 2:
            at, shape = add(kind, [at], kernel_shape=[2, 2], strides=[2, 2]), [shape[0], shape[1] // 2, shape[2] // 2]
        elif kind == "MatMul":
            width = int(rng.integers(1, 4))
            at, shape = add("MatMul", [at, weight(f"m{len(nodes)}", shape[-1], width)]), [*shape[:-1], width]
        elif kind == "Flatten":
            at, shape = add("Flatten", [at]), [math.prod(shape)]
        elif kind not in {"MaxPool", "AveragePool"}:
            at = add(kind, [at])
    at = add("Flatten", [at]) if len(shape) > 1 else at
    nodes.append(helper.make_node("Gemm", [at, weight("w2", math.prod(shape), 2), weight("b2", 2)], ["y"], name="y"))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *s]) for n, s in (("x", [2, 6, 6]), ("y", [2]))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def box_of(rng: np.random.Generator, shape: tuple[int, ...]) -> Box:
    """A box that fixes most inputs, among them all of a channel now and then."""
    center, radius = rng.normal(size=shape), rng.uniform(0, 0.3, shape)
    radius[rng.random(shape) < rng.choice([0.3, 0.9])] = 0.0
    if rng.random() < 0.5:
        radius[0] = 0.0
    return Box(center - radius, center + radius)


def pieces_of(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """Per activation and element the piece in which every point lies, or -1: what is true of the points `x`."""
    found = {}
    trace = network.trace(x)
    for node in network.activations:
        pieces = node.function.piece_of(trace[node.source]).reshape(len(x), -1)
        found[node.name] = np.where((pieces == pieces[0]).all(axis=0), pieces[0], -1)
    return found


def assert_equal(small: Network, network: Network, x: np.ndarray) -> None:
    wanted = network.evaluate(x)
    assert np.abs(small.evaluate(x) - wanted).max() <= 1e-9 * (1 + np.abs(wanted).max())


@given(generators)
@settings(max_examples=60, deadline=None)
def test_any_network_computes_the_same_on_the_box(rng):
    network = read_network(random_model(rng))
    box = box_of(rng, network.input.shape)
    x = box.sample(50, rng)
    facts = Facts(box, pieces_of(network, x))
    for straight in (True, False):
        assert_equal(on_box(network, facts, straight=straight)[0], network, x)
    shrunk = shrink(network, (), facts)
    assert not isinstance(shrunk, Refusal)
    assert_equal(shrunk.network, network, x)
    assert shrunk.network.parameters <= network.parameters
    assert shrunk.network.macs <= network.macs


@given(generators)
@settings(max_examples=40, deadline=None)
def test_without_facts_constants_and_dead_units_change_nothing_anywhere(rng):
    network = random_network(rng) if rng.random() < 0.5 else read_network(random_model(rng))
    small = drop_dead(propagate_constants(network))[0]
    assert_equal(small, network, rng.normal(size=(50, *network.input.shape)))


def test_inputs_that_the_box_fixes_are_folded_through_any_function(tmp_path):
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in (("w", (40, 30)), ("v", (30, 2)))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Sigmoid", ["a"], ["s"])]
    nodes.append(helper.make_node("MatMul", ["s", "v"], ["y"]))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 40), ("y", 2))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    onnx.save(model, tmp_path / "net.onnx")
    network = redy.read_network(tmp_path / "net.onnx")
    lower = rng.normal(size=40)
    upper = lower.copy()
    upper[3] += 1.0
    box = Box(lower, upper)
    reduction = redy.reduce(network, box, effort="quick")
    redy.write_reduction(reduction, tmp_path / "small.onnx", original=tmp_path / "net.onnx")
    small = redy.read_network(tmp_path / "small.onnx")
    # One column of 30, a bias of 30, and what reads them.
    assert small.parameters <= 30 + 30 + 60 + 2
    x = box.sample(500, rng)
    apart = np.abs(small.evaluate(x) - network.evaluate(x)).max(axis=0)
    assert (apart <= reduction.guarantee.error["y"]).all()


@pytest.mark.parametrize(
    ("name", "prop", "most"),
    [("collins_small_20", "collins_20", 410), pytest.param("dist_shift", "dist_shift", 28_500, marks=pytest.mark.slow)],
)
def test_networks_of_the_competitions(redy_data, tmp_path, name, prop, most):
    network = redy.read_network(redy_data(f"vnncomp/{name}.onnx"))
    box = redy.read_box(redy_data(f"vnncomp/{prop}.vnnlib"), network.input)
    reduction = redy.reduce(network, box, effort="quick")
    assert reduction.network.parameters <= most
    x = box.sample(200, np.random.default_rng(0))
    apart = np.abs(reduction.network.evaluate(x) - network.evaluate(x)).max(axis=0)
    assert (apart <= next(iter(reduction.guarantee.error.values())).ravel() + 1e-12).all()
