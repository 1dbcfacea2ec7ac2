"""`redy plot`: each kind in each type of file, the numbers behind it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import redy
from redy.cli.main import run
from redy.report import report
from redy.report.plots import CRITERIA, _grid, removed_shares

pytest.importorskip("matplotlib")
MAGIC = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


@pytest.fixture(scope="module")
def document(models):
    network = redy.read_network(models / "avoidance.onnx")
    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    return json.loads(json.dumps(report(redy.reduce(network, box, criteria=("phase",), engine="linear"))))


@pytest.fixture(scope="module")
def family_file(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "f.redy"
    box = ["--bounds", str(models / "avoidance_close.box.json"), "--splits", "2,2,1,1,1"]
    assert run(["slice", str(models / "avoidance.onnx"), *box, "-o", str(path), "--quiet"]) == 0
    return path


def test_shares_add_up_to_the_units_removed(document):
    shares = removed_shares(document)
    assert tuple(shares) == CRITERIA
    assert sum(shares.values()) == pytest.approx(len(document["findings"]) / document["original"]["units"])
    assert shares["phase"] > 0


@pytest.mark.parametrize("suffix", list(MAGIC))
def test_every_type_of_file_is_written_and_the_same_twice(suffix, document, tmp_path):
    source = tmp_path / "report.json"
    source.write_text(json.dumps([document, document]))
    targets = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
    for target in targets:
        assert run(["plot", "criteria", str(source), "-o", str(target)]) == 0
    assert targets[0].read_bytes().startswith(MAGIC[suffix])
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_slices(family_file, tmp_path):
    target = tmp_path / "slices.svg"
    assert run(["plot", "slices", str(family_file), "-o", str(target)]) == 0
    assert "units removed" in target.read_text(encoding="utf-8")


def test_decisions_of_a_network_and_of_a_pair(models, tmp_path):
    model, box = str(models / "avoidance.onnx"), str(models / "avoidance_close.box.json")
    for files in ([model], [model, model]):
        target = tmp_path / f"decisions{len(files)}.svg"
        asked = ["--bounds", box, "--inputs", "1,2", "--points", "20", "--winner", "min"]
        assert run(["plot", "decisions", *files, *asked, "-o", str(target)]) == 0
        assert ("different at 0 of 400 points" in target.read_text(encoding="utf-8")) == (len(files) == 2)


def test_the_plane_goes_through_the_centre_of_the_box():
    box = redy.Box(np.array([0.0, -1.0, 2.0]), np.array([1.0, 1.0, 4.0]))
    grid, extent = _grid(box, (2, 0), 3)
    assert extent == (2.0, 4.0, 0.0, 1.0)
    assert grid[:, 1].tolist() == [0.0] * 9
    assert grid[:, 2].tolist() == [2.0, 3.0, 4.0] * 3
    assert grid[:, 0].tolist() == [0.0] * 3 + [0.5] * 3 + [1.0] * 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["criteria", "report.json", "-o", "figure.gif"],
        ["criteria", "none.json", "-o", "figure.png"],
        ["criteria", "report.json", "-o", "figure.png", "--bounds", "[0,1]"],
        ["criteria", "report.json", "-o", "report.json"],
        ["slices", "report.json", "-o", "figure.png"],
        ["slices", "a.redy", "b.redy", "-o", "figure.png"],
        ["decisions", "m.onnx", "-o", "figure.png"],
        ["decisions", "m.onnx", "m.onnx", "m.onnx", "--bounds", "[0,1]", "-o", "figure.png"],
        ["decisions", "m.onnx", "--bounds", "[0,1]", "--inputs", "0,5", "-o", "figure.png"],
        ["decisions", "m.onnx", "--bounds", "[0,1]", "--inputs", "1,1", "-o", "figure.png"],
        ["decisions", "m.onnx", "--bounds", "[0,1]", "--inputs", "x", "-o", "figure.png"],
        ["other", "m.onnx", "-o", "figure.png"],
    ],
)
def test_what_cannot_be_plotted_is_one_line_and_exit_2(arguments, document, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(document))
    (tmp_path / "m.onnx").write_bytes((models / "avoidance.onnx").read_bytes())
    assert run(["plot", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "figure.png").exists()
    assert json.loads((tmp_path / "report.json").read_text()) == document
