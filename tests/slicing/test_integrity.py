"""Damaged families and stores: a clear error or the right answer, never another answer."""

from __future__ import annotations

import sqlite3
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_family import CUTS, made, points
from test_run import results, work

from redy.errors import InputError
from redy.runs.executor import Here
from redy.runs.store import Store
from redy.slicing.family import Family
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.saved import read_family


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def same_or_refused(data: bytes, path: Path, family: Family, at: np.ndarray) -> bool:
    """Whether the bytes are refused; if they are not, they must be the family."""
    path.write_bytes(data)
    try:
        read = read_family(path)
        answers = read.evaluate(at)
    except InputError:
        return True
    assert np.array_equal(answers, family.evaluate(at))
    assert read.guarantee == family.guarantee
    return False


def check_flips(tmp_path: Path, count: int) -> None:
    family = made(CUTS["grid"], tmp_path)
    family.save(tmp_path / "f.redy")
    whole, at = (tmp_path / "f.redy").read_bytes(), points(family, 50)
    with zipfile.ZipFile(tmp_path / "f.redy") as archive:
        directory = archive.start_dir
    rng = np.random.default_rng(count)
    bits = np.concatenate([rng.integers(0, 8 * len(whole), count), rng.integers(8 * directory, 8 * len(whole), count)])
    refused = [same_or_refused(flipped(whole, int(bit)), tmp_path / "g.redy", family, at) for bit in bits]
    assert sum(refused) > count
    for length in rng.integers(0, len(whole), 10):
        assert same_or_refused(whole[:length], tmp_path / "g.redy", family, at)


def test_flipped_bits_of_a_family(tmp_path):
    check_flips(tmp_path, 60)


@pytest.mark.slow
def test_many_flipped_bits_of_a_family(tmp_path):
    check_flips(tmp_path, 1000)


@pytest.mark.parametrize("change", ["missing", "unknown", "doubled", "renamed", "other"])
def test_members_are_just_those_that_were_written(tmp_path, change):
    family = made(CUTS["grid"], tmp_path)
    family.save(tmp_path / "f.redy")
    with zipfile.ZipFile(tmp_path / "f.redy") as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
        comment = archive.comment
    last, data = members[-1]
    changed = {
        "missing": members[:-1],
        "unknown": [*members, ("more.npy", data)],
        "doubled": [*members, (last, data)],
        "renamed": [*members[:-1], ("more.npy", data)],
        "other": [*members[:-1], (last, data[:-1] + bytes([data[-1] ^ 1]))],
    }[change]
    with zipfile.ZipFile(tmp_path / "g.redy", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that is written twice
        archive.comment = comment
        for name, content in changed:
            archive.writestr(name, content)
    with pytest.raises(InputError, match="damaged"):
        read_family(tmp_path / "g.redy")


def stored(path: Path) -> list[object]:
    task = work()
    with Store(path, COLUMNS, task.digests, resume=True) as store:
        return results(run_slices(task, Here(), store))


@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in ("slice", "seconds")])
def test_a_changed_row_is_made_again(tmp_path, column):
    path = tmp_path / "s.sqlite"
    whole = stored(path)
    with sqlite3.connect(path) as connection:
        value = connection.execute(f"SELECT {column} FROM results WHERE slice = 5").fetchone()[0]  # noqa: S608
        other = bytes([*value, 1]) if isinstance(value, bytes) else value + 1
        connection.execute(f"UPDATE results SET {column} = ? WHERE slice = 5", (other,))  # noqa: S608
    connection.close()
    with Store(path, COLUMNS, work().digests, resume=True) as store:
        assert store.discarded == 1
        assert store.keys() == set(range(12)) - {5}
    assert stored(path) == whole


def check_store_flips(tmp_path: Path, count: int) -> None:
    path = tmp_path / "s.sqlite"
    whole = stored(path)
    data = path.read_bytes()
    rng = np.random.default_rng(count)
    for bit in rng.integers(0, 8 * len(data), count):
        for beside in tmp_path.glob("s.sqlite-*"):
            beside.unlink()
        path.write_bytes(flipped(data, int(bit)))
        try:
            records = stored(path)
        except InputError:
            continue
        assert records == whole


def test_flipped_bits_of_a_store(tmp_path):
    check_store_flips(tmp_path, 40)


@pytest.mark.slow
def test_many_flipped_bits_of_a_store(tmp_path):
    check_store_flips(tmp_path, 1000)
