"""Files and patterns of jobs: every field is checked with its place, order is stated, and new models are taken."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_family import small_model

from redy.cli.main import run
from redy.errors import InputError
from redy.runs.entering import Entering
from redy.runs.job_fields import FIELDS, OPTIONS
from redy.runs.job_files import read_jobs
from redy.runs.job_patterns import output_folder, pattern_jobs
from redy.runs.jobs import Job, checked, numbered, waves
from redy.runs.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    return tmp_path


BAD = {
    "model": ["", 3, None, ["a"]],
    "bounds": ["[1,", 3, True, "{]"],
    "output": [1, False, {}],
    "after": [0, "x", 1.5, -1, True, []],
    "preserve": ["all", 1],
    "tolerance": [0, -1.0, "x", True, "nan", "inf", [1]],
    "relative_to": ["all"],
    "winner": ["most"],
    "margin": [0, "x"],
    "engine": ["fast"],
    "solver": ["cplex"],
    "criteria": [3],
    "effort": ["much"],
    "time_limit": [0, "soon", False],
    "seed": [-1, 1.5, "x", True],
    "refit": ["maybe", 1],
}


def test_every_field_has_bad_values() -> None:
    assert set(BAD) == set(FIELDS | OPTIONS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_in_json_is_named_with_its_place(tmp_path: Path, name: str, value: object) -> None:
    row = {"model": "m.onnx", "bounds": "[0,1]", name: value}
    line = json.dumps(row)
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"model": "a.onnx", "bounds": "[0,1]"}\n\n' + line + "\n")
    place = f"jobs.jsonl: line 3, column {line.index(chr(34) + name + chr(34)) + 1}: {name}"
    with pytest.raises(InputError) as error:
        read_jobs(path, tmp_path)
    assert place in str(error.value) or (value is None and "line 3: has no model" in str(error.value))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in BAD.items() for v in values if isinstance(v, str) and v.strip()]
)
def test_a_bad_cell_is_named_with_its_place(tmp_path: Path, separator: str, name: str, value: str) -> None:
    header = [name, *(other for other in ("model", "bounds") if other != name)]
    cells = {"model": "m.onnx", "bounds": '"[0,1]"', name: f'"{value}"'}
    path = tmp_path / "jobs.csv"
    path.write_text("\n".join(separator.join(row) for row in (header, [cells[name] for name in header])))
    with pytest.raises(InputError, match=f"line 2, column 1: {name} "):
        read_jobs(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "model,bounds,model\n", "line 1, column 3: model is there twice"),
        ("a.csv", "model,speed,bounds\n", "line 1, column 2: 'speed' is none of"),
        ("a.csv", "model,,bounds\n", "line 1, column 2: '' is none of"),
        ("a.csv", "model;bounds\nm.onnx\n", "line 2: has 1 fields, the header has 2"),
        ("a.csv", 'model,bounds\n"m.onnx,b\n', "is no CSV"),
        ("a.csv", "model,bounds,preserve\nm.onnx,b.json,tolerance\n", "line 2, column 3: preserve tolerance"),
        ("a.jsonl", '{"model": "a", "bounds": "b", "model": "c"}', "column 31: model is there twice"),
        ("a.jsonl", '{"model": "a", "bounds": "b", "seed": 1, "options": {"seed": 2}}', "seed is there twice"),
        ("a.jsonl", '{"model": "a", "bounds": "b", "options": {"output": "c"}}', "output is no option"),
        ("a.jsonl", '{"model": "a", "bounds": "b", "options": [1]}', "column 31: options must be"),
        ("a.jsonl", '{"model": "a",, "bounds": "b"}', "line 1, column 15: is not JSON"),
        ("a.jsonl", "[1]", "line 1: must be an object"),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
        ("a.txt", "model,bounds\n", "must end in"),
        ("a.csv", "", "is empty"),
    ],
)
def test_what_is_no_list_of_jobs_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_jobs(tmp_path / name, tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["a.csv", "a.jsonl"]), st.text('model,bounds;\t\n"{}[]:01 after', max_size=60))
def test_any_text_is_jobs_or_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    try:
        said = read_jobs(tmp_path / name, tmp_path)
    except InputError as error:
        said = str(error)
    assert said
    assert isinstance(said, list) or "\n" not in said


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_types(tmp_path: Path, separator: str) -> None:
    header = ["model", "bounds", "output", "after", "preserve", "tolerance", "seed", "refit"]
    first = ["m.onnx", '"[[0,1],[0,1]]"', "a.onnx", "", "", "", "", ""]
    second = ["n.onnx", "b.json", "b.onnx", "1", "tolerance", "0.5", "3", "true"]
    path = tmp_path / "jobs.csv"
    path.write_text("\n".join(separator.join(row) for row in (header, first, second)), encoding="utf-8-sig")
    one, two = read_jobs(path, tmp_path / "out")
    assert one == Job(str(tmp_path / "m.onnx"), "[[0,1],[0,1]]", str(tmp_path / "out/a.onnx"))
    assert two.options == {"preserve": "tolerance", "tolerance": 0.5, "seed": 3, "refit": True}
    assert (two.after, two.bounds) == ((0,), str(tmp_path / "b.json"))


def test_a_file_that_one_job_writes_and_another_reads_needs_an_order(tmp_path: Path) -> None:
    a, b, c = (str(tmp_path / name) for name in ("a.onnx", "b.onnx", "c.onnx"))
    link = tmp_path / "link.onnx"
    link.symlink_to(b)
    for model in (b, str(tmp_path / "." / "x" / ".." / "b.onnx"), str(link)):
        jobs = [Job(a, "[0,1]", b), Job(model, "[0,1]", c)]
        with pytest.raises(InputError, match=r"job 2: reads .* which job 1 writes"):
            checked(jobs)
        assert checked([jobs[0], Job(model, "[0,1]", c, {}, (0,))])
    with pytest.raises(InputError, match="circle"):
        checked([Job(a, "[0,1]", b, {}, (1,)), Job(a, "[0,1]", c, {}, (0,))])
    for after in (0, 5):
        with pytest.raises(InputError, match="after must name"):
            checked([Job(a, "[0,1]", b, {}, (after,))])
    chain = [Job(a, "[0,1]", f"{k}.onnx", {}, (k - 1,) if k else ()) for k in range(5000)]
    assert waves(checked(chain)) == [[k] for k in range(5000)]


def test_numbers_stay_with_their_jobs(tmp_path: Path) -> None:
    first, second, new = (Job(name, "[0,1]", f"{name}.out") for name in "acb")
    there = {1: first.identity, 2: second.identity}
    assert numbered(tmp_path, [first, new, second], there) == [1, 3, 2]
    with pytest.raises(InputError, match="job 2"):
        numbered(tmp_path, [first, new], there)


def test_patterns_of_models_and_outputs(folder: Path) -> None:
    for path in ("nets/a/x.onnx", "nets/b/x.onnx", "nets/x.onnx"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(small_model())
    Path("wide.box.json").write_text("[-1,1]")
    jobs = pattern_jobs("nets/**/*.onnx", "*.json", "out/{model}/{box}.onnx", {})
    assert sorted(job.output for job in jobs) == [f"out/{name}/wide.box.onnx" for name in ("a/x", "b/x", "x")]
    assert output_folder("out/{model}/{box}.onnx") == Path("out")
    assert output_folder("{model}.onnx") == Path()
    with pytest.raises(InputError, match="neither"):
        pattern_jobs("nets/*.onnx", "*.json", "out/{net}.onnx", {})
    with pytest.raises(InputError, match="both write"):
        pattern_jobs("nets/**/*.onnx", "*.json", "out/{box}.onnx", {})
    assert run(["batch", "--models", "nets/**/*.onnx", "--bounds", "*.json", "--output", "out/{model}/{box}.onnx"]) == 0
    assert all(Path(job.output).is_file() for job in jobs)


def rows(store: str = "out/results.sqlite") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(store)
    found = connection.execute("SELECT job, output, status, error FROM results ORDER BY job").fetchall()
    connection.close()
    return found


def test_a_model_that_appeared_is_taken_and_the_rest_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", "--models", "*.onnx", "--bounds", "[-1,1]", "-o", "out", "--report", "run.json", "--resume"]
    assert run(command) == 0
    stamp = Path(rows()[0][1]).stat().st_mtime_ns
    Path("a.onnx").write_bytes(small_model(3))
    assert run(command) == 0
    assert [row[0] for row in rows()] == [1, 2]
    assert Path(rows()[0][1]).stat().st_mtime_ns == stamp
    report = json.loads(Path("run.json").read_text())
    assert (report["jobs"], report["done"], report["made"]) == (2, 2, 1)
    assert [entry["made"] for entry in report["results"]] == [False, True]
    Path("m.onnx").rename("elsewhere")
    capsys.readouterr()
    assert run(command) == 2
    assert "another list of jobs" in capsys.readouterr().err


def test_jobs_that_run_after_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "model,bounds,output,after\n"
    Path("jobs.csv").write_text(f'{header}out/a.onnx,"[-1,1]",b.onnx,2\nm.onnx,"[-1,1]",a.onnx,\n')
    command = ["batch", "jobs.csv", "-o", "out", "--resume", "--report", "run.json"]
    assert run(command) == 0
    Path("out/a.onnx").unlink()
    capsys.readouterr()
    assert run(command) == 0
    assert json.loads(Path("run.json").read_text())["made_again"] == {
        "1": "job 2, after which it runs, is made",
        "2": "its output was gone",
    }
    Path("jobs.csv").write_text(f'{header}out/a.onnx,"[-1,1]",b.onnx,2\nnosuch.onnx,"[-1,1]",a.onnx,\n')
    assert run(["batch", "jobs.csv", "-o", "out", "--store", "other.sqlite"]) == 1
    (_, _, first, error), (_, _, second, _) = rows("other.sqlite")
    assert (first, second) == ("failed", "failed")
    assert error == "job 2, after which it runs, failed"


def test_an_order_that_is_not_stated_is_refused_before_any_job(folder: Path) -> None:
    before = Path("m.onnx").read_bytes()
    for row in ('m.onnx,"[-1,1]",a.onnx\nout/a.onnx,"[-1,1]",b.onnx\n', 'm.onnx,"[-1,1]",../m.onnx\n'):
        Path("jobs.csv").write_text("model,bounds,output\n" + row)
        assert run(["batch", "jobs.csv", "-o", "out"]) == 2
        assert not list(Path("out").glob("*.onnx"))
    assert Path("m.onnx").read_bytes() == before


def enter_all(store: Store, rows: list[tuple[object, ...]]) -> None:
    with Entering(store, lambda _: None) as entering:
        for row in rows:
            entering.enter(row)


def test_results_are_entered_in_groups_and_errors_come_back(tmp_path: Path) -> None:
    said: list[tuple[object, ...]] = []
    with Store(tmp_path / "s.sqlite", {"job": "INTEGER", "x": "REAL NOT NULL"}, {}) as store:
        with Entering(store, said.append) as entering:
            for number in range(3000):
                entering.enter((number, 0.5))
        assert store.done() == len(said) == 3000
        more = [(number, 0.5) if number != 3500 else (number, None) for number in range(3000, 6000)]
        with pytest.raises(sqlite3.IntegrityError):
            enter_all(store, more)
        assert 3000 <= store.done() <= 3500
        store.add([(9000, 0.5)])
