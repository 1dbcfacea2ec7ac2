"""Label heads of classifiers: carried behind whatever the numbers in front of them become."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import redy
from redy.bounds.difference import difference_bounds
from redy.cli.main import run
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.formats.onnx_write import to_model
from redy.formats.reading.head import join_head, split_head
from redy.model import Box

CLASSES = 3


def classifier(head: str, *, strings: bool = False) -> onnx.ModelProto:
    """4 inputs, 12 ReLUs of which half are dead near 0, 3 scores, and a head in the spelling of skl2onnx."""
    rng = np.random.default_rng(0)
    bias = np.where(np.arange(12) % 2, 5.0, -5.0).astype(np.float32)
    classes = np.array(["a", "b", "c"]) if strings else np.array([4, 7, 9], dtype=np.int32)
    weights = {"w": rng.normal(size=(4, 12)), "v": rng.normal(size=(12, CLASSES)), "c": np.zeros(CLASSES)}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors += [numpy_helper.from_array(bias, "b"), helper.make_tensor("shape", TensorProto.INT64, [1], [-1])]
    kind = TensorProto.STRING if strings else TensorProto.INT32
    tensors.append(helper.make_tensor("classes", kind, [CLASSES], [c.encode() if strings else int(c) for c in classes]))
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="Gemm"),
        helper.make_node("Relu", ["z"], ["a"], name="Relu"),
        helper.make_node("Gemm", ["a", "v", "c"], ["scores"], name="Gemm1"),
        helper.make_node("ArgMax", ["scores"], ["best"], name="ArgMax", axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "best"], ["picked"], name="pick", domain="ai.onnx.ml"),
        helper.make_node("Reshape", ["picked", "shape"], ["flat"], name="Reshape"),
    ]
    label = TensorProto.STRING if strings else TensorProto.INT64
    nodes.append(helper.make_node("Cast", ["flat"], ["label"], name="Cast", to=label))
    outputs = [helper.make_tensor_value_info("label", label, ["n"])]
    if head == "zipmap":
        words = {"classlabels_strings": list(classes)} if strings else {"classlabels_int64s": [4, 7, 9]}
        nodes.append(helper.make_node("ZipMap", ["scores"], ["maps"], name="ZipMap", domain="ai.onnx.ml", **words))
        of = helper.make_map_type_proto(label, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("maps", helper.make_sequence_type_proto(of)))
    elif head == "scores":
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])], outputs, tensors
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def results(model: onnx.ModelProto, x: np.ndarray) -> list[list[object]]:
    """Every output in onnxruntime, as lists."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [list(np.asarray(found)) if not isinstance(found, list) else found for found in session.run(None, {"x": x})]


HEADS = [(head, strings) for head in ("label", "scores", "zipmap") for strings in (False, True)]


@pytest.mark.parametrize(("head", "strings"), HEADS)
def test_a_head_is_read_and_written_as_it_is(head, strings):
    model = classifier(head, strings=strings)
    network = read_network(model)
    assert [port.name for port in network.outputs] == ["scores"]
    written = to_model(network)
    assert [o.name for o in written.graph.output] == [o.name for o in model.graph.output]
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    before, after = results(model, x), results(written, x)
    assert before[0] == after[0]
    assert (Session(model).run(x) == Session(written).run(x)).all()
    assert redy.model.digest.network_digest(read_network(written)) == redy.model.digest.network_digest(network)


@pytest.mark.parametrize(("head", "strings"), HEADS)
def test_a_reduction_carries_the_head(head, strings, tmp_path):
    model = classifier(head, strings=strings)
    onnx.save(model, tmp_path / "net.onnx")
    files = [str(tmp_path / "net.onnx"), str(tmp_path / "small.onnx")]
    asked = ["reduce", files[0], "--bounds", "[-0.5,0.5]", "-o", files[1], "--quiet", "--effort", "quick"]
    assert run(asked) == 0
    small = onnx.load(files[1])
    assert read_network(small).units == 0
    assert run(["verify", *files, "--quiet"]) == 0
    x = np.random.default_rng(2).uniform(-0.5, 0.5, (200, 4)).astype(np.float32)
    scores = np.sort(Session(files[0]).run(x), axis=1)
    clear = scores[:, -1] - scores[:, -2] > 1e-4
    before, after = results(model, x), results(small, x)
    assert [a for a, c in zip(before[0], clear, strict=True) if c] == [
        a for a, c in zip(after[0], clear, strict=True) if c
    ]
    assert len(before) == len(after)


