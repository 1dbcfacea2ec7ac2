"""ONNX files in and out for `simplify`: any size, external data, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from redy.errors import InputError
from redy.formats.files import write_atomically

_LARGEST_MESSAGE = 2_000_000_000


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model with its external data.

    Raises:
        InputError: the file is missing, is no ONNX model, or lacks its external data.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        missing = error.filename or path
        raise InputError(f"{missing}: no such file; give the path of an ONNX model (with its external data)") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; give the path of an ONNX model") from error
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as an ONNX model ({reason})") from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise InputError(f"{path}: holds no ONNX graph; give the path of an ONNX model")
    return model


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of the model with all of its weights."""
    weights = sum(len(t.raw_data) for t in model.graph.initializer)
    return weights if weights > _LARGEST_MESSAGE else model.ByteSize()


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write a model; weights beyond what one file can hold go to `<path>.data` beside it, renamed first."""
    target = Path(path)
    if size_of(model) < _LARGEST_MESSAGE:
        write_atomically(target, lambda temporary: temporary.write_bytes(model.SerializeToString()))
        return
    data = target.with_name(f"{target.name}.data")
    held = ir.from_proto(model)

    def write(temporary: Path) -> None:
        ir.save(held, temporary, external_data=f"{temporary.name}.data")
        written = temporary.with_name(f"{temporary.name}.data")
        text = onnx.load(temporary, load_external_data=False)
        for tensor in text.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        temporary.write_bytes(text.SerializeToString())
        written.replace(data)

    write_atomically(target, write)
