"""Reading text files, also compressed ones, and writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from redy.errors import InputError

if TYPE_CHECKING:
    import onnx

_GZIP = b"\x1f\x8b"


def read_bytes(path: Path, instead: str) -> bytes:
    """The bytes of a file, decompressed if it starts as gzip does.

    Args:
        path: the file.
        instead: what to do where it cannot be read, for the error.

    Raises:
        InputError: it cannot be read, or its compressed data is damaged.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); {instead}") from error
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is compressed but damaged or cut short ({error}); get it again") from error


def is_compressed(path: Path) -> bool:
    """Whether the file starts as gzip does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_GZIP)) == _GZIP
    except OSError:
        return False


def load_model(path: Path, *, external: bool = True) -> onnx.ModelProto:
    """The ONNX model in a file, also a compressed one; `external`: with the data that it keeps in other files."""
    import onnx  # noqa: PLC0415 - takes longer than all the rest of a command's start

    if is_compressed(path):
        return onnx.load_model_from_string(read_bytes(path, "give an ONNX model"))
    return onnx.load(path, load_external_data=external)


def read_text(path: Path, content: str, instead: str) -> str:
    """The UTF-8 text of a file, also one compressed by gzip.

    Args:
        path: the file.
        content: what it must hold, such as "a box", and
        instead: what to do where it cannot be read, for the error.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is empty.
    """
    try:
        text = read_bytes(path, instead).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise InputError(f"{path}: is empty; it must hold {content}")
    return text


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call `write(temporary)` in the folder of `path`, then rename the temporary file to `path`.

    Whatever goes wrong before the rename (an exception, Ctrl-C, kill -9) leaves an existing `path` as it was.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent or Path(), prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(
            f"{target}: cannot write here ({error.strerror}); choose an existing, writable folder"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) to `path` through a temporary file and a rename."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def external_data(path: Path) -> list[Path]:
    """The files beside an ONNX model that hold weights of it; none where the model cannot be read."""
    import onnx  # noqa: PLC0415 - slow to load, and most who write files need none of it
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        model = load_model(path, external=False)
    except (OSError, ValueError, DecodeError, InputError):
        return []
    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(names)]


def file_digest(path: Path) -> str:
    """SHA-256 in hexadecimal of a model's file; where it has external data, of its bytes followed by those of that."""
    hasher = hashlib.sha256(path.read_bytes())
    for data in external_data(path):
        hasher.update(data.read_bytes())
    return hasher.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
