"""Whatever the graph and whatever is zeroed in it: the result is valid, equal, and no larger."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as state
from simplify.random_graphs import RandomGraph

from redy.simplify import simplify
from redy.simplify.check import session

SEEDS = range(60)


def outputs(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return list(session(model, threads=1).run(None, {"input": x}))


def assert_equal(model: onnx.ModelProto, small: onnx.ModelProto, x: np.ndarray) -> None:
    for a, b in zip(outputs(model, x), outputs(small, x), strict=True):
        assert a.shape == b.shape
        scale = max(float(np.abs(a).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(b, a, atol=2e-5 * scale, rtol=0)


def check_seed(seed: int, *, dynamic: bool) -> None:
    graph = RandomGraph(seed, dynamic=dynamic)
    model = graph.model(4 + seed % 14)
    result = simplify(model, check=False)
    assert not any("internal" in reason for reason in result.report.refused)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.report.after.parameters <= result.report.before.parameters
    assert result.report.after.multiply_adds <= result.report.before.multiply_adds
    assert list(result.model.graph.output) == list(model.graph.output)
    rng = np.random.default_rng(seed)
    sizes = [graph.size, (7, 12), (11, 10)] if dynamic else [graph.size]
    for size in sizes:
        x = rng.normal(size=(2, graph.channels, *size)).astype(np.float32)
        try:
            outputs(model, x)
        except (state.RuntimeException, state.InvalidArgument, state.Fail):
            continue  # the original has no answer at this size
        assert_equal(model, result.model, x)


@pytest.mark.parametrize("seed", SEEDS)
def test_static_graphs(seed: int) -> None:
    check_seed(seed, dynamic=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_dynamic_graphs(seed: int) -> None:
    check_seed(1000 + seed, dynamic=True)
