"""No command writes over a file that it reads, or two things into one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data
from onnx_models import model_of

from redy.cli.main import run
from redy.cli.paths import guard
from redy.errors import InputError


def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(2, 3)).astype(np.float32), "v": rng.normal(size=(3, 2)).astype(np.float32)}
    nodes = [("MatMul", "x w", "a"), ("Relu", "a", "r"), ("MatMul", "r v", "y")]
    return model_of(
        [onnx.helper.make_node(kind, read.split(), [made]) for kind, read, made in nodes], ("N", 2), weights
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model (also with external data), a box, points, a family and a file of jobs."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(model().SerializeToString())
    stored = model()
    convert_model_to_external_data(stored, location="m.data", size_threshold=0)
    onnx.save(stored, "e.onnx")
    Path("box.json").write_text('{"lower": [-1, -1], "upper": [1, 1]}', encoding="utf-8")
    np.save("x.npy", np.zeros((1, 2), np.float32))
    assert run(["slice", "m.onnx", "--bounds", "box.json", "--splits", "1", "-o", "f.redy", "--quiet"]) == 0
    Path("jobs.csv").write_text(
        "model,bounds,output\nm.onnx,box.json,a.onnx\nm.onnx,box.json,b.onnx\n", encoding="utf-8"
    )
    return tmp_path


SLICE = ["slice", "m.onnx", "--bounds", "box.json", "--splits", "1", "--quiet"]
REDUCE = ["reduce", "m.onnx", "--bounds", "box.json", "--quiet"]
BATCH = ["batch", "--models", "m.onnx", "--bounds", "box.json"]


@pytest.mark.parametrize(
    "command",
    [
        [*REDUCE, "-o", "m.onnx"],
        [*REDUCE, "-o", "box.json"],
        [*REDUCE, "--report", "m.onnx"],
        [*REDUCE, "--report", "m.reduced.onnx"],
        [*REDUCE, "--preserve", "tolerance", "--tolerance", "1", "--relative-to", "other.json", "-o", "other.json"],
        ["reduce", "e.onnx", "--bounds", "[-1,1]", "--quiet", "-o", "m.data"],
        [*SLICE, "-o", "m.onnx"],
        [*SLICE, "-o", "box.json"],
        [*SLICE, "-o", "g.redy", "--csv", "m.onnx"],
        [*SLICE, "-o", "g.redy", "--csv", "g.redy"],
        [*SLICE, "-o", "g.redy", "--csv", "g.redy.sqlite"],
        [*SLICE, "-o", "g.redy", "--store", "g.redy"],
        [*SLICE, "-o", "g.redy", "--store", "m.onnx"],
        [*SLICE, "-o", "g.redy", "--store", "s", "--csv", "s-wal"],
        ["export", "f.redy", "-o", "f.redy"],
        ["eval", "f.redy", "--input", "x.npy", "-o", "x.npy"],
        ["eval", "f.redy", "--input", "x.npy", "-o", "f.redy"],
        ["simplify", "m.onnx", "-o", "m.onnx", "--quiet"],
        ["simplify", "e.onnx", "-o", "m.data", "--quiet"],
        ["simplify", "m.onnx", "-o", "n.onnx", "--report", "n.onnx", "--quiet"],
        ["simplify", "m.onnx", "-o", "n.onnx", "--report", "m.onnx", "--quiet"],
        [*BATCH, "-o", ".", "--csv", "m.onnx"],
        [*BATCH, "-o", ".", "--store", "box.json"],
        [*BATCH, "-o", ".", "--store", "m--box.onnx"],
        ["batch", "jobs.csv", "-o", ".", "--csv", "jobs.csv"],
        ["batch", "jobs.csv", "-o", ".", "--store", "b.onnx"],
        ["batch", "linked.csv", "-o", "."],
    ],
    ids=" ".join,
)
def test_no_command_destroys_what_it_reads(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.json").write_text('{"lower": [-1, -1], "upper": [1, 1]}', encoding="utf-8")
    Path("a.onnx").symlink_to("target.onnx")
    Path("b.onnx").symlink_to("target.onnx")
    Path("linked.csv").write_text(Path("jobs.csv").read_text(encoding="utf-8"), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert run(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


def spellings(folder: Path) -> dict[str, str]:
    """Other names of the file `there` and of `new`, which is not there yet."""
    (folder / "there").write_text("x", encoding="utf-8")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("there")
    (folder / "again").symlink_to("link")
    (folder / "dangling").symlink_to("new")
    (folder / "door").symlink_to(folder, target_is_directory=True)
    os.link(folder / "there", folder / "hard")
    there = ["there", "./there", "sub/../there", "link", "again", "door/there", "hard", str(folder / "there")]
    new = ["new", "./new", "sub/../new", "dangling", "door/new", str(folder / "new")]
    return {**dict.fromkeys(there, "there"), **dict.fromkeys(new, "new")}


def test_every_spelling_of_a_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = spellings(tmp_path)
    for one, file in names.items():
        for other, same in names.items():
            as_input = [("the model", Path(one))], [("the network", Path(other))]
            as_outputs = [("the model", None)], [("the report", Path(one)), ("the network", Path(other))]
            for inputs, outputs in (as_input, as_outputs):
                if file == same:
                    with pytest.raises(InputError, match=r"the model itself|both the network and the report"):
                        guard(inputs, outputs)
                else:
                    guard(inputs, outputs)


def test_the_text_of_a_box_is_no_file(tmp_path: Path) -> None:
    guard([("the source of the bounds", "[-1,1]"), ("the source of the bounds", "[" * 5000)], [("it", tmp_path / "o")])


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    for place, text in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "file", "does not exist"),
        (Path(os.devnull), "no"),
    ):
        with pytest.raises(InputError, match=text):
            guard([], [("the network", place)])
