"""Runs two models in onnxruntime on the same inputs and measures how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime

from .cost import sample

Feed = dict[str, np.ndarray]


def session(model: onnx.ModelProto, *, plain: bool = False) -> ort.InferenceSession:
    """A single-threaded CPU session; `plain` switches the optimiser off."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def runner(model: onnx.ModelProto) -> Callable[[Feed], list[np.ndarray]]:
    """Runs the model in onnxruntime, or by the reference where that lacks an element type."""
    try:
        ready = session(model)
    except NotImplementedByRuntime:
        reference = ReferenceEvaluator(model)
        return lambda feed: list(reference.run(None, feed))
    return lambda feed: list(ready.run(None, feed))


def feeds(model: onnx.ModelProto, shapes: list[dict[str, tuple[int, ...]]], seed: int = 7) -> Iterator[Feed]:
    """Random inputs at every size, and extreme ones (zero, large, constant) at the first."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in model.graph.initializer}
    kinds = {
        v.name: np.dtype(helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type))
        for v in model.graph.input
        if v.name not in stored
    }
    for sizes in shapes:
        yield {n: sample(sizes[n], k, rng) for n, k in kinds.items()}
    first = shapes[0]
    yield {n: sample(first[n], k, rng, 30.0) for n, k in kinds.items()}
    yield {n: np.zeros(first[n], k) for n, k in kinds.items()}
    yield {n: np.full(first[n], 1, k) for n, k in kinds.items()}


def relative_error(before: onnx.ModelProto, after: onnx.ModelProto, shapes: list[dict[str, tuple[int, ...]]]) -> float:
    """Largest |a - b| / max|a| over all outputs and inputs; inf if NaNs or shapes differ."""
    old, new = runner(before), runner(after)
    worst = 0.0
    for feed in feeds(before, shapes):
        for a, b in zip(old(feed), new(feed), strict=True):
            worst = max(worst, _distance(np.asarray(a), np.asarray(b)))
    return worst


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.size == 0:
        return 0.0
    left, right = a.astype(np.float64), b.astype(np.float64)
    odd = ~np.isfinite(left)
    if (odd != ~np.isfinite(right)).any() or not np.array_equal(left[odd], right[odd], equal_nan=True):
        return float("inf")
    if odd.all():
        return 0.0
    scale = max(float(np.abs(left[~odd]).max()), 1e-12)
    return float(np.abs(left[~odd] - right[~odd]).max()) / scale
