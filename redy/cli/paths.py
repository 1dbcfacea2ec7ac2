"""Where a command may write: never over a file that it reads, and never two things into one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from redy.errors import InputError

Named = tuple[str, Path | str | None]
"""What a file is to the command ("the model", "the report"), and its path; None where the option was not given."""


def guard(inputs: Iterable[Named], outputs: Iterable[Named]) -> None:
    """Check, before any work, that every output can be written and is neither an input nor another output.

    Files are compared as files: through symbolic and hard links, other spellings of a path, and where they are not
    there yet. An input may be the text of an inline box, which is no file.

    Raises:
        InputError: an output is an input or another output, is a folder or no regular file, or lies in a folder that
            does not exist or cannot be written to.
    """
    taken: dict[object, str] = {}
    for what, path in inputs:
        for identity in () if path is None else _identities(path):
            taken.setdefault(identity, f"is {what} itself")
    for what, given in outputs:
        if given is None:
            continue
        path = Path(given)
        _check_place(path)
        identities = _identities(path)
        for identity in identities:
            if identity in taken:
                clash = taken[identity].format(other=what)
                raise InputError(f"{path}: {clash}; choose another file for {what}")
        for identity in identities:
            taken[identity] = f"is named for both {{other}} and {what}"


def model_files(what: str, path: Path) -> Iterator[Named]:
    """A model and the files of its external data; only the model itself where it cannot be read."""
    from redy.formats.files import external_data

    yield what, path
    for data in external_data(path):
        yield f"the external data of {what}", data


def store_files(path: Path | None) -> Iterator[Named]:
    """A results store and the files that SQLite and the lock put beside it."""
    if path is not None:
        yield "the results store", path
        for suffix in ("-wal", "-shm", "-journal", ".lock"):
            yield "a file of the results store", path.with_name(path.name + suffix)


def _identities(path: Path | str) -> list[object]:
    """What is equal for two paths of one file: the real path, and the file's own number where it is there."""
    try:
        found: list[object] = [os.path.realpath(path)]
    except (OSError, ValueError):  # no path at all, such as the text of a box
        return []
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return found
    return [*found, (status.st_dev, status.st_ino)]


def _check_place(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
        raise InputError(f"{path}: {what}; name a file in an existing folder")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; name a file in an existing folder")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: cannot write into the folder {path.parent}; choose a writable folder")
