"""Writing and reading back: read(write(n)) == n for random networks, and every real network agrees with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model, write_network
from redy.model import Activate, Affine, Dense, Network, PiecewiseLinear, Port, Product, Scale, Term, identity
from redy.model.convolution import AveragePool, Conv, Windows
from redy.model.digest import network_digest
from redy.model.functions import absolute, clip, clip_above, clip_below, hard_sigmoid, leaky_relu, relu

FUNCTIONS = [
    relu(), absolute(), leaky_relu(0.25), clip(-1.0, 0.5), clip_above(-0.5), clip_below(0.75), hard_sigmoid(0.25, 0.5),
]  # fmt: skip


def rounded(rng, *shape):
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


@st.composite
def dense_networks(draw):
    """Layers whose affine nodes read any of the earlier values: chains, skip connections, several terms."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    batch = draw(st.sampled_from([1, "N"]))
    shape = draw(st.sampled_from([(3,), (1, 3), (2, 2)]))
    nodes, sizes = [], {"x": shape}
    for layer in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 4))
        sources = draw(st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=3, unique=True))
        terms = tuple(
            Term(name, Dense(rounded(rng, width, int(np.prod(sizes[name]))), sizes[name], (width,))) for name in sources
        )
        nodes.append(Affine(f"z{layer}", terms, rounded(rng, width) if draw(st.booleans()) else np.zeros(width)))
        nodes.append(Activate(f"a{layer}", f"z{layer}", draw(st.sampled_from(FUNCTIONS)), (width,)))
        sizes[f"a{layer}"] = (width,)
    last = nodes[-1].name
    nodes.append(Affine("y", (Term(last, Dense.of(rounded(rng, 2, sizes[last][0]))),), rounded(rng, 2)))
    outputs = (Port("y", (2,), "float32", batch),)
    read = {source for node in nodes for source in node.sources} | {"y"}
    for name in reversed([node.name for node in nodes]):  # Values that nothing reads are not written.
        if name not in read:
            nodes = [node for node in nodes if node.name != name]
            read = {source for node in nodes for source in node.sources} | {"y"}
    return Network(Port("x", shape, "float32", batch), tuple(nodes), outputs)


@settings(deadline=None, max_examples=60)
@given(dense_networks())
def test_dense_networks_come_back_bit_for_bit(network):
    written = to_model(network)
    assert network_digest(read_network(written)) == network_digest(network)
    x = np.random.default_rng(0).normal(size=(5, *network.input.shape)).astype(np.float32)
    expected = network.evaluate(x)
    scale = max(1.0, np.abs(expected).max(), *(np.abs(v).max() for v in network.trace(x).values()))
    np.testing.assert_allclose(Session(written).run(x), expected, atol=2e-5 * scale)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["float32", "float64"]), st.booleans())
def test_residual_convolutional_networks_come_back_bit_for_bit(seed, dtype, bias_map):
    rng = np.random.default_rng(seed)
    same, half = ((1, 1), (1, 1, 1, 1)), ((2, 2), (1, 1, 1, 1))
    first = Conv(rounded(rng, 4, 2, 3, 3), 2, Windows((6, 6), (3, 3), half[0], (1, 1), half[1]))
    inner = Conv(rounded(rng, 4, 2, 3, 3), 4, Windows((3, 3), (3, 3), same[0], (1, 1), same[1]), 2)
    pool = AveragePool(4, w := Windows((3, 3), (2, 2), (1, 1), (1, 1), (0, 0, 1, 1)), w.counts())
    bias = rounded(rng, 4, 3, 3) if bias_map else np.broadcast_to(rounded(rng, 4, 1, 1), (4, 3, 3))
    prelu = leaky_relu(rounded(rng, 4, 1, 1)) if dtype == "float32" else relu()
    nodes = (
        Affine("c1", (Term("x", first),), bias),
        Activate("r1", "c1", prelu, (4, 3, 3)),
        Affine("c2", (Term("r1", inner), Term("r1", identity((4, 3, 3)))), bias),
        Activate("r2", "c2", relu(), (4, 3, 3)),
        Affine("p", (Term("r2", pool),), np.zeros((4, 3, 3))),
        Product("g", "p", "r1", (4, 3, 3)),
        Affine("y", (Term("g", Dense(rounded(rng, 3, 36), (4, 3, 3), (3,))),), rounded(rng, 3)),
    )
    network = Network(Port("x", (2, 6, 6), dtype, "N"), nodes, (Port("y", (3,), dtype, "N"),), weight_dtype=dtype)
    assert network_digest(read_network(to_model(network))) == network_digest(network)


