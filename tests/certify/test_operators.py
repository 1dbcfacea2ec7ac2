"""Every operator of the checker against onnxruntime: on a point its rows are the outputs, on a box they bound them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from redy.certify import Unusable
from redy.certify.graph import Graph
from redy.certify.networks import Walker
from redy.certify.space import Space

RNG = np.random.default_rng(7)
TYPES = {np.float16: TensorProto.FLOAT16, np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}


def normal(*shape):
    return RNG.normal(size=shape)


def ints(*values):
    return np.array(values, np.int64)


IMAGE, VECTOR = (1, 4, 6, 5), (1, 6)
CASES = {
    "gemm": (VECTOR, "Gemm", [normal(6, 3), normal(3)], {"alpha": 0.5, "beta": 2.0}),
    "gemm transposed": (VECTOR, "Gemm", [normal(3, 6), normal(1, 3)], {"transB": 1}),
    "matmul": (VECTOR, "MatMul", [normal(6, 2)], {}),
    "matmul of a stack": ((1, 3, 6), "MatMul", [normal(1, 6, 2)], {}),
    "add": (VECTOR, "Add", [normal(6)], {}),
    "sub": (VECTOR, "Sub", [normal(1, 6)], {}),
    "mul": (IMAGE, "Mul", [normal(4, 1, 1)], {}),
    "div": (VECTOR, "Div", [normal(6) + 3], {}),
    "conv": (IMAGE, "Conv", [normal(6, 4, 3, 3), normal(6)], {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    "conv in groups": (IMAGE, "Conv", [normal(4, 2, 2, 2)], {"group": 2, "dilations": [2, 2]}),
    "conv by channel": (IMAGE, "Conv", [normal(8, 1, 3, 2)], {"group": 4, "dilations": [1, 2], "pads": [1, 1, 1, 1]}),
    "conv same upper": (IMAGE, "Conv", [normal(2, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv same lower": (IMAGE, "Conv", [normal(2, 4, 3, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "conv of a row": ((1, 2, 9), "Conv", [normal(3, 2, 4), normal(3)], {"strides": [2], "pads": [1, 2]}),
    "batch norm": (IMAGE, "BatchNormalization", [normal(4), normal(4), normal(4), normal(4) ** 2], {"epsilon": 1e-3}),
    "pool": (IMAGE, "AveragePool", [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]}),
    "pool with padding": (
        IMAGE,
        "AveragePool",
        [],
        {"kernel_shape": [2, 2], "pads": [1, 1, 0, 1], "count_include_pad": 1},
    ),
    "relu": (VECTOR, "Relu", [], {}),
    "leaky": (VECTOR, "LeakyRelu", [], {"alpha": 0.2}),
    "prelu": (IMAGE, "PRelu", [normal(4, 1, 1)], {}),
    "clip": (VECTOR, "Clip", [np.array(-0.25), np.array(0.5)], {}),
    "abs": (VECTOR, "Abs", [], {}),
    "flatten": (IMAGE, "Flatten", [], {"axis": 2}),
    "flatten from behind": (IMAGE, "Flatten", [], {"axis": -1}),
    "reshape": (IMAGE, "Reshape", [ints(0, -1, 5)], {}),
    "transpose": (IMAGE, "Transpose", [], {"perm": [0, 3, 1, 2]}),
    "squeeze": ((1, 1, 6), "Squeeze", [ints(1)], {}),
    "unsqueeze": (VECTOR, "Unsqueeze", [ints(0, -1)], {}),
    "slice": (IMAGE, "Slice", [ints(-1, 1), ints(-(2**62), 100), ints(2, 3), ints(-2, 2)], {}),
    "pad": (IMAGE, "Pad", [ints(0, 0, 1, 2, 0, 1, 0, 1), np.array(0.75)], {}),
    "pad at the edge": (IMAGE, "Pad", [ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    "concat": (VECTOR, "Concat", [normal(1, 2)], {"axis": -1}),
    "expand": ((1, 1, 6), "Expand", [ints(2, 1, 3, 1)], {}),
    "gather": (IMAGE, "Gather", [ints(2, 0, -1)], {"axis": 1}),
    "tile": (VECTOR, "Tile", [ints(1, 2)], {}),
    "identity": (VECTOR, "Identity", [], {}),
}


def saved(path, shape, operator, constants, attributes, dtype=np.float32):
    """A network of one node; as many outputs as it has."""
    tensors = [
        numpy_helper.from_array(np.asarray(c) if np.asarray(c).dtype == np.int64 else np.asarray(c, dtype), f"c{k}")
        for k, c in enumerate(constants)
    ]
    node = helper.make_node(operator, ["x", *(t.name for t in tensors)], ["y"], **attributes)
    ports = [
        helper.make_tensor_value_info("x", TYPES[dtype], shape),
        helper.make_tensor_value_info("y", TYPES[dtype], None),
    ]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)


def rows(path, low, high):
    """Bounds of the outputs on a box."""
    graph, space = Graph(path), Space(low.ravel(), high.ravel())
    walker = Walker(space, Nothing(), 0.0, 0, None)
    found = walker.bounds(graph.walk(space, walker.relu))
    return np.stack(found)


class Nothing:
    """No phase is claimed."""

    def phases(self, space, rows, bounds, ask):
        return np.zeros(len(rows.e), np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_evaluated_as_onnxruntime_does(tmp_path, name):
    shape, operator, constants, attributes = CASES[name]
    path = tmp_path / "one.onnx"
    saved(path, shape, operator, constants, attributes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    center = rng.normal(size=shape).astype(np.float32)
    low, high = (center + s * np.float32(0.125) for s in (-1, 1))
    width = rows(path, low.astype(np.float64), high.astype(np.float64))
    for point in (center, low, high, *(rng.uniform(low, high).astype(np.float32) for _ in range(5))):
        truth = session.run(None, {"x": point})[0].ravel().astype(np.float64)
        lower, upper = rows(path, point.astype(np.float64), point.astype(np.float64))
        scale = 1e-5 * (1 + np.abs(truth).max())
        assert lower.shape == truth.shape
        assert (lower <= upper).all()
        assert (upper - lower).max() <= 1e-10 * (1 + np.abs(truth).max())
        assert np.abs(lower - truth).max() <= scale
        assert (width[0] - scale <= truth).all()
        assert (truth <= width[1] + scale).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_every_width_count_as_they_are(tmp_path, dtype):
    path, weights = tmp_path / "one.onnx", normal(6, 3).astype(dtype)
    saved(path, VECTOR, "MatMul", [weights], {}, dtype)
    point = np.ones(6)
    lower, upper = rows(path, point, point)
    truth = weights.astype(np.float64).sum(axis=0)
    assert np.abs(lower - truth).max() <= 1e-13
    assert np.abs(upper - truth).max() <= 1e-13


def test_split_add_and_constant_of_two_branches(tmp_path):
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array([[2.0, 0, 1]], np.float32))),
        helper.make_node("Mul", ["k", "b"], ["m"]),
        helper.make_node("Add", ["r", "m"], ["s"]),
        helper.make_node("Sub", ["s", "a"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 6), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(ints(3, 3), "sizes")])
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    point = np.array([-1.0, 2, 0, 3, 5, -7])
    lower, _ = rows(path, point, point)
    np.testing.assert_allclose(lower, np.maximum(point[:3], 0) + np.array([6, 0, -7]) - point[:3], atol=1e-12)


@pytest.mark.parametrize(
    ("operator", "constants", "attributes"),
    [
        ("Sigmoid", [], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2]}),
        ("AveragePool", [], {"kernel_shape": [2, 2], "ceil_mode": 1}),
        ("Div", [np.array([0.0])], {}),
        ("Add", [np.array([np.inf])], {}),
        ("Conv", [normal(2, 3, 1, 1)], {}),
        ("Pad", [ints(0, 0, -1, 0, 0, 0, 0, 0)], {}),
    ],
)
def test_what_cannot_be_certified_is_named(tmp_path, operator, constants, attributes):
    path = tmp_path / "one.onnx"
    saved(path, IMAGE, operator, constants, attributes)
    point = np.ones(IMAGE)
    with pytest.raises(Unusable, match=rf"cannot be certified: y \({operator}\)"):
        rows(path, point, point)
