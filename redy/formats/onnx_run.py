"""Running a model in onnxruntime on batches, whatever batch size its file fixes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from redy.errors import InputError
from redy.model import Array

_FATAL_ONLY = 4


class Session:
    """An onnxruntime session: (n, *input shape) -> (n, *output shape).

    A file with the batch fixed at 1 is run with its batch axis made symbolic where that gives the same results on two
    samples, else sample by sample.

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
        self._session = self._open(model)
        entry = self._session.get_inputs()[0]
        self._input, self._dtype = entry.name, _numpy_type(entry.type)
        shape = list(entry.shape)
        self.output_names = tuple(str(output.name) for output in self._session.get_outputs())
        fixed = bool(shape) and isinstance(shape[0], int) and shape[0] > 0
        self._sample_shape = tuple(shape[1:]) if fixed and shape[0] == 1 else None
        self._unbatched = not shape or (fixed and (shape[0] != 1 or len(shape) == 1))
        self.by_sample = self._unbatched or fixed
        if self.by_sample and not self._unbatched:
            self._open_batch(model)

    def _open(self, model: ModelProto | str | os.PathLike[str]) -> onnxruntime.InferenceSession:
        source = model.SerializeToString() if isinstance(model, ModelProto) else os.fspath(model)
        try:
            return onnxruntime.InferenceSession(source, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base class.
            text = " ".join(str(error).split())[:300]
            raise InputError(f"{self._where}: onnxruntime cannot load it ({text})") from error

    def _open_batch(self, model: ModelProto | str | os.PathLike[str]) -> None:
        """Uses a copy with a symbolic batch axis if two samples together give what each gives alone."""
        copy = _with_symbolic_batch(model if isinstance(model, ModelProto) else onnx.load(Path(os.fspath(model))))
        shape = self._sample_shape
        if shape is None or not all(isinstance(size, int) for size in shape):
            return
        probe = np.random.default_rng(0).random((2, *shape)).astype(self._dtype)
        try:
            batched = self._open(copy)
            together = batched.run(None, {self._input: probe})
        except Exception:  # noqa: BLE001 - whatever a model that cannot take a batch raises, it is run by sample.
            return
        alone = [self._session.run(None, {self._input: probe[i : i + 1]}) for i in range(2)]
        for place, found in enumerate(together):
            apart = [single[place] for single in alone]
            if found.shape != (2, *apart[0].shape[1:]) or not np.allclose(
                found, np.concatenate(apart), rtol=1e-4, atol=1e-6 * max(1.0, float(np.abs(found).max(initial=0.0)))
            ):
                return
        self._session, self.by_sample = batched, False

    def run_all(self, x: Array) -> list[np.ndarray]:
        """Every output for inputs x (n, *input shape), each (n, *output shape) in the model's own type."""
        x = np.ascontiguousarray(x).astype(self._dtype)
        if not self.by_sample:
            return [np.asarray(found) for found in self._session.run(None, {self._input: x})]
        rows = []
        for sample in x:
            found = self._session.run(None, {self._input: np.asarray(sample) if self._unbatched else sample[None]})
            rows.append([row if self._unbatched or row.shape[:1] != (1,) else row[0] for row in found])
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def run(self, x: Array) -> np.ndarray:
        """The first output for inputs x (n, *input shape), as (n, *output shape)."""
        return self.run_all(x)[0]


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
    if name not in kinds:
        raise InputError(f"an input of type {name} cannot be given as a numpy array; convert the model to float32")
    return np.dtype(kinds[name])