PER_UNIT = {
    "lines and kinks": PiecewiseLinear(
        np.array([[0.0, 0.5, -1.0]]), np.array([[0.0, 1.0, 0.25], [1.0, 1.0, -2.0]]), np.array([0.0, 0.5, 3.0])
    ),
    "bounds per unit": PiecewiseLinear(
        np.array([[-1.0, 0.0, 0.5], [1.0, 2.0, 0.75]]),
        np.array([[0.0] * 3, [1.0] * 3, [0.0] * 3]),
        np.array([-1.0, 0, 0.5]),
    ),
    "four pieces": PiecewiseLinear(np.array([-1.0, 0.0, 1.0]), np.array([0.5, -1.0, 2.0, 0.0]), np.array(0.25)),
    "zero": PiecewiseLinear(np.zeros((1, 3)), np.zeros((2, 3)), np.zeros(3)),
    "constant": PiecewiseLinear(np.zeros((1, 3)), np.zeros((2, 3)), np.full(3, 2.5)),
    "steep": PiecewiseLinear(np.zeros((1, 3)), np.full((2, 3), 3.0), np.zeros(3)),
}


@pytest.mark.parametrize("name", PER_UNIT)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_any_piecewise_linear_function_is_written(name, dtype):
    nodes = (Activate("y", "x", PER_UNIT[name], (3,)),)
    network = Network(Port("x", (3,), dtype, "N"), nodes, (Port("y", (3,), dtype, "N"),), weight_dtype=dtype)
    x = (np.random.default_rng(0).normal(size=(50, 3)) * 2).astype(dtype)
    tolerance = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-2}[dtype]
    np.testing.assert_allclose(Session(to_model(network)).run(x), network.evaluate(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", ["N", 1, None])
def test_constant_and_affine_only_networks_are_written(batch):
    constant = (Affine("y", (), np.array([[1.5, -2.0]])),)
    sums = (
        Affine("k", (), np.array([0.5, 2.0])),
        Affine("d", (Term("x", Scale(np.full((2,), -1.0))), Term("k", identity((2,)))), np.array([0.0, 1.0])),
        Affine("y", (Term("d", Dense.of(np.ones((2, 2)))), Term("x", identity((2,)))), np.zeros(2)),
    )
    for nodes in (constant, sums):
        shape = nodes[-1].shape
        network = Network(Port("x", (2,), "float32", batch), nodes, (Port("y", shape, "float32", batch),))
        strange = [[np.nan, 3.0], [np.inf, 0.0]] if nodes is constant else [[0.0, 3.0], [-5.0, 0.0]]
        x = np.array([[1.0, 2.0], *strange], dtype=np.float32)
        found = Session(to_model(network)).run(x)
        assert found.shape == (3, *shape)
        np.testing.assert_allclose(found, network.evaluate(x), rtol=1e-6)
        again = read_network(to_model(network))
        np.testing.assert_allclose(again.evaluate(x[:1]), network.evaluate(x[:1]))


def agrees(path, tmp_path, count=64):
    """Network, onnxruntime on the original, and onnxruntime on the written model agree to float32 rounding."""
    network = read_network(path)
    write_network(network, tmp_path / "written.onnx")
    x = np.random.default_rng(0).uniform(-0.3, 0.5, size=(count, *network.input.shape)).astype(np.float32)
    original, written = Session(path), Session(tmp_path / "written.onnx")
    assert not original.by_sample
    expected = original.run(x)
    scale = np.abs(expected).max()
    assert np.abs(network.evaluate(x) - expected).max() <= 1e-5 * scale
    assert np.abs(written.run(x) - expected).max() <= 1e-5 * scale
    again = read_network(tmp_path / "written.onnx")
    assert [node.name for node in again] == [node.name for node in network]
    assert again.parameters == network.parameters
    assert again.macs == network.macs


SHIPPED = ["avoidance", "digits_mlp", "digits_cnn", "digits_cnn_pruned"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_agree(name, models, tmp_path, capfd):
    (path,) = models.glob(f"**/{name}.onnx")
    agrees(path, tmp_path)
    onnxruntime.InferenceSession(tmp_path / "written.onnx")
    assert capfd.readouterr().err == ""


NETS = [
    "cifar10_base_kw", "cifar10_resnet_2b", "exact_cifar100_400x400_pruned", "exact_cifar10_400x400_pruned",
    "exact_mnist_200x200", "mnist_256x2", "mnist_256x4", "mnist_convnet_avgpool", "mnist_convnet_maxpool",
]  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_published_networks_agree(name, redy_data, tmp_path):
    agrees(redy_data(f"nets/{name}.onnx"), tmp_path, count=8)


@pytest.mark.parametrize("name", [f"{i}_{j}" for i in range(1, 6) for j in range(1, 10)])
def test_acas_networks_agree(name, redy_data, tmp_path):
    agrees(redy_data(f"acasxu/ACASXU_run2a_{name}.onnx"), tmp_path)


def test_acas_networks_become_plain_layers(redy_data):
    network = read_network(redy_data("acasxu/ACASXU_run2a_1_1.onnx"))
    assert [type(node).__name__ for node in network] == ["Affine", "Activate"] * 6 + ["Affine"]
    assert (network.parameters, network.macs, network.units) == (13_305, 13_000, 300)
    assert [node.name for node in network.activations] == [f"relu_{i}" for i in range(1, 7)]
