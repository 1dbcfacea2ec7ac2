"""An export of a slice carries a claim that `redy verify` confirms; one that computes something else is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_family import small_model

from redy.cli.main import run
from redy.slicing import exported
from redy.slicing.family import Family

MODES = {
    "outputs": [],
    "folded": ["--form", "folded", "--store-folded"],
    "decision": ["--preserve", "decision", "--margin", "1e-3"],
    "tolerance": ["--preserve", "tolerance", "--tolerance", "0.3"],
}


def family(folder: Path, mode: list[str]) -> Path:
    (folder / "m.onnx").write_bytes(small_model(3, (2, 14, 12, 3)))
    target = folder / "f.redy"
    command = ["slice", str(folder / "m.onnx"), "--bounds", "[-1,1]", "--splits", "3", "-o", str(target), "--quiet"]
    assert run([*command, *mode]) == 0
    return target


@pytest.mark.parametrize("mode", list(MODES))
def test_the_claim_of_a_slice_is_confirmed(mode: str, tmp_path: Path) -> None:
    file, target = family(tmp_path, MODES[mode]), tmp_path / "slice.onnx"
    opened = Family.open(file)
    chosen = [0, 4]
    if opened.winner is not None:
        assert (opened.winner >= 0).any()
        chosen = [int(part[0]) for part in map(np.flatnonzero, (opened.winner >= 0, opened.winner < 0)) if part.size]
    for index in chosen:
        assert run(["export", str(file), "--slice", str(index), "-o", str(target)]) == 0
        entries = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
        assert entries["redy.box.digest"] == opened.cut.cell(index).digest
        assert run(["verify", str(tmp_path / "m.onnx"), str(target)]) == 0


@pytest.mark.parametrize("what", ["slice", "whole"])
def test_an_export_that_computes_something_else_is_not_written(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if writing had changed one weight."""
    file, target = family(tmp_path, []), tmp_path / "out.onnx"
    target.write_bytes(b"before")
    name = "slice_model" if what == "slice" else "family_model"
    honest = getattr(exported, name)

    def wrong(*arguments: object) -> onnx.ModelProto:
        model = honest(*arguments)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("_bias"):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array + np.float32(0.5), tensor.name))
        return model

    monkeypatch.setattr(exported, name, wrong)
    command = ["export", str(file), "-o", str(target), *(["--slice", "4"] if what == "slice" else [])]
    code = run(command)
    assert code == 1
    assert "nothing was written" in capsys.readouterr().err
    assert target.read_bytes() == b"before"
    assert run(["export", str(file), "-o", str(target)]) == (0 if what == "slice" else 1)
