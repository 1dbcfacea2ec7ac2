"""Slicing on a hidden layer: a shared front, small networks behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import run_c, small_model

import redy
from redy.bounds.linear import linear_bounds
from redy.cli.main import run
from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.slicing.export_onnx import session
from redy.slicing.family import Family
from redy.slicing.program import program_of
from redy.slicing.tail import hidden_box, rounding, split_model


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


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_exports_of_a_dense_family(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C gives the bits of numpy; the one model, with the front as it was, the outputs of the original."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model(4, (30, 10, 12, 12, 3)))
    command = ["slice", "m.onnx", "--bounds", "[-0.3,0.3]", "--at", "y0", "--units", "3", "--quiet", "-o", "f.redy"]
    assert run([*command, "--form", form]) == 0
    family = Family.open("f.redy")
    assert family.front.program is not None
    x = np.random.default_rng(1).uniform(-0.3, 0.3, (2000, 30)).astype(np.float32)
    x[:200] = np.random.default_rng(2).choice(np.float32([-0.3, 0.3]), (200, 30))
    assert run(["export", "f.redy", "-o", "f.c"]) == 0
    y = run_c(Path("f.c").read_text(), x, tmp_path)
    assert y.tobytes() == family.evaluate(x).tobytes()
    assert run(["export", "f.redy", "-o", "f.onnx"]) == 0
    model = onnx.load("f.onnx")
    assert [port.name for port in model.graph.input] == ["x"]
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], original(Path("m.onnx"), x), atol=1e-4)
    assert {entry.key: entry.value for entry in model.metadata_props}["redy.slices"] == str(len(family))


@pytest.mark.parametrize("at", ["y0", "y1"])
def test_hidden_values_of_every_engine_stay_in_the_hidden_box(at: str) -> None:
    """The box is widened by a bound on the rounding, which onnxruntime and sums in a fixed order keep."""
    model = onnx.load_from_string(small_model(7, (6, 200, 100, 3)))
    network, box = read_network(model), Box(np.full(6, -1.0), np.full(6, 1.0))
    margin = rounding(network, box, at, linear_bounds(network, box).intervals)
    x = np.random.default_rng(0).uniform(-1, 1, (500, 6)).astype(np.float32)
    exact = network.trace(x.astype(np.float64), keep=[at])[at]
    front, _ = split_model(model, at)
    program = program_of(read_network(onnx.load_from_string(front)), "float32")
    for values in (session(onnx.load_from_string(front)).run(None, {"x": x})[0], program.evaluate(x)):
        error = np.abs(values - exact)
        assert (error <= margin).all()
        assert error.max() > 0
        assert hidden_box(network, box, at).contains(values.astype(np.float64)).all()


def test_one_model_of_the_digits_cnn(models: Path, tmp_path: Path) -> None:
    model = models / "digits_cnn.onnx"
    dense = [node.name for node in read_network(model).activations if len(node.shape) == 1]
    if not dense:
        pytest.skip("the shipped network has no dense hidden layer")
    path = str(tmp_path / "f.redy")
    bounds = str(models / "digits_cnn.box.json")
    assert run(["slice", str(model), "--bounds", bounds, "--at", dense[0], "--units", "2", "--quiet", "-o", path]) == 0
    family = Family.open(path)
    x = family.front.box.sample(50, np.random.default_rng(0)).astype(np.float32)
    assert run(["export", path, "-o", str(tmp_path / "f.onnx")]) == 0
    joined = onnx.load(tmp_path / "f.onnx")
    shaped = {joined.graph.input[0].name: x.reshape(-1, *family.front.box.shape)}
    y = session(joined).run(None, shaped)[0]
    np.testing.assert_allclose(y, original(model, x), atol=1e-3)
    assert run(["export", path, "-o", str(tmp_path / "f.c")]) == 0
    source = (tmp_path / "f.c").read_text()
    assert "not the model's input" in source
    assert family.front.program is None
    hidden = family.points(x)[0]
    assert run_c(source, hidden, tmp_path).tobytes() == family.evaluate(x).tobytes()


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


def test_joined_parts_are_said(tmp_path: Path) -> None:
    """On a box so small that every unit is stuck in one phase, all parts need the same units."""
    (tmp_path / "m.onnx").write_bytes(small_model(4, (30, 10, 12, 12, 3)))
    said: list[str] = []
    box = Box(np.full(30, 0.3), np.full(30, 0.3 + 1e-9))
    family = redy.slice_network(tmp_path / "m.onnx", box, at="y0", units=3, say=said.append)
    assert len(family) == 1
    assert said == [line for line in said if "8 parts were cut, 1 left" in line]
    assert len(said) == 1
