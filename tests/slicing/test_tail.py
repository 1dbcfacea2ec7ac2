"""Slicing on a hidden layer: a shared front, small networks behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_family import small_model

from redy.cli.main import run
from redy.formats.onnx_read import read_network
from redy.slicing.family import Family


def original(model: Path, x: np.ndarray) -> np.ndarray:
    network = read_network(model)
    return network.evaluate(x.astype(np.float64))


def test_a_dense_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model(4, (30, 10, 12, 12, 3)))
    command = ["slice", "m.onnx", "--bounds", "[-0.3,0.3]", "--at", "y0", "--units", "3", "--quiet", "-o", "f.redy"]
    assert run(command) == 0
    family = Family.open("f.redy")
    assert len(family) == len(family.cut) <= 8
    assert (family.removed() > 0).any()
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (300, 30)).astype(np.float32)
    assert len(set(family.locate(x).tolist())) > 1
    for form in ("shared", "folded"):
        np.testing.assert_allclose(family.evaluate(x, form=form), original(Path("m.onnx"), x), atol=1e-4)
    np.testing.assert_allclose(family.evaluate(x[0]), original(Path("m.onnx"), x[:1])[0], atol=1e-4)


def test_the_dense_tail_of_the_digits_cnn(models: Path, tmp_path: Path) -> None:
    model = models / "digits_cnn.onnx"
    network = read_network(model)
    dense = [node.name for node in network.activations if len(node.shape) == 1]
    if not dense:
        pytest.skip("the shipped network has no dense hidden layer")
    output = str(tmp_path / "f.redy")
    bounds = str(models / "digits_cnn.box.json")
    assert (
        run(["slice", str(model), "--bounds", bounds, "--at", dense[0], "--units", "2", "--quiet", "-o", output]) == 0
    )
    family = Family.open(output)
    x = family.front.box.sample(50, np.random.default_rng(0)).astype(np.float32)
    np.testing.assert_allclose(family.evaluate(x), original(model, x), atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--at", "nothing", "--units", "2"], "no ReLU layer"), (["--at", "y0", "--units", "40"], "--units"),
     (["--at", "y0"], "together"), (["--at", "y0", "--units", "2", "--splits", "2"], "how to cut")],
)  # fmt: skip
def test_refusals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model(4, (30, 10, 12, 12, 3)))
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
