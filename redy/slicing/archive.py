"""The file of a family: a zip archive of arrays in numpy's format; docs/family.md describes it.

The manifest comes first and lists every other member with its size and SHA-256; the comment of the archive is the
SHA-256 of the manifest. So a member that is missing, unknown, doubled, encrypted or different is an error, not a family
that answers otherwise.

Members: `manifest.json`, `original.onnx`, `cut/<name>.npy`, `masks.npy`, `slice_mask.npy`, `complete.npy`; where units
are lines, `lines/<name>.npy`; and where folded networks are stored, `folded/pool.npy`, `folded/programs.npy`,
`folded/starts.npy`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from redy.errors import InputError
from redy.slicing.program import Program, Step
from redy.slicing.selections import REFERENCE

FORMAT = "redy-family"
VERSION = 4
_UNLISTED = 3
"""The last version whose manifest does not list the members; they are checked by name and by what it promises."""
_LARGEST_MANIFEST = 1 << 26
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive_bytes(manifest: Mapping[str, Any], original: bytes, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A family's file; equal contents give equal bytes."""
    members = {"original.onnx": original, **{f"{name}.npy": _bytes(array) for name, array in arrays.items()}}
    listed = {name: {"size": len(data), "sha256": _digest(data)} for name, data in members.items()}
    whole = {"format": FORMAT, "version": VERSION, **manifest, "members": listed}
    text = json.dumps(whole, indent=1, sort_keys=True).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = _digest(text).encode()
        for name, data in {"manifest.json": text, **members}.items():
            _member(archive, name, data)
    return file.getvalue()


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def read_archive(path: str | os.PathLike[str] | BinaryIO) -> tuple[dict[str, Any], bytes, dict[str, NDArray[Any]]]:
    """Manifest, original model and arrays of a family's file.

    Raises:
        InputError: it cannot be read, is no family, is damaged, or was written by a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(path, archive)
            members = _members(path, archive, manifest)
        arrays = {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            for name, data in members.items()
            if name.endswith(".npy")
        }
        return manifest, members["original.onnx"], arrays
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that `redy slice` wrote") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is not a family, or is damaged; expected a file that `redy slice` wrote") from error
    except (NotImplementedError, RuntimeError, OverflowError, MemoryError) as error:
        reason = "has a member that is encrypted or compressed in another way, or is damaged"
        raise InputError(f"{path}: {reason}; expected a file that `redy slice` wrote") from error


def _manifest(path: object, archive: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest, if it is one of a version that is read."""
    if archive.getinfo("manifest.json").file_size > _LARGEST_MANIFEST:
        raise InputError(f"{path}: its manifest is too large; expected a file that `redy slice` wrote")
    text = archive.read("manifest.json")
    manifest = json.loads(text)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: is not a family; expected a file that `redy slice` wrote")
    version = manifest.get("version")
    if version not in (_UNLISTED, VERSION):
        older = isinstance(version, int) and version < VERSION
        what = "write it again with `redy slice --resume`" if older else "update redy"
        raise InputError(f"{path}: has format version {version}, this redy reads {VERSION}; {what}")
    if version == VERSION and archive.comment.decode("ascii", "replace") != _digest(text):
        raise InputError(f"{path}: its manifest is not the one that was written; the file is damaged")
    return manifest


