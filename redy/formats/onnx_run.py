"""Running a model in onnxruntime on batches, whatever batch size its file fixes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from redy.errors import InputError
from redy.formats.files import is_compressed, load_model, read_bytes
from redy.formats.reading.head import has_head, split_head
from redy.model import Array

BATCH = 256
"""Samples run at once: onnxruntime holds the inner values of all of them."""
_FATAL_ONLY = 4


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of the model: its name, numpy type and shape, in which names stand for open sizes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]

    @property
    def batched(self) -> bool:
        """Whether the first axis is a batch: one that is open, or a 1 with others behind it."""
        if not self.shape:
            return False
        first = self.shape[0]
        return not (isinstance(first, int) and first > 0) or (first == 1 and len(self.shape) > 1)

    @property
    def sample(self) -> tuple[Any, ...]:
        """The shape without the batch axis."""
        return self.shape[1:]

    def shaped(self, values: Array) -> Array:
        """Samples of another shape with equally many elements in the input's shape; others as they are."""
        known = all(isinstance(size, int) for size in self.sample)
        if not known or values.shape[1:] == self.sample or math.prod(values.shape[1:]) != math.prod(self.sample):
            return values
        return values.reshape(len(values), *self.sample)

    def typed(self, values: Array) -> np.ndarray:
        """The values in the input's type; whole numbers are the nearest ones."""
        return np.ascontiguousarray(values if self.dtype.kind == "f" else np.rint(values)).astype(self.dtype)


class Session:
    """An onnxruntime session: (n, *input shape) -> (n, *output shape).

    A file with the batch fixed at 1 is run with its batch axis made symbolic where that gives the same results on two
    samples, else sample by sample; so is a file whose open batch takes only one.

    Attributes:
        by_sample: whether samples are run one by one.

    Raises:
        InputError: onnxruntime cannot load the model.
    """

    def __init__(self, model: ModelProto | str | os.PathLike[str], threads: int = 1) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = _FATAL_ONLY
        self._where = "the model" if isinstance(model, ModelProto) else str(model)
        model = _core(model)
        self._session = self._open(model)
        found = self._session.get_inputs()
        self._inputs = [_Input(entry.name, _numpy_type(entry.type), tuple(entry.shape)) for entry in found]
        self.output_names = tuple(str(output.name) for output in self._session.get_outputs())
        self._unbatched = any(not entry.batched for entry in self._inputs)
        self.by_sample = self._unbatched or any(entry.shape[0] == 1 for entry in self._inputs)
        if self.by_sample and not self._unbatched:
            self._open_batch(model)

    def _open(self, model: ModelProto | str | os.PathLike[str]) -> onnxruntime.InferenceSession:
        source: bytes | str = b"" if not isinstance(model, ModelProto) else model.SerializeToString()
        if not isinstance(model, ModelProto):
            path = Path(os.fspath(model))
            source = read_bytes(path, "give an ONNX model") if is_compressed(path) else str(path)
        try:
            return onnxruntime.InferenceSession(source, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base class.
            text = " ".join(str(error).split())[:300]
            raise InputError(f"{self._where}: onnxruntime cannot load it ({text})") from error

    def _open_batch(self, model: ModelProto | str | os.PathLike[str]) -> None:
        """Uses a copy with a symbolic batch axis if two samples together give what each gives alone."""
        copy = _with_symbolic_batch(model if isinstance(model, ModelProto) else load_model(Path(os.fspath(model))))
        if not all(isinstance(size, int) for entry in self._inputs for size in entry.sample):
            return
        rng = np.random.default_rng(0)
        probe = {entry.name: rng.random((2, *entry.sample)).astype(entry.dtype) for entry in self._inputs}
        try:
            batched = self._open(copy)
            together = batched.run(None, probe)
        except Exception:  # noqa: BLE001 - whatever a model that cannot take a batch raises, it is run by sample.
            return
        alone = [self._session.run(None, {name: x[i : i + 1] for name, x in probe.items()}) for i in range(2)]
        for place, found in enumerate(together):
            apart = [single[place] for single in alone]
            if found.shape != (2, *apart[0].shape[1:]) or not np.allclose(
                found, np.concatenate(apart), rtol=1e-4, atol=1e-6 * max(1.0, float(np.abs(found).max(initial=0.0)))
            ):
                return
        self._session, self.by_sample = batched, False

    def run_all(self, x: Array) -> list[np.ndarray]:
        """Every output for inputs x (n, *input shape), each (n, *output shape) in the model's own type.

        A model with several inputs takes them flattened, one after the other. At most `BATCH` samples run at once.
        """
        if len(x) > BATCH:
            parts = [self.run_all(x[begin : begin + BATCH]) for begin in range(0, len(x), BATCH)]
            return [np.concatenate(column) for column in zip(*parts, strict=True)]
        feeds = self._feeds(x)
        if not self.by_sample:
            try:
                return [np.asarray(found) for found in self._session.run(None, feeds)]
            except Exception:
                if len(x) < 2:
                    raise
                # The file says that its batch is open, but takes one sample only.
                self.by_sample = True
        rows = []
        for k in range(len(x)):
            one = {name: values[k] if self._unbatched else values[k : k + 1] for name, values in feeds.items()}
            found = self._session.run(None, {name: np.asarray(value) for name, value in one.items()})
            rows.append([row if self._unbatched or row.shape[:1] != (1,) else row[0] for row in found])
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _feeds(self, x: Array) -> dict[str, np.ndarray]:
        """The samples x, input by input, each (n, *sample shape) in the input's own type."""
        if len(self._inputs) == 1:
            entry = self._inputs[0]
            return {entry.name: entry.typed(x if self._unbatched else entry.shaped(x))}
        flat, feeds, start = x.reshape(len(x), -1), {}, 0
        for entry in self._inputs:
            shape = entry.shape if self._unbatched else entry.sample
            if not all(isinstance(size, int) for size in shape):
                raise InputError(f"{self._where}: input {entry.name!r} has an open size; give it with --shape")
            size = math.prod(shape)
            feeds[entry.name] = entry.typed(flat[:, start : start + size].reshape(len(x), *shape))
            start += size
        return feeds

    def run(self, x: Array) -> np.ndarray:
        """The first output for inputs x (n, *input shape), as (n, *output shape)."""
        return self.run_all(x)[0]


def _core(model: ModelProto | str | os.PathLike[str]) -> ModelProto | str | os.PathLike[str]:
    """The model without its label head: what is run are numbers."""
    if isinstance(model, ModelProto):
        return split_head(model)[0] if has_head(model) else model
    path = Path(os.fspath(model))
    try:
        light = load_model(path) if is_compressed(path) else onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - onnxruntime says better what is wrong with the file
        return model
    return split_head(load_model(path))[0] if has_head(light) else model


def _with_symbolic_batch(model: ModelProto) -> ModelProto:
    """A copy whose inputs' and outputs' first axis is symbolic and whose stated inner shapes are gone."""
    copy = ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name for tensor in copy.graph.initializer}
    del copy.graph.value_info[:]
    for info in [*copy.graph.input, *copy.graph.output]:
        dims = info.type.tensor_type.shape.dim
        if info.name not in weights and len(dims) and dims[0].dim_value == 1:
            dims[0].dim_param = "batch"
    return copy


def _numpy_type(name: str) -> np.dtype[Any]:
    """The numpy type of an onnxruntime type such as "tensor(float)"."""
    kinds = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
    kinds |= {f"tensor({kind})": kind for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")}
    if name not in kinds:
        raise InputError(f"an input of type {name} cannot be given as a numpy array; convert the model to float32")
    return np.dtype(kinds[name])