def test_names_that_both_parts_use_stay_apart():
    model = classifier("scores")
    core, head = split_head(model)
    core.graph.initializer.append(numpy_helper.from_array(np.ones(1, dtype=np.float32), "classes"))
    joined = join_head(core, head)
    names = [tensor.name for tensor in joined.graph.initializer]
    assert len(names) == len(set(names))
    x = np.zeros((2, 4), dtype=np.float32)
    assert results(joined, x)[0] == results(model, x)[0]


def test_a_model_without_labels_is_left_alone():
    model = to_model(read_network(classifier("scores")))
    core, head = split_head(split_head(model)[0])
    assert head == b""
    assert [o.name for o in core.graph.output] == ["scores"]


@pytest.mark.parametrize("name", ["cancer_pipe", "digits_clf", "digits_clf_zipmap"])
def test_published_classifiers_keep_their_labels(redy_data, name):
    model = onnx.load(redy_data(f"cases/sklearn/{name}.onnx"))
    network = read_network(model)
    port = model.graph.input[0].name
    x = np.random.default_rng(0).uniform(0, 16, (50, *network.input.shape)).astype(np.float32)
    first, second = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (model, to_model(network))
    )
    assert (first.run(None, {port: x})[0] == second.run(None, {port: x})[0]).all()


def test_a_published_classifier_behind_softmax_is_reduced_and_verified(redy_data, tmp_path):
    model, box = redy_data("cases/sklearn/digits_clf.onnx"), redy_data("cases/sklearn/digits.box.json")
    small = tmp_path / "small.onnx"
    asked = ["reduce", str(model), "--bounds", str(box), "-o", str(small), "--quiet", "--effort", "quick"]
    assert run(asked) == 0
    first, second = read_network(model), read_network(small)
    assert second.units < first.units
    assert run(["verify", str(model), str(small), "--quiet"]) == 0
    x = redy.read_box(box, first.input).sample(500, np.random.default_rng(0))
    assert np.abs(first.evaluate(x) - second.evaluate(x)).max() <= 1e-6


@pytest.mark.parametrize("operator", ["Softmax", "Sin", "Cos", "Atan", "Asinh"])
def test_carried_nodes_of_two_files_are_equal_whatever_names_they_have(operator):
    def model(prefix: str, bias: float) -> onnx.ModelProto:
        rng = np.random.default_rng(0)
        weights = [numpy_helper.from_array(rng.normal(size=(3, 3)).astype(np.float32), f"{prefix}w")]
        weights.append(numpy_helper.from_array(np.full(3, bias, dtype=np.float32), f"{prefix}b"))
        nodes = [helper.make_node("Gemm", ["x", f"{prefix}w", f"{prefix}b"], [f"{prefix}z"], name=f"{prefix}1")]
        nodes.append(helper.make_node(operator, [f"{prefix}z"], ["y"], name=f"{prefix}2"))
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
        graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    first, second = read_network(model("a", 0.0)), read_network(model("b", 1e-3))
    box = Box(-np.ones(3), np.ones(3))
    lower, upper = difference_bounds(first, second, box, {})
    assert np.isfinite(lower).all()
    assert (upper - lower).max() <= 2.1e-3
    x = box.sample(1000, np.random.default_rng(1))
    apart = second.evaluate(x) - first.evaluate(x)
    assert ((lower - 1e-12 <= apart) & (apart <= upper + 1e-12)).all()