def _members(path: object, archive: zipfile.ZipFile, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Every member but the manifest, each just what the manifest says of it."""
    names = [info.filename for info in archive.infolist()]
    if len(names) != len(set(names)):
        raise InputError(f"{path}: holds a member twice; the file is damaged or was put together by something else")
    listed = manifest.get("members")
    if manifest["version"] == _UNLISTED:
        members = {name: archive.read(name) for name in names if name != "manifest.json"}
        _check_unlisted(path, members, manifest)
        return members
    if not isinstance(listed, dict) or set(names) != {"manifest.json", *listed}:
        apart = sorted(set(names).symmetric_difference({"manifest.json", *(listed or {})}))
        raise InputError(f"{path}: member {apart[0] if apart else '?'} is missing or not listed; the file is damaged")
    members = {}
    for name, facts in listed.items():
        if archive.getinfo(name).file_size != facts["size"]:
            raise InputError(f"{path}: member {name} has another size than was written; the file is damaged")
        members[name] = archive.read(name)
        if _digest(members[name]) != facts["sha256"]:
            raise InputError(f"{path}: member {name} is not what was written; the file is damaged")
    return members


def _check_unlisted(path: object, members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    """A file of an older version: no member of an unknown name, and none missing that the manifest speaks of."""
    for name in members:
        folder, _, rest = name.rpartition("/")
        if name not in _KNOWN and not (folder == "cut" and rest.endswith(".npy")):
            raise InputError(f"{path}: member {name} is of no kind that redy writes; the file is damaged")
    for promise, name in (("decision", "winner.npy"), ("tolerance", "lines/table.npy")):
        if (promise in manifest) != (name in members):
            raise InputError(f"{path}: its manifest and its member {name} do not fit together; the file is damaged")


_KNOWN = {
    "original.onnx",
    *(f"{name}.npy" for name in ("masks", "slice_mask", "complete", "winner", "lines/table", "lines/starts")),
    *(f"folded/{name}.npy" for name in ("pool", "programs", "starts")),
    *(f"front/{name}.npy" for name in ("model", "lower", "upper")),
}


class Pool:
    """Arrays end to end; equal ones lie there once."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []
        self._places: dict[bytes, int] = {}
        self._size = 0

    def place(self, array: NDArray[Any]) -> int:
        """Where the elements of an array (C order) begin; it is added where there is no equal one."""
        key = array.tobytes()
        if key not in self._places:
            self._places[key] = self._size
            self._arrays.append(array.ravel())
            self._size += array.size
        return self._places[key]

    def array(self, dtype: DTypeLike) -> NDArray[Any]:
        """All elements."""
        return np.concatenate([np.zeros(0, dtype), *self._arrays]).astype(dtype)


def pack_programs(
    programs: Iterable[Program], known: Callable[[int], Mapping[bytes, int]] | None = None
) -> dict[str, NDArray[Any]]:
    """Programs as a pool of weights and a table of numbers.

    The table holds per program: steps; per step: relu, rows, place of the bias, terms; per term: source, columns, place
    of the weights (rows x columns, C order). A place is an offset in the pool, or what `known(k)` has for the bytes of
    an array of program k (`redy.slicing.selections`).
    """
    pool, table, starts, dtype = Pool(), list[int](), list[int](), np.dtype("float32")
    for k, program in enumerate(programs):
        references = known(k) if known else {}
        dtype = program.dtype

        def place(array: NDArray[Any], references: Mapping[bytes, int] = references) -> int:
            reference = references.get(array.tobytes())
            return pool.place(array) if reference is None else reference

        starts.append(len(table))
        table.append(len(program.steps))
        for step in program.steps:
            table += [int(step.relu), step.bias.size, place(step.bias), len(step.sources)]
            for source, weight in zip(step.sources, step.weights, strict=True):
                table += [source, weight.shape[1], place(weight)]
    return {
        "pool": pool.array(dtype),
        "programs": np.array(table, dtype=np.uint32),
        "starts": np.array(starts, dtype=np.uint32),
    }


def unpack_program(
    arrays: Mapping[str, NDArray[Any]], index: int, inputs: int, reference: Callable[[int], NDArray[Any]]
) -> Program:
    """The index-th program of `pack_programs`; its arrays are views of the pool, or what `reference(place)` gives."""
    pool, table, at = arrays["pool"], arrays["programs"], int(arrays["starts"][index])

    def read(place: int, shape: tuple[int, ...]) -> NDArray[Any]:
        array = reference(place) if place >= REFERENCE else pool[place : place + math.prod(shape)]
        return array.reshape(shape)

    count, at = int(table[at]), at + 1
    steps = []
    for _ in range(count):
        relu, rows, bias, terms = (int(n) for n in table[at : at + 4])
        at += 4
        sources, weights = [], []
        for _ in range(terms):
            source, columns, place = (int(n) for n in table[at : at + 3])
            at += 3
            sources.append(source)
            weights.append(read(place, (rows, columns)))
        steps.append(Step(tuple(sources), tuple(weights), read(bias, (rows,)), bool(relu)))
    return Program(inputs, tuple(steps))
