"""Files: what is refused and how, types, external data, batch axes, and atomic writing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model_of, node, reference

from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model, write_network

RNG = np.random.default_rng(3)


def perceptron(kind=TensorProto.FLOAT, dtype=np.float32, shape=("N", 4)):
    weights = {"w": RNG.normal(size=(4, 3)).astype(dtype), "b": RNG.normal(size=3).astype(dtype)}
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "z"), node("Relu", "z")]
    return model_of(nodes, shape, weights, kind=kind)


def refusal(source):
    with pytest.raises(InputError) as caught:
        read_network(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"not a network at all", "not an ONNX"), (b"\x00" * 40, "not an ONNX")]
)
def test_files_that_are_not_onnx_are_refused_by_name(tmp_path, content, word):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    text = refusal(path)
    assert "broken.onnx" in text
    assert word in text


def test_every_truncation_is_refused_or_read_in_one_piece(tmp_path):
    data = perceptron().SerializeToString()
    whole = read_network(onnx.load_from_string(data))
    path = tmp_path / "cut.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            cut = read_network(path)
        except InputError as error:
            assert "cut.onnx" in str(error)  # noqa: PT017 - both ends are checked
        else:
            x = RNG.normal(size=(2, 4))
            np.testing.assert_array_equal(cut.evaluate(x), whole.evaluate(x))


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "nowhere.onnx" in refusal(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["w", "b"])
def test_weights_that_are_not_finite_are_refused_with_their_node(value, place):
    model = perceptron()
    for tensor in model.graph.initializer:
        if tensor.name == place:
            array = numpy_helper.to_array(tensor).copy()
            array.flat[1] = value
            tensor.CopyFrom(numpy_helper.from_array(array, place))
    text = refusal(model)
    assert "NaN or infinite" in text
    assert ("MatMul" if place == "w" else "Add") in text


def test_open_inner_dimensions_are_refused():
    assert "axis 1" in refusal(perceptron(shape=("N", "features")))


def test_an_unknown_operator_is_named():
    unknown = helper.make_node("Magic", ["x"], ["y"], name="spell", domain="org.example")
    model = model_of([unknown], ("N", 2))
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    text = refusal(model)
    assert "Magic" in text
    assert "spell" in text


def test_mixing_the_samples_of_a_batch_is_refused():
    assert "Softmax node 'z'" in refusal(
        model_of([node("Softmax", "x", "z", axis=0), node("ReduceSum", "z")], ("N", 3))
    )


def test_initializers_may_be_listed_as_inputs():
    model = perceptron()
    plain = read_network(model)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    x = RNG.normal(size=(5, 4))
    np.testing.assert_array_equal(read_network(model).evaluate(x), plain.evaluate(x))


def test_external_data_are_read(tmp_path):
    model = perceptron()
    expected = read_network(model)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    x = RNG.normal(size=(5, 4))
    np.testing.assert_array_equal(read_network(tmp_path / "m.onnx").evaluate(x), expected.evaluate(x))
    (tmp_path / "weights.bin").unlink()
    assert "m.onnx" in refusal(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("kind", "dtype", "name", "error"),
    [
        (TensorProto.FLOAT, np.float32, "float32", 1e-6),
        (TensorProto.DOUBLE, np.float64, "float64", 1e-14),
        (TensorProto.FLOAT16, np.float16, "float16", 5e-3),
    ],
)
def test_element_types_are_kept(kind, dtype, name, error):
    model = perceptron(kind, dtype)
    network = read_network(model)
    written = to_model(network)
    assert network.weight_dtype == name
    assert network.input.dtype == network.outputs[0].dtype == name
    assert written.graph.input[0].type.tensor_type.elem_type == kind
    assert written.graph.output[0].type.tensor_type.elem_type == kind
    assert {tensor.data_type for tensor in written.graph.initializer} == {kind}
    x = RNG.normal(size=(5, 4)).astype(dtype)
    np.testing.assert_allclose(Session(written).run(x), reference(model, x)[0], rtol=error, atol=error)
    np.testing.assert_allclose(network.evaluate(x), reference(model, x)[0], rtol=error, atol=error)


def test_bfloat16_weights_are_read_exactly():
    exact = np.array([[1.5, -2.0], [0.25, 3.0]], dtype=np.float32)
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [2, 2], exact.ravel().tolist())
    model = model_of([node("MatMul", "x w")], ("N", 2), kind=TensorProto.BFLOAT16)
    model.graph.initializer.append(weight)
    network = read_network(model)
    np.testing.assert_array_equal(network.evaluate(np.eye(2)), exact)
    assert to_model(network).graph.input[0].type.tensor_type.elem_type == TensorProto.BFLOAT16


@pytest.mark.parametrize("batch", ["N", "batch_size", 1])
def test_names_shapes_and_batch_axis_are_kept(batch):
    model = perceptron(shape=(batch, 4))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    written = to_model(read_network(model), {"redy.version": "1", "note": "ü"})
    (given,), (made,) = model.graph.input, written.graph.input
    assert given.SerializeToString() == made.SerializeToString()
    out = written.graph.output[0].type.tensor_type.shape.dim
    assert (out[0].dim_param or out[0].dim_value) == batch
    assert out[1].dim_value == 3
    assert {entry.key: entry.value for entry in written.metadata_props} == {"redy.version": "1", "note": "ü"}


def test_activations_are_named_after_their_tensors():
    network = read_network(perceptron())
    assert [node.name for node in network.activations] == ["y"]
    assert [node.name for node in network] == ["z", "y"]


def test_outputs_in_the_middle_and_constant_outputs():
    nodes = [node("Relu", "x", "r"), node("Neg", "r", "n"), node("Identity", "c", "k"), node("Relu", "r", "y")]
    model = model_of(nodes, (1, 3), {"c": np.array([[1, 2.5]], "f")}, outputs=("r", "n", "k", "y"))
    network = read_network(model)
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    for run in (
        lambda: Session(to_model(network)).run_all(x),
        lambda: [network.trace(x)[p.name] for p in network.outputs],
    ):
        r, n, k, y = run()
        np.testing.assert_array_equal(r, np.maximum(x, 0))
        np.testing.assert_array_equal(n, -np.maximum(x, 0))
        np.testing.assert_array_equal(k, [[1, 2.5]] * 4)
        np.testing.assert_array_equal(y, r)


def test_integer_outputs_are_carried():
    model = model_of(
        [node("Relu", "x", "r"), node("ArgMax", "r", axis=1, keepdims=0)], ("N", 3), out_kind=TensorProto.INT64
    )
    network = read_network(model)
    written = to_model(network)
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    np.testing.assert_array_equal(network.evaluate(x), reference(model, x)[0])
    np.testing.assert_array_equal(Session(written).run(x), reference(model, x)[0])
    assert written.graph.output[0].type.tensor_type.elem_type == TensorProto.INT64


def test_a_failed_write_leaves_the_file_alone(tmp_path):
    path = tmp_path / "kept.onnx"
    write_network(read_network(perceptron()), path)
    before = path.read_bytes()
    large = perceptron(TensorProto.FLOAT16, np.float16)
    network = read_network(large)
    object.__setattr__(network.nodes[0], "bias", network.nodes[0].bias + 1e6)
    with pytest.raises(InputError, match="too large for float16"):
        write_network(network, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.onnx"]


def test_writing_is_deterministic(tmp_path):
    network = read_network(perceptron())
    write_network(network, tmp_path / "a.onnx", metadata={"b": "1", "a": "2"})
    write_network(network, tmp_path / "b.onnx", metadata={"b": "1", "a": "2"})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
