"""The self-check: is the result a valid model, and does it compute what the original computes?

Both models run in onnxruntime on the same inputs: seeded normal ones, zeros, and extreme ones, in several sizes where
dimensions are dynamic. Sizes and inputs that the original itself refuses, or answers with infinities, say nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from redy.simplify.graph import STANDARD_DOMAINS

Feeds = dict[str, np.ndarray]

BATCHES = (1, 3)
SIZES = (32, 33, 17, 64, 8, 224)
_USEFUL_SIZES = 3
_BIG = 32_000_000
"""Bytes from which on a model goes to onnxruntime by a file, which it maps into memory rather than copy it twice."""
_TOO_BIG_FOR_ONE_MESSAGE = 1_900_000_000
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_NOISE_FACTOR = 20.0


@dataclass(frozen=True)
class Deviation:
    """Largest deviation seen, relative to the largest magnitude of the output; `failed` when it is beyond rounding."""

    failed: bool
    text: str
    relative: float = 0.0
    runs: int = 0


def compare(original: onnx.ModelProto, result: onnx.ModelProto, seed: int) -> Deviation:
    """Check `result` (validity, shapes, interface) and compare it with `original` on inputs of several sizes."""
    invalid = _invalid(original, result)
    if invalid:
        return Deviation(True, invalid)
    try:
        wanted, kinds = _expected(original, seed)
    except Exception as error:  # noqa: BLE001 - a model that onnxruntime cannot run can still be simplified
        return Deviation(False, f"not compared: onnxruntime cannot run the original ({_line(error)})")
    try:
        second = session(result)
    except Exception as error:  # noqa: BLE001 - onnxruntime and onnx raise kinds of their own
        return Deviation(True, f"onnxruntime cannot run the result ({_line(error)})")
    worst, runs = 0.0, 0
    for feeds, expected in wanted:
        got = run(second, feeds)
        if got is None:
            return Deviation(True, f"onnxruntime cannot run the result on inputs of {_sizes(feeds)}")
        runs += 1
        for (name, kind), e, g in zip(kinds, expected, got, strict=True):
            if np.shape(e) != np.shape(g) or np.asarray(e).dtype != np.asarray(g).dtype:
                return Deviation(True, f"output {name} has another shape or type on inputs of {_sizes(feeds)}")
            relative = _relative(np.asarray(e), np.asarray(g))
            if relative > _limit(kind) and relative > _NOISE_FACTOR * _noise(original, feeds, expected):
                text = f"output {name} differs by {relative:.1e} of its magnitude on inputs of {_sizes(feeds)}"
                return Deviation(True, text, relative, runs)
            worst = max(worst, relative)
    return Deviation(False, f"largest deviation {worst:.1e} over {runs} runs", worst, runs)


def _expected(
    original: onnx.ModelProto, seed: int
) -> tuple[list[tuple[Feeds, list[np.ndarray]]], list[tuple[str, str]]]:
    """Inputs and what the original makes of them where that is finite, and names and types of its outputs.

    The session ends here: two big models need not be in memory at once.
    """
    one = session(original)
    results = [(feeds, expected) for feeds in inputs(one, seed) if (expected := run(one, feeds)) is not None]
    finite = [(feeds, expected) for feeds, expected in results if not any(_overflows(e) for e in expected)]
    return finite, [(output.name, output.type) for output in one.get_outputs()]


def session(model: onnx.ModelProto, *, optimise: bool = True, threads: int = 0) -> ort.InferenceSession:
    """An onnxruntime session; big models go through a temporary folder."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if sum(len(t.raw_data) for t in model.graph.initializer) < _BIG:
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(ir.from_proto(model), path, external_data="weights.bin")
        return ort.InferenceSession(str(path), options, providers=providers)


def inputs(
    model: ort.InferenceSession, seed: int, sizes: Mapping[str, int] | None = None, dynamic: Sequence[int] = SIZES
) -> Iterator[Feeds]:
    """Feeds for a session: per size of dynamic axes normal inputs, and zeros and extremes for the first of them."""
    rng = np.random.default_rng(seed)
    open_axes = sorted(
        {str(d) for i in model.get_inputs() for k, d in enumerate(i.shape) if not isinstance(d, int) and k > 0}
    )
    batch = any(i.shape and not isinstance(i.shape[0], int) for i in model.get_inputs())
    choices = [(b, s) for s in (dynamic if open_axes else dynamic[:1]) for b in (BATCHES if batch else BATCHES[:1])]
    useful: set[int] = set()
    for b, s in choices:
        if len(useful) >= _USEFUL_SIZES and s not in useful:
            return
        shapes = [_shape(i.shape, b, s, sizes or {}) for i in model.get_inputs()]
        feeds = {i.name: _draw(rng, i.type, shape, 1.0) for i, shape in zip(model.get_inputs(), shapes, strict=True)}
        if open_axes and run(model, feeds) is None:
            continue
        first = not useful
        useful.add(s)
        yield feeds
        if first and b == BATCHES[0]:
            for scale in (0.0, 30.0, -1000.0):
                yield {
                    i.name: _draw(rng, i.type, shape, scale)
                    for i, shape in zip(model.get_inputs(), shapes, strict=True)
                }


