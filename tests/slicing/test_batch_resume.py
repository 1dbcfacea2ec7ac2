"""`redy batch --resume`: a job is done when what it wrote is there."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_family import small_model

from redy.cli.main import run

RESUME = ["batch", "jobs.csv", "-o", "out", "--resume"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two jobs, the model of the second one is not there; both were run once."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    Path("b.json").write_text("[-1, 1]")
    Path("jobs.csv").write_text("model,bounds,output\nm.onnx,b.json,a.onnx\nn.onnx,b.json,c.onnx\n")
    assert run(["batch", "jobs.csv", "-o", "out"]) == 1
    return tmp_path


def rows() -> list[dict[str, Any]]:
    connection = sqlite3.connect("out/results.sqlite")
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM results ORDER BY job")]
    connection.close()
    return found


@pytest.mark.parametrize("damage", ["gone", "changed", "empty", "folder of the link gone"])
def test_a_result_that_is_not_there_is_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    output, whole = Path("out/a.onnx"), Path("out/a.onnx").read_bytes()
    output.unlink()
    if damage == "changed":
        output.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "empty":
        output.write_bytes(b"")
    elif damage == "folder of the link gone":
        output.symlink_to("nowhere.onnx")
    Path("n.onnx").write_bytes(small_model(3))
    capsys.readouterr()
    assert run(RESUME) == 0
    said = capsys.readouterr().err
    reason = "was gone" if damage in {"gone", "folder of the link gone"} else "was another file than was written"
    assert f"job 1 is made again: its output {reason}" in said
    assert output.read_bytes() == whole
    first = rows()[0]
    assert first["status"] == "done"
    assert [attempt["status"] for attempt in json.loads(first["attempts"])] == ["done"]


def test_failed_jobs_are_tried_again_and_each_attempt_is_kept(folder: Path) -> None:
    assert run(RESUME) == 1
    Path("n.onnx").write_text("no model")
    assert run(RESUME) == 1
    Path("n.onnx").write_bytes(small_model(3))
    assert run(RESUME) == 0
    first, second = rows()
    assert json.loads(first["attempts"]) == []
    attempts = json.loads(second["attempts"])
    assert [attempt["status"] for attempt in attempts] == ["failed"] * 3
    assert all(attempt["made_again"] == "failed before" for attempt in attempts)
    assert "No such file" in attempts[0]["error"]
    assert "No such file" not in attempts[2]["error"]
    assert second["status"] == "done"
    assert Path("out/c.onnx").is_file()


def test_what_stands_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("n.onnx").write_bytes(small_model(3))
    assert run(RESUME) == 0
    before, stamps = rows(), [Path(f"out/{name}.onnx").stat().st_mtime_ns for name in "ac"]
    capsys.readouterr()
    assert run(RESUME) == 0
    assert "made again" not in "".join(capsys.readouterr())
    assert rows() == before
    assert [Path(f"out/{name}.onnx").stat().st_mtime_ns for name in "ac"] == stamps


@pytest.mark.parametrize(("path", "what"), [("m.onnx", "model"), ("b.json", "box")])
def test_a_done_job_of_other_sources_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, what: str
) -> None:
    whole = Path("out/a.onnx").read_bytes()
    Path(path).write_bytes(small_model(4) if what == "model" else b"[-1, 0.5]")
    capsys.readouterr()
    assert run(RESUME) == 2
    assert f"another {what}" in capsys.readouterr().err
    assert Path("out/a.onnx").read_bytes() == whole


def test_a_store_of_another_command_is_refused_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sliced = ["slice", "m.onnx", "--bounds", "[-1,1]", "--splits", "2", "--quiet", "--resume", "-o", "f.redy"]
    before = rows()
    capsys.readouterr()
    assert run([*sliced, "--store", "out/results.sqlite"]) == 2
    assert "another command" in capsys.readouterr().err
    assert rows() == before


def test_eval_of_no_points_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--splits", "2", "--quiet", "-o", "f.redy"]) == 0
    np.save("none.npy", np.zeros((0, 2), np.float32))
    capsys.readouterr()
    assert run(["eval", "f.redy", "--input", "none.npy"]) == 0
    assert capsys.readouterr().out == ""
    for engine in ("numpy", "onnxruntime"):
        assert run(["eval", "f.redy", "--input", "none.npy", "-o", "y.npy", "--engine", engine]) == 0
        assert len(np.load("y.npy")) == 0
