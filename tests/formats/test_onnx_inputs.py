"""Inputs: several as one, whole numbers, sizes that the file leaves open, and compressed models."""

from __future__ import annotations

import gzip
import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from onnx_models import model_of, node

from redy.cli.main import redy
from redy.errors import InputError
from redy.formats.boxes import read_box
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model, write_network

RNG = np.random.default_rng(11)


def two_inputs(first=("N", 2), second=("N", 3), kind=TensorProto.FLOAT):
    weights = {"w": RNG.normal(size=(2, 4)).astype(np.float32), "v": RNG.normal(size=(3, 4)).astype(np.float32)}
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "x2 v", "b"), node("Add", "a b", "c"), node("Relu", "c")]
    model = model_of(nodes, first, weights, kind=kind)
    model.graph.input.append(helper.make_tensor_value_info("x2", kind, second))
    return model


@pytest.mark.parametrize(("first", "second"), [(("N", 2), ("M", 3)), ((1, 2), (1, 3)), ((2,), (3,)), ((1, 2), (3,))])
def test_several_inputs_are_one_and_are_written_as_several(first, second):
    model = two_inputs(first, second)
    network = read_network(model)
    assert network.input.shape == (5,)
    assert [part.name for part in network.input.parts] == ["x", "x2"]
    x = RNG.normal(size=(7, 5))
    found = Session(model).run(x).reshape(7, -1)
    np.testing.assert_allclose(network.evaluate(x).reshape(7, -1), found, atol=1e-5)
    written = to_model(network)
    assert [info.name for info in written.graph.input] == ["x", "x2"]
    assert "Concat" in {n.op_type for n in written.graph.node} or len(written.graph.node) <= len(model.graph.node) + 3
    np.testing.assert_allclose(Session(written).run(x).reshape(7, -1), found, atol=1e-5)
    again = read_network(written)
    np.testing.assert_allclose(again.evaluate(x), network.evaluate(x), atol=1e-5)


def test_an_open_and_a_fixed_batch_do_not_go_together():
    with pytest.raises(InputError, match="give the shape of 'x' with --shape"):
        read_network(two_inputs(("N", 2), (1, 3)))
    assert read_network(two_inputs(("N", 2), (1, 3)), {"x": (1, 2)}).input.batch == 1


def test_a_box_by_the_names_of_the_inputs():
    port = read_network(two_inputs()).input
    text = json.dumps({"x2": {"center": [0, 1, 2], "radius": 0.5}, "x": [-1, 1]})
    box = read_box(text, port)
    assert (box.lower.tolist(), box.upper.tolist()) == ([-1, -1, -0.5, 0.5, 1.5], [1, 1, 0.5, 1.5, 2.5])
    assert read_box("[0,2]", port).upper.tolist() == [2] * 5
    for wrong, told in [
        ({"x": [-1, 1]}, "gives no box for input 'x2'"),
        ({"x": [-1, 1], "x2": [0, 1], "z": [0, 1]}, "no input is called 'z'; the inputs are x, x2"),
        ({"x": [-1, 1], "x2": [1, 0]}, "input x2: element 0: lower bound 1.0 is above"),
    ]:
        with pytest.raises(InputError, match=told):
            read_box(json.dumps(wrong), port)


def test_reduce_and_verify_with_several_inputs(tmp_path):
    onnx.save(two_inputs(), tmp_path / "m.onnx")
    box = json.dumps({"x": [0.5, 1], "x2": [-0.01, 0.01]})
    small = str(tmp_path / "s.onnx")
    run = CliRunner().invoke(redy, ["reduce", str(tmp_path / "m.onnx"), "--bounds", box, "-o", small, "--quiet"])
    assert run.exit_code == 0, run.output
    arguments = ["verify", str(tmp_path / "m.onnx"), small, "--bounds", box, "--tolerance", "1e-4"]
    assert CliRunner().invoke(redy, arguments).exit_code == 0
    x = read_box(box, read_network(small).input).sample(50, RNG)
    np.testing.assert_allclose(Session(small).run(x), Session(str(tmp_path / "m.onnx")).run(x), atol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64])