def _invalid(original: onnx.ModelProto, result: onnx.ModelProto) -> str | None:
    for ours, theirs, what in (
        (result.graph.output, original.graph.output, "outputs"),
        (_real_inputs(result), _real_inputs(original), "inputs"),
    ):
        if [v.SerializeToString() for v in ours] != [v.SerializeToString() for v in theirs]:
            return f"the {what} of the result are not those of the original"
    ours_opsets, their_opsets = _opsets(result), _opsets(original)
    if any(their_opsets.get(domain) != version for domain, version in ours_opsets.items()):
        return "the opsets of the result are not those of the original"
    if sum(len(t.raw_data) for t in result.graph.initializer) >= _TOO_BIG_FOR_ONE_MESSAGE:
        return None  # onnxruntime checks it from a file
    try:
        onnx.checker.check_model(result)
        onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=False)
    except Exception as error:  # noqa: BLE001 - onnxruntime and onnx raise kinds of their own
        return f"the result is not a valid model ({_line(error)})" if valid(original) else None
    return None


def valid(model: onnx.ModelProto) -> bool:
    """Whether onnx accepts the model; what was not valid before cannot be expected to be so afterwards."""
    try:
        onnx.checker.check_model(model)
    except Exception:  # noqa: BLE001 - onnx raises kinds of its own
        return False
    return True


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Version by domain; the standard domain may be left out, empty or spelled "ai.onnx"."""
    return {"" if entry.domain in STANDARD_DOMAINS else entry.domain: entry.version for entry in model.opset_import}


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in weights]


def _shape(shape: list[int | str | None], batch: int, size: int, sizes: Mapping[str, int]) -> list[int]:
    return [d if isinstance(d, int) else sizes.get(str(d), batch if k == 0 else size) for k, d in enumerate(shape)]


def _draw(rng: np.random.Generator, kind: str, shape: list[int], scale: float) -> np.ndarray:
    name = kind.removeprefix("tensor(").removesuffix(")")
    if name in ("float", "double", "float16", "bfloat16"):
        x = rng.standard_normal(shape) * scale
        dtype = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[name]
        return x.astype(dtype)
    if name == "bool":
        return rng.random(shape) < 0.5
    if name.startswith(("int", "uint")):
        return rng.integers(0, 2 if scale == 0 else 4, shape).astype(name)
    return np.zeros(shape, dtype=object)


def run(model: ort.InferenceSession, feeds: Feeds) -> list[np.ndarray] | None:
    """The outputs in order, None where the model does not run on these inputs."""
    try:
        return list(model.run(None, feeds))
    except Exception:  # noqa: BLE001 - onnxruntime raises its own kinds; to the caller only whether it ran matters
        return None


def _overflows(value: object) -> bool:
    array = np.asarray(value)
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def _relative(expected: np.ndarray, got: np.ndarray) -> float:
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind not in "fV":
        return (
            0.0 if np.mean(expected != got) <= 0.01 else 1.0
        )  # an argmax may flip where two are equal but for rounding
    e, g = expected.astype(np.float64), got.astype(np.float64)
    if not np.isfinite(g).all():
        return float("inf")
    scale = float(np.abs(e).max())
    difference = float(np.abs(e - g).max())
    return difference / max(scale, 1e-30) if difference else 0.0


def _limit(kind: str) -> float:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return _TOLERANCE.get({"float": "float32", "double": "float64"}.get(name, name), 0.0)


def _noise(model: onnx.ModelProto, feeds: Feeds, expected: list[np.ndarray]) -> float:
    """How far the original is from itself in another order of summation and with inputs one rounding away."""
    try:
        plain = session(model, optimise=False)
    except Exception:  # noqa: BLE001 - onnxruntime and onnx raise kinds of their own
        return 0.0
    near = {
        n: np.nextafter(x, np.inf, dtype=x.dtype) if x.dtype in (np.float32, np.float64) else x
        for n, x in feeds.items()
    }
    other = [r for f in (feeds, near) if (r := run(plain, f)) is not None]
    return max(
        (_relative(np.asarray(e), np.asarray(o)) for r in other for e, o in zip(expected, r, strict=True)), default=0.0
    )


def _sizes(feeds: Feeds) -> str:
    return ", ".join("x".join(map(str, x.shape)) for x in feeds.values())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
