"""Models too large for one message go through external data; what cannot be followed is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from simplify.building import model, node, run

from redy.simplify import check, files, simplify

RNG = np.random.default_rng(4)


def dense() -> onnx.ModelProto:
    weights = {"w1": RNG.normal(size=(8, 16)), "b": RNG.normal(size=16), "w2": RNG.normal(size=(16, 4))}
    weights["w1"][:, 3:7] = 0
    nodes = [node("Gemm", "x w1 b", "a"), node("Sigmoid", "a", "c"), node("MatMul", "c w2", "y")]
    return model(nodes, ("n", 8), {"y": ("n", 4)}, weights)


def test_large_models_go_through_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGEST_MESSAGE", 100)
    monkeypatch.setattr(check, "_TOO_BIG_FOR_ONE_MESSAGE", 100)
    made = dense()
    files.save(made, tmp_path / "in.onnx")
    assert (tmp_path / "in.onnx.data").exists()
    result = simplify(files.load(tmp_path / "in.onnx"))
    files.save(result.model, tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "in.onnx.data", "out.onnx", "out.onnx.data"]
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(run(files.load(tmp_path / "out.onnx"), x)[0], run(made, x)[0], atol=1e-5)
    assert result.report.after.parameters == 8 * 12 + 12 + 12 * 4 + 4


def test_sparse_initializers_are_left_alone() -> None:
    made = dense()
    values = numpy_helper.from_array(np.ones(2, np.float32), "s")
    indices = numpy_helper.from_array(np.array([0, 3]), "s_indices")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    result = simplify(made)
    assert result.model is made
    assert result.report.refused


def test_types_without_a_kernel_are_simplified_all_the_same() -> None:
    made = dense()
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor)
        half = helper.make_tensor(tensor.name, onnx.TensorProto.BFLOAT16, array.shape, array.ravel())
        tensor.CopyFrom(half)
    for value in [*made.graph.input, *made.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    result = simplify(made)
    onnx.checker.check_model(result.model, full_check=True)
    assert {t.data_type for t in result.model.graph.initializer} == {onnx.TensorProto.BFLOAT16}
    assert list(result.model.graph.initializer[0].dims) == [8, 12]
    assert "not compared" in result.report.deviation.text


def test_a_valid_model_that_cannot_be_represented_is_left_alone() -> None:
    """An output that is a sequence of maps, as classifiers of scikit-learn have it."""
    label = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    )
    out = helper.make_value_info("y", kind)
    zipped = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    graph = helper.make_graph([zipped], "g", [label], [out])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
    onnx.checker.check_model(made)
    found = simplify(made)
    assert found.model is made
    assert found.report.refused
