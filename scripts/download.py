"""Fetches files whose SHA-256 is pinned; what is already there and right is not fetched again."""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 60


@dataclass(frozen=True)
class Pinned:
    """A file to fetch: where it lies below the origin, what it is called here, and its SHA-256."""

    remote: str
    local: str
    sha256: str


class FetchError(Exception):
    """A file cannot be had; the text is one line for the user."""


def pins(path: Path) -> list[Pinned]:
    """The lines `sha256  local name  remote path` of a list of pinned files; # starts a comment."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [Pinned(remote, local, sha256) for sha256, local, remote in rows]


def fetch_all(origin: str, files: list[Pinned], folder: Path) -> None:
    """Fetch what `folder` lacks or holds with other bytes; a second run goes on where the first one stopped.

    A file appears under its name only once its digest has been checked.

    Raises:
        FetchError: a file cannot be reached, written, or is not the pinned one.
    """
    for file in files:
        target = folder / file.local
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256:
            continue
        content = _download(f"{origin.rstrip('/')}/{file.remote}")
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise FetchError(f"{file.remote}: SHA-256 is {found}, pinned is {file.sha256}; nothing was kept of it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            part.write_bytes(content)
            part.replace(target)
        except OSError as error:
            raise FetchError(f"{target}: cannot be written ({error.strerror})") from error


def run(origin: str, list_name: str, folder_name: str) -> None:
    """The command line of a fetching script: `[--origin URL] [--into FOLDER]`; ends the process with 0 or 1."""
    root = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--origin", default=origin, help="fetch from here (default: %(default)s)")
    parser.add_argument("--into", type=Path, default=root.parent / "models" / "external" / folder_name)
    arguments = parser.parse_args()
    files = pins(root / list_name)
    try:
        fetch_all(arguments.origin, files, arguments.into)
    except FetchError as error:
        sys.exit(f"error: {error}")
    print(f"{len(files)} files, all with the pinned SHA-256, in {arguments.into}")


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - the origin is ours or the user's
            content: bytes = answer.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise FetchError(f"{url}: cannot be fetched ({reason}); run again when online, or give --origin") from error
    return content
