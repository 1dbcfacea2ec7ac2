"""Chains of Gemm and Relu: the same values on the box, nothing else in the file, and a statement about that file."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from dense_networks import random_network
from drawing import generators
from hypothesis import given, settings

import redy
from redy.bounds.linear import linear_bounds, value_bounds
from redy.cli.main import redy as command
from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.model import Activate, Affine, Box, Dense, Network, Port, Term
from redy.model.functions import relu
from redy.model.interface import with_shapes_of
from redy.rewrite import Refusal
from redy.rewrite.chain import chained


def lowest(box: Box):
    """Lower bounds by linear bounds."""

    def bound(network, name):
        if name == network.input.name:
            return box.lower
        return value_bounds(network, linear_bounds(network, box), name)[0]

    return bound


def assert_chain(model: onnx.ModelProto) -> None:
    """Gemm and Relu in turn, each read by the next alone, every Gemm spelled out with weights and bias in the file."""
    nodes, weights = list(model.graph.node), {tensor.name for tensor in model.graph.initializer}
    assert {node.op_type for node in nodes} <= {"Gemm", "Relu"}
    assert nodes[0].op_type == "Gemm"
    assert all(first.op_type != second.op_type for first, second in itertools.pairwise(nodes))
    tensors = [model.graph.input[0].name, *(node.output[0] for node in nodes)]
    assert [node.input[0] for node in nodes] == tensors[:-1]
    assert [port.name for port in model.graph.output] == tensors[-1:]
    for node in nodes:
        if node.op_type == "Gemm":
            assert len(node.input) == 3
            assert set(node.input[1:]) <= weights
            assert {a.name for a in node.attribute} == {"alpha", "beta", "transA", "transB"}
    assert all(len(port.type.tensor_type.shape.dim) == 2 for port in [*model.graph.input, *model.graph.output])


@given(generators)
@settings(max_examples=60, deadline=None)
def test_a_chain_computes_the_same_on_the_box(rng):
    network = random_network(rng)
    box = Box(-np.ones(network.input.shape), np.ones(network.input.shape))
    chain = chained(network, lowest(box))
    assert isinstance(chain, Network)
    x = box.sample(200, rng)
    wanted = network.evaluate(x)
    assert np.abs(chain.evaluate(x) - wanted).max() <= 1e-9 * (1 + np.abs(wanted).max())
    assert_chain(to_model(chain, plain=True))


def attempted(network: Network, box: Box) -> redy.Reduction | None:
    """The reduction in chain layout; None where its file could not be proved with little work, which is said.

    A chain of other functions has more ReLUs than the original, and these have no partners there.
    """
    try:
        return redy.reduce(network, box, layout="chain", effort="quick")
    except InputError as refusal:
        if "no network in this layout was proved" not in str(refusal):
            raise
        return None


@given(generators)
@settings(max_examples=8, deadline=None)
def test_a_reduction_in_chain_layout_is_proved_about_its_file(rng):
    network = random_network(rng, layers=2, width=4)
    box = Box(-np.ones(network.input.shape), np.ones(network.input.shape))
    reduction = attempted(network, box)
    if reduction is None:
        return
    model = onnx.load_model_from_string(reduction.model)
    assert_chain(model)
    x = box.sample(500, rng).astype(np.float32)
    apart = np.abs(read_network(model).evaluate(x.astype(np.float64)) - network.evaluate(x.astype(np.float64)))
    assert (apart.max(axis=0) <= reduction.guarantee.error["y"] + 1e-12).all()


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4), (2, 2)])
def test_shapes_of_the_interface_become_vectors(shape, tmp_path):
    rng = np.random.default_rng(0)
    first = Affine("z", (Term("x", Dense(rng.normal(size=(6, 4)), shape, (6,))),), rng.normal(size=6))
    second = Affine("y", (Term("a", Dense(rng.normal(size=(2, 6)), (6,), (1, 2))),), np.zeros((1, 2)))
    nodes = (first, Activate("a", "z", relu(), (6,)), second)
    network = Network(Port("x", shape, batch=1), nodes, (Port("y", (1, 2), batch=1),))
    redy.write_network(network, tmp_path / "net.onnx")
    asked = ["reduce", str(tmp_path / "net.onnx"), "--bounds", "[-1,1]", "-o", str(tmp_path / "chain.onnx")]
    ended = CliRunner().invoke(command, [*asked, "--layout", "chain", "--quiet"])
    assert ended.exit_code == 0, ended.output
    assert_chain(onnx.load(tmp_path / "chain.onnx"))
    files = [str(tmp_path / "net.onnx"), str(tmp_path / "chain.onnx")]
    assert CliRunner().invoke(command, ["verify", *files]).exit_code == 0
    x = rng.uniform(-1, 1, (50, 4)).astype(np.float32)
    before, after = Session(files[0]).run(x.reshape(50, *shape)), Session(files[1]).run(x)
    assert np.abs(before.reshape(50, 2) - after).max() <= 1e-5


def test_shapes_come_back_element_by_element():
    rng = np.random.default_rng(1)
    nodes = (Affine("y", (Term("x", Dense.of(rng.normal(size=(6, 4)))),), np.zeros(6)),)
    flat = Network(Port("x", (4,)), nodes, (Port("y", (6,)),))
    like = Network(
        Port("u", (2, 2)),
        (Affine("y", (Term("u", Dense(np.zeros((6, 4)), (2, 2), (2, 3))),), np.zeros((2, 3))),),
        (Port("y", (2, 3)),),
    )
    shaped, x = with_shapes_of(flat, like), rng.normal(size=(5, 4))
    assert (shaped.evaluate(x.reshape(5, 2, 2)).reshape(5, 6) == flat.evaluate(x)).all()
    assert with_shapes_of(flat, flat) is flat


def test_constants_are_a_gemm_with_zero_weights():
    network = Network(Port("x", (3,)), (Affine("y", (), np.arange(2.0)),), (Port("y", (2,)),))
    model = to_model(network)
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    assert (Session(model).run(np.ones((4, 3))) == np.arange(2.0)).all()


def test_what_a_chain_cannot_hold_is_named(models, tmp_path):
    shape = (3,)
    nodes = (Affine("y", (Term("x", Dense.of(np.eye(3))),), np.zeros(3)),)
    two = Network(Port("x", shape), nodes, (Port("y", shape), Port("x", shape)))
    answer = chained(two, lowest(Box(np.zeros(3), np.ones(3))))
    assert isinstance(answer, Refusal)
    assert "2 outputs" in answer.reason
    out = tmp_path / "small.onnx"
    asked = ["reduce", str(models / "digits_cnn.onnx"), "--bounds", "[0,0.01]", "-o", str(out), "--layout", "chain"]
    ended = CliRunner().invoke(command, [*asked, "--effort", "quick", "--quiet"])
    assert isinstance(ended.exception, redy.errors.InputError)
    assert "convolutions" in str(ended.exception)
    assert not out.exists()


def test_the_fewest_of_what_was_asked_for(models):
    network = redy.read_network(models / "avoidance.onnx")
    box = redy.read_box(models / "avoidance_close.box.json", network.input)
    found = [redy.reduce(network, box, fewest=f, effort="quick").network for f in ("latency", "parameters", "relus")]
    assert found[1].parameters == min(small.parameters for small in found)
    assert found[2].units == min(small.units for small in found)