def test_whole_numbers_cast_to_float_are_read_as_numbers(kind):
    weights = {"w": RNG.normal(size=(3, 2)).astype(np.float32), "s": np.array([-1, 3], np.int64)}
    nodes = [node("Reshape", "x s", "r"), node("Cast", "r", "f", to=TensorProto.FLOAT), node("MatMul", "f w")]
    model = model_of(nodes, ("N", 3), weights, kind=kind, out_kind=TensorProto.FLOAT)
    network = read_network(model)
    x = RNG.integers(0, 100, (9, 3)).astype(float)
    np.testing.assert_allclose(network.evaluate(x), Session(model).run(x), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(Session(to_model(network)).run(x), Session(model).run(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["Identity", "Neg", "Abs"])
def test_arithmetic_on_whole_numbers_is_refused(kind):
    with pytest.raises(InputError, match=f"{kind} node 'y': computes with the int64 input itself; cast the input"):
        read_network(model_of([node(kind, "x")], ("N", 2), kind=TensorProto.INT64))


def convolution():
    weights = {"w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("GlobalAveragePool", "b")]
    return model_of(nodes, ("N", 3, "H", "W"), weights)


def test_open_sizes_are_given_with_shape(tmp_path):
    with pytest.raises(InputError, match=r"axis 2 \(H\).* give the sizes with --shape x=1,3,\?"):
        read_network(convolution())
    network = read_network(convolution(), {"x": (1, 3, 6, 5)})
    assert network.input.shape == (3, 6, 5)
    for wrong, told in [
        ((1, 4, 6, 5), "has the shape N,3,H,W; --shape gives 1,4,6,5"),
        ((1, 3, 6), "--shape gives 1,3,6"),
    ]:
        with pytest.raises(InputError, match=told):
            read_network(convolution(), {"x": wrong})
    with pytest.raises(InputError, match="has no input 'z' to give a shape to; its inputs are x"):
        read_network(convolution(), {"z": (1,)})
    onnx.save(convolution(), tmp_path / "m.onnx")
    arguments = ["reduce", str(tmp_path / "m.onnx"), "--bounds", "[0,1]", "--quiet", "-o", str(tmp_path / "s.onnx")]
    assert CliRunner().invoke(redy, arguments).exit_code != 0
    run = CliRunner().invoke(redy, [*arguments, "--shape", "x=1,3,6,5"])
    assert run.exit_code == 0, run.output
    arguments = [
        "verify",
        str(tmp_path / "m.onnx"),
        str(tmp_path / "s.onnx"),
        "--bounds",
        "[0,1]",
        "--tolerance",
        "1e-4",
    ]
    assert CliRunner().invoke(redy, [*arguments, "--shape", "x=1,3,6,5"]).exit_code == 0
    assert CliRunner().invoke(redy, [*arguments, "--shape", "x:1,3"]).exit_code == 2


def test_a_compressed_model(tmp_path):
    model = two_inputs((1, 2), (1, 3))
    path = tmp_path / "m.onnx.gz"
    path.write_bytes(gzip.compress(model.SerializeToString()))
    x = RNG.normal(size=(3, 5))
    np.testing.assert_allclose(read_network(path).evaluate(x), Session(path).run(x), atol=1e-5)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"m\.onnx\.gz: is compressed but damaged or cut short"):
        read_network(path)


def test_an_input_with_a_value_in_the_file_is_a_constant(tmp_path):
    model = two_inputs(second=(3,))
    value = np.array([1.0, 2.0, 3.0], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "x2"))
    network = read_network(model)
    assert network.input.name == "x"
    x = RNG.normal(size=(4, 2))
    np.testing.assert_allclose(network.evaluate(x), Session(model).run(x), atol=1e-5)
    write_network(network, tmp_path / "s.onnx")
    np.testing.assert_allclose(Session(tmp_path / "s.onnx").run(x), Session(model).run(x), atol=1e-5)
