"""`redy.slice_network` gives the family of `redy slice`; `redy info` of a family; no model is written over."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper
from test_family import small_model

import redy
from redy.cli.main import run
from redy.slicing.family import Family
from redy.slicing.saved import read_family, write_family

BOX = redy.Box(np.full(2, -1.0), np.full(2, 1.0))
HOW = {
    "grid": (["--splits", "3"], {"splits": 3}),
    "grid of each": (["--splits", "2,3"], {"splits": (2, 3)}),
    "tree": (["--adaptive", "--budget", "4"], {"budget": 4}),
    "layer": (["--at", "y0", "--units", "2"], {"at": "y0", "units": 2}),
    "decision": (["--splits", "3", "--preserve", "decision"], {"splits": 3, "preserve": "decision"}),
    "tolerance": (
        ["--splits", "2", "--preserve", "tolerance", "--tolerance", "0.5"],
        {"splits": 2, "preserve": "tolerance", "tolerance": 0.5},
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    return tmp_path


@pytest.mark.parametrize("how", HOW)
def test_the_interface_and_the_command_give_the_same_file(how: str) -> None:
    arguments, options = HOW[how]
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--quiet", "-o", "command.redy", *arguments]) == 0
    redy.slice_network("m.onnx", BOX, **options).save("interface.redy")
    assert Path("interface.redy").read_bytes() == Path("command.redy").read_bytes()


def test_a_store_keeps_results_and_writes_tables() -> None:
    first = redy.slice_network("m.onnx", BOX, splits=3, store="s.sqlite", csv="s.csv")
    seen = []
    again = redy.slice_network("m.onnx", BOX, splits=3, store="s.sqlite", resume=True, progress=seen.append)
    assert not seen
    assert len(Path("s.csv").read_text().splitlines()) == 10
    first.save("a.redy")
    again.save("b.redy")
    assert Path("a.redy").read_bytes() == Path("b.redy").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "say how to cut"),
        ({"splits": 2, "budget": 3}, "say how to cut"),
        ({"splits": 2, "csv": "a.csv"}, "--store"),
        ({"splits": 2, "resume": True}, "--store"),
        ({"splits": 2, "jobs": 0}, "--jobs"),
        ({"splits": 2, "preserve": "all"}, "--preserve"),
        ({"splits": 2, "form": "small"}, "--form"),
        ({"splits": 2, "tolerance": 1.0}, "together"),
        ({"at": "y0"}, "together"),
        ({"at": "nosuch", "units": 1}, "no ReLU layer"),
        ({"budget": 0}, "at least 1"),
        ({"splits": (2, 2, 2)}, "2 inputs"),
    ],
)
def test_what_does_not_fit_is_an_input_error(options: dict[str, object], words: str) -> None:
    with pytest.raises(redy.InputError, match=words):
        redy.slice_network("m.onnx", BOX, **options)


def test_a_model_with_external_data_or_compressed_is_kept_whole(tmp_path: Path) -> None:
    model = onnx.load("m.onnx")
    external_data_helper.convert_model_to_external_data(model, location="m.data", size_threshold=0)
    Path("apart").mkdir()
    onnx.save(model, "apart/m.onnx")
    import gzip

    Path("m.onnx.gz").write_bytes(gzip.compress(Path("m.onnx").read_bytes()))
    x = BOX.sample(20, np.random.default_rng(0))
    expected = redy.slice_network("m.onnx", BOX, splits=2).evaluate(x)
    for path in ("apart/m.onnx", "m.onnx.gz"):
        redy.slice_network(path, BOX, splits=2).save("f.redy")
        assert np.array_equal(Family.open("f.redy").evaluate(x), expected)


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard", "copy"])
@pytest.mark.parametrize("kind", [["-o", "{}"], ["--slice", "0", "-o", "{}"]])
def test_an_export_never_lands_on_the_original(link: str, kind: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    redy.slice_network("m.onnx", BOX, splits=2).save("f.redy")
    before = Path("m.onnx").read_bytes()
    if link == "symbolic":
        Path("other.onnx").symlink_to("m.onnx")
    elif link == "hard":
        os.link("m.onnx", "other.onnx")
    elif link == "copy":
        shutil.copy("m.onnx", "other.onnx")
    target = "m.onnx" if link == "itself" else "other.onnx"
    assert run(["export", "f.redy", *(part.format(target) for part in kind)]) == 2
    assert "made from" in capsys.readouterr().err
    assert Path("m.onnx").read_bytes() == Path(target).read_bytes() == before


@pytest.mark.parametrize("how", HOW)
def test_info_of_a_family(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    family = redy.slice_network("m.onnx", BOX, **HOW[how][1])
    family.save("f.redy")
    assert run(["info", "f.redy", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["slices"] == len(family)
    assert facts["guarantee"] == family.guarantee
    assert facts["digests"]["box"] == BOX.digest
    assert facts["digests"]["source_sha256"] == redy.slicing.saved.file_digest(Path("m.onnx"))
    assert facts["options"]["work"] == 200_000_000
    assert facts["units_not_needed"]["mean"] == pytest.approx(family.removed().mean())
    assert run(["info", "f.redy"]) == 0
    text = capsys.readouterr().out
    assert family.guarantee in text
    assert f"{len(family)} (" in text
    Path("f.redy").write_bytes(Path("f.redy").read_bytes()[:200])
    assert run(["info", "f.redy"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_another_box_than_the_manifest_says_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    family = redy.slice_network("m.onnx", BOX, splits=2)
    other = redy.slice_network("m.onnx", redy.Box(np.zeros(2), np.ones(2)), splits=2)
    with monkeypatch.context() as patched:
        patched.setattr("redy.slicing.saved._box", lambda _: other.cut.box)
        write_family(replace(family), "f.redy")
    with pytest.raises(redy.InputError, match="do not fit"):
        read_family("f.redy")
