"""What is written does not grow when others fold its constants: onnxruntime's offline optimiser, onnxsim, onnxslim."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from building import filters, model, node, run

from redy.simplify import simplify

GROWTH = 1.02
"""Names of values and the spelling of shapes may differ; a folded map is many times the size."""


def padded(opset: int, batch: int | str) -> onnx.ModelProto:
    """Three padded convolutions and a depthwise one, pruned to constants that differ at the borders."""
    rng = np.random.default_rng(0)
    weights = {"w3": rng.normal(size=(4, 32, 3, 3)) / 17}
    for i, inputs in enumerate((3, 32)):
        dead = rng.permutation(32)[:20]
        weights |= {f"w{i}": filters(rng, (32, inputs, 3, 3), dead) / np.sqrt(9 * inputs), f"b{i}": rng.normal(size=32)}
    weights["d"] = rng.normal(size=(32, 1, 3, 3)) / 3
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "x w0 b0", "c0", **same), node("Relu", "c0", "r0"),
        node("Conv", "r0 d", "c1", group=32, **same), node("Relu", "c1", "r1"),
        node("Conv", "r1 w1 b1", "c2", **same), node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "y", **same),
    ]  # fmt: skip
    return model(nodes, [batch, 3, 48, 48], {"y": [batch, 4, 48, 48]}, weights, opset=opset)


def onnxruntime_offline(made: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """By the basic level, whose result any runtime can read."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def onnxsim(made: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    return pytest.importorskip("onnxsim").simplify(made)[0]


def onnxslim(made: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    pytest.importorskip("onnxslim")
    return importlib.import_module("onnxslim").slim(made)


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize("tool", [onnxruntime_offline, onnxsim, onnxslim])
def test_border_maps_are_not_stored_whole(tool, opset: int, batch: int | str, tmp_path: Path) -> None:
    made = padded(opset, batch)
    small = simplify(made)
    assert small.report.rewrites["border_maps"] >= 2
    assert small.model.ByteSize() < made.ByteSize()
    after = tool(small.model, tmp_path)
    assert after.ByteSize() <= GROWTH * small.model.ByteSize() + 1000
    x = np.random.default_rng(1).normal(size=(1, 3, 48, 48)).astype(np.float32)
    np.testing.assert_allclose(run(after, x)[0], run(made, x)[0], atol=1e-5, rtol=1e-5)


def test_a_map_is_the_same_for_inputs_that_are_not_numbers() -> None:
    """The zero that keeps maps from being folded is a place, which the numbers of the input do not change."""
    made = padded(17, 1)
    small = simplify(made).model
    x = np.random.default_rng(1).normal(size=(1, 3, 48, 48)).astype(np.float32)
    x[0, 0, 0, 0] = np.nan
    before, after = run(made, x)[0], run(small, x)[0]
    np.testing.assert_array_equal(np.isnan(before), np.isnan(after))
    np.testing.assert_allclose(after, before, atol=1e-5, rtol=1e-5)
