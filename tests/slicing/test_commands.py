"""`redy slice`, `eval`, `export` and `batch` from the command line."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import small_model

from redy.cli.main import run
from redy.slicing.export_onnx import session
from redy.slicing.family import Family


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    return tmp_path


def sliced(*arguments: str) -> int:
    return run(["slice", "m.onnx", "--bounds", "[-1,1]", "--quiet", *arguments])


def outputs(x: np.ndarray, path: str = "m.onnx") -> np.ndarray:
    return np.asarray(session(onnx.load(path)).run(None, {"x": x})[0])


@pytest.mark.parametrize("how", [["--splits", "3"], ["--splits", "2,3"], ["--adaptive", "--budget", "5"]])
@pytest.mark.parametrize("form", ["shared", "folded", "auto"])
def test_slice_eval_export(folder: Path, how: list[str], form: str) -> None:
    assert sliced(*how, "--form", form, "-o", "f.redy", "--csv", "f.csv") == 0
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    np.save("x.npy", x)
    assert run(["eval", "f.redy", "--input", "x.npy", "-o", "y.npy"]) == 0
    np.testing.assert_allclose(np.load("y.npy"), outputs(x), atol=1e-5)
    assert run(["export", "f.redy", "-o", "f.onnx"]) == 0
    np.testing.assert_allclose(outputs(x, "f.onnx"), outputs(x), atol=1e-5)
    assert run(["export", "f.redy", "-o", "f.c"]) == 0
    assert "redy_evaluate" in Path("f.c").read_text()
    assert run(["export", "f.redy", "--slice", "0", "-o", "s.onnx"]) == 0
    first = Family.open("f.redy").locate(x) == 0
    np.testing.assert_allclose(outputs(x[first], "s.onnx"), outputs(x[first]), atol=1e-5)


def test_the_folded_form_is_kept_as_a_recipe_or_stored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sliced("--splits", "6", "--form", "folded", "-o", "recipe.redy") == 0
    assert sliced("--splits", "6", "--form", "folded", "--store-folded", "--resume", "--store", "recipe.redy.sqlite",
                  "-o", "stored.redy") == 0  # fmt: skip
    recipe, stored = Family.open("recipe.redy"), Family.open("stored.redy")
    assert recipe.form == stored.form == "folded"
    assert not recipe.folded
    assert stored.folded
    x = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    assert np.array_equal(recipe.evaluate(x), stored.evaluate(x))
    assert np.array_equal(recipe.evaluate(x), stored.evaluate(x, form="folded"))
    sizes = []
    for index in range(len(recipe)):
        assert run(["export", "recipe.redy", "--slice", str(index), "-o", "s.onnx"]) == 0
        sizes.append(Path("s.onnx").stat().st_size)
    assert 3 * Path("recipe.redy").stat().st_size < sum(sizes)
    assert 3 * Path("stored.redy").stat().st_size < sum(sizes)
    capsys.readouterr()
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--splits", "2", "-o", "g.redy"]) == 0
    printed = capsys.readouterr().out
    assert "folded when first used" in printed
    assert f"g.redy: {Path('g.redy').stat().st_size} bytes" in printed


def test_the_results_as_parquet(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert sliced("--splits", "3", "-o", "f.redy", "--parquet", "f.parquet", "--csv", "f.csv") == 0
    table = parquet.read_table("f.parquet")
    types = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    assert (types["slice"], types["mask"], types["seconds"]) == ("int64", "binary", "double")
    names = ", ".join(table.column_names)
    rows = sqlite3.connect("f.redy.sqlite").execute(f"SELECT {names} FROM results ORDER BY 1").fetchall()  # noqa: S608
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    assert len(Path("f.csv").read_text().splitlines()) == len(rows) + 1
    Path("jobs.csv").write_text('model,bounds\nm.onnx,"[-1,1]"\nbad.onnx,"[-1,1]"\n')
    assert run(["batch", "jobs.csv", "-o", "out", "--parquet", "r.parquet", "--quiet"]) == 1
    done, failed = parquet.read_table("r.parquet").to_pylist()
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert isinstance(done["parameters_after"], int)
    assert failed["parameters_after"] is None


def test_parquet_without_pyarrow_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert sliced("--splits", "2", "-o", "f.redy", "--parquet", "f.parquet") == 2
    error = capsys.readouterr().err
    assert "redy[parquet]" in error
    assert error.count("\n") == 1
    assert not list(folder.glob("f.*"))


def test_eval_prints_one_line_a_point(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sliced("--splits", "2", "-o", "f.redy") == 0
    np.save("x.npy", np.zeros((3, 2), np.float32))
    assert run(["eval", "f.redy", "--input", "x.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    np.testing.assert_array_equal(
        np.array([line.split() for line in lines], np.float32), Family.open("f.redy").evaluate(np.zeros((3, 2)))
    )


def test_the_store_refuses_and_resumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sliced("--splits", "2") == 0
    assert sliced("--splits", "2") == 2
    assert sliced("--splits", "2", "--resume") == 0
    assert sliced("--splits", "3", "--resume") == 2
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "another cut" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--splits", "0"], "at least 1"),
        (["--splits", "2,2,2"], "2 inputs"),
        (["--splits", "two"], "whole numbers"),
        (["--splits", "100000"], "at most"),
        ([], "--splits"),
        (["--adaptive"], "--budget"),
        (["--splits", "2", "--budget", "3"], "together"),
        (["--splits", "2", "--time-limit", "0"], "positive"),
        (["--splits", "2", "-o", "no/f.redy"], "folder"),
        (["--splits", "2", "--store-folded"], "--form folded"),
    ],
)
def test_bad_usage_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert sliced(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(folder.glob("*.redy"))


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "m.onnx", "--input", "x.npy"],
        ["eval", "f.redy", "--input", "m.onnx"],
        ["export", "f.redy", "-o", "f.txt"],
        ["export", "f.redy", "-o", "a.onnx", "--slice", "9"],
        ["export", "f.redy", "-o", "a.c", "--slice", "0"],
    ],
)
def test_bad_files_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert sliced("--splits", "2", "-o", "f.redy") == 0
    capsys.readouterr()
    assert run(command) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_batch_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.json").write_text('{"lower": -0.5, "upper": 0.5}')
    jobs = [{"model": "m.onnx", "bounds": "b.json"}, {"model": "m.onnx", "bounds": [0, 1], "options": {"seed": 3}}]
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    assert run(["batch", "jobs.jsonl", "-o", "out", "--csv", "r.csv", "--quiet"]) == 0
    rows = sqlite3.connect("out/results.sqlite").execute("SELECT status, output FROM results").fetchall()
    assert [row[0] for row in rows] == ["done", "done"]
    x = np.random.default_rng(0).uniform(0, 0.5, (20, 2)).astype(np.float32)
    for _, path in rows:
        np.testing.assert_allclose(outputs(x, path), outputs(x), atol=1e-5)
    assert len(Path("r.csv").read_text().splitlines()) == 3
    assert run(["batch", "jobs.jsonl", "-o", "out", "--resume"]) == 0
    Path("b.json").write_text('{"lower": -0.5, "upper": 0.25}')
    capsys.readouterr()
    assert run(["batch", "jobs.jsonl", "-o", "out", "--resume"]) == 2
    assert "another box" in capsys.readouterr().err


def test_batch_goes_on_after_a_failure(folder: Path) -> None:
    Path("bad.onnx").write_text("no model")
    Path("jobs.csv").write_text('model,bounds,seed\nbad.onnx,"[-1,1]",\nm.onnx,"[-1,1]",1\n')
    assert run(["batch", "jobs.csv", "-o", "out"]) == 1
    rows = sqlite3.connect("out/results.sqlite").execute("SELECT status, error FROM results ORDER BY job").fetchall()
    assert [row[0] for row in rows] == ["failed", "done"]
    assert "bad.onnx" in rows[0][1]


def test_batch_of_patterns_in_processes(folder: Path) -> None:
    Path("n.onnx").write_bytes(small_model(3))
    assert run(["batch", "--models", "*.onnx", "--bounds", "[-1,1]", "-o", "out", "--jobs", "2"]) == 0
    assert len(list(Path("out").glob("*.onnx"))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,bounds\nm.onnx\n", "line 2"),
        ("model,bounds,speed\nm.onnx,b.json,3\n", "speed"),
        ("model,bounds,seed\nm.onnx,b.json,x\n", "seed"),
        ('model,bounds\nm.onnx,"[0,1]"\nm.onnx,"[0,1]"\n', "both write"),
        ("model,bounds\n", "no job"),
        ("model\nm.onnx\n", "no bounds"),
    ],
)
def test_bad_jobs_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    Path("jobs.csv").write_text(text)
    assert run(["batch", "jobs.csv", "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
