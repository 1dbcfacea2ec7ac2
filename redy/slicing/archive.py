"""The file of a family: a zip archive of arrays in numpy's format; docs/family.md describes it.

Members: `manifest.json`, `original.onnx`, `cut/<name>.npy`, `masks.npy`, `slice_mask.npy`, `complete.npy`; where units
are lines, `lines/<name>.npy`; and where folded networks are stored, `folded/pool.npy`, `folded/programs.npy`,
`folded/starts.npy`.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from redy.errors import InputError
from redy.formats.files import write_atomically
from redy.slicing.program import Program, Step
from redy.slicing.selections import REFERENCE

FORMAT = "redy-family"
VERSION = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], original: bytes, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a family's file; equal contents give equal bytes."""

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            text = json.dumps({"format": FORMAT, "version": VERSION, **manifest}, indent=1, sort_keys=True)
            _member(archive, "manifest.json", text.encode())
            _member(archive, "original.onnx", original)
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
                _member(archive, f"{name}.npy", buffer.getvalue())

    write_atomically(path, write)


def _member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes, dict[str, NDArray[Any]]]:
    """Manifest, original model and arrays of a family's file.

    Raises:
        InputError: it cannot be read, is no family, is damaged, or was written by a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise InputError(f"{path}: is not a family; expected a file that `redy slice` wrote")
            if manifest.get("version") != VERSION:
                version = manifest.get("version")
                older = isinstance(version, int) and version < VERSION
                what = "write it again with `redy slice --resume`" if older else "update redy"
                raise InputError(f"{path}: has format version {version}, this redy reads {VERSION}; {what}")
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
            return manifest, archive.read("original.onnx"), arrays
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that `redy slice` wrote") from error
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is not a family, or is damaged; expected a file that `redy slice` wrote") from error


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
