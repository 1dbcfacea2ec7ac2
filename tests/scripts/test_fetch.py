"""The fetching scripts, against an origin on the disk."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def download(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import download

    return download


@pytest.fixture
def origin(tmp_path):
    folder = tmp_path / "origin"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"remote_{name}").write_bytes(name.encode() * 10)
    return folder


def pinned(download, name: str):
    return download.Pinned(f"remote_{name}", name, hashlib.sha256(name.encode() * 10).hexdigest())


def test_files_are_fetched_once(download, origin, tmp_path):
    files, into = [pinned(download, "a"), pinned(download, "b")], tmp_path / "into"
    download.fetch_all(origin.as_uri(), files, into)
    assert (into / "a").read_bytes() == b"a" * 10
    assert sorted(path.name for path in into.iterdir()) == ["a", "b"]
    # What is there needs no origin; what was lost or damaged comes again.
    download.fetch_all("file:///nowhere", files, into)
    (into / "b").write_bytes(b"half")
    download.fetch_all(origin.as_uri(), files, into)
    assert (into / "b").read_bytes() == b"b" * 10


def test_other_bytes_are_refused(download, origin, tmp_path):
    (origin / "remote_a").write_bytes(b"something else")
    with pytest.raises(download.FetchError, match=r"remote_a: SHA-256 is .* nothing was kept of it"):
        download.fetch_all(origin.as_uri(), [pinned(download, "a")], tmp_path / "into")
    assert not (tmp_path / "into" / "a").exists()


@pytest.mark.parametrize("script", ["fetch_acas.py", "fetch_nets.py"])
def test_an_origin_out_of_reach_is_one_line_and_exit_1(tmp_path, script):
    arguments = ["--origin", (tmp_path / "none").as_uri(), "--into", str(tmp_path / "into")]
    outcome = subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: file:///")
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(("name", "count"), [("fetch_acas", 45 + 10 + 1), ("fetch_nets", 6)])
def test_pins_are_those_of_the_tested_files(download, redy_data, name, count):
    files = download.pins(SCRIPTS / f"{name}.sha256")
    assert len({file.local for file in files}) == count
    folder = {"fetch_acas": "acasxu", "fetch_nets": "nets"}[name]
    for file in files:
        assert hashlib.sha256(redy_data(f"{folder}/{file.local}").read_bytes()).hexdigest() == file.sha256
