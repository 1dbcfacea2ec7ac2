"""What is stated about a written file holds for that file, evaluated by another program with all numbers in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from file_networks import random_model, widened

from redy.cli.main import run

MODES = (
    [],
    ["--preserve", "decision"],
    ["--preserve", "tolerance", "--tolerance", "0.05"],
    ["--preserve", "decision", "--margin", "0.01"],
    ["--preserve", "tolerance", "--tolerance", "1e-3"],
)
NOISE = 1e-11
"""Evaluation of both files in float64, relative to the outputs."""


def check(seed: int, folder: Path, capsys: pytest.CaptureFixture[str], *, quick: bool = False) -> None:
    model, lower, upper = random_model(seed)
    mode = MODES[seed % len(MODES)]
    source, target, box = folder / "m.onnx", folder / "small.onnx", folder / "box.json"
    source.write_bytes(model.SerializeToString())
    box.write_text(json.dumps({"lower": lower.tolist(), "upper": upper.tolist()}), encoding="utf-8")
    command = ["reduce", str(source), "--bounds", str(box), "-o", str(target), "--json", "--quiet", *mode]
    command += ["--engine", "linear"] if quick and lower.size > 3 else []
    capsys.readouterr()
    assert run(command) == 0, (seed, capsys.readouterr().err)
    guarantee = json.loads(capsys.readouterr().out)["guarantee"]
    rng = np.random.default_rng(seed)
    u = np.concatenate([rng.random((60, *lower.shape)), rng.integers(0, 2, (60, *lower.shape))])
    points = lower + u * (upper - lower)
    files = [widened(onnx.load(path)) for path in (source, target)]
    before, after = (np.asarray(file.run(None, {"x": points})[0], dtype=np.float64) for file in files)
    scale = float(np.abs(before).max())
    if guarantee["error"] is not None:
        assert (np.abs(after - before) <= np.array(guarantee["error"]["y"]) + NOISE * scale).all(), seed
    if "decision" in mode:
        # Where rounding alone moves outputs by more than a margin that nobody named, the claim names a wider one.
        margin = float(mode[3]) if len(mode) > 2 else stated_margin(target, 1.1e-5 * scale)
        ahead = before.max(axis=1, keepdims=True) - before > margin + NOISE * scale
        winner = after[np.arange(len(after)), before.argmax(axis=1)]
        assert (winner[:, None] - after > -NOISE * scale)[ahead].all(), seed
    elif "tolerance" in mode:
        assert guarantee["error"] is not None
        assert np.array(guarantee["error"]["y"]).max() <= float(mode[3]), seed


def stated_margin(path: Path, usual: float) -> float:
    """The margin in a file's metadata; where it has none it is the original, whose margin is the usual one."""
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return float(json.loads(entries["redy.claim"])["margin"]) if "redy.claim" in entries else usual


def test_a_margin_that_was_named_is_kept_or_the_original_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounding to float16 moves the outputs of these networks by more than the margin."""
    for seed in (1211, 2486, 2986):
        model, lower, upper = random_model(seed)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        box = json.dumps({"lower": lower.tolist(), "upper": upper.tolist()})
        (tmp_path / "box.json").write_text(box, encoding="utf-8")
        target = tmp_path / "small.onnx"
        command = ["reduce", str(tmp_path / "m.onnx"), "--bounds", str(tmp_path / "box.json"), "-o", str(target)]
        assert run([*command, "--preserve", "decision", "--margin", "1e-5", "--quiet"]) == 0
        assert stated_margin(target, 1e-5) == 1e-5, capsys.readouterr()


def test_statements_about_random_files_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(150):
        check(seed, tmp_path, capsys, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_statements_about_many_random_files_hold(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(1_000 + 100 * part, 1_100 + 100 * part):
        check(seed, tmp_path, capsys)
