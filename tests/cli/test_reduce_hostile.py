"""`redy reduce` on files that must not be overwritten, on odd networks, and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import model_of, node

from redy.cli.main import run
from redy.formats.onnx_run import Session
from redy.model import Box
from redy.reduction.measure import within
from redy.report import schema

KINDS = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def mlp(kind="float32", shape=("N", 3), activation="Relu", outputs=("y",), end=None):
    """3 inputs, 6 units, 2 outputs; `end` names an operator behind them."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(size).astype(kind) for name, size in [("v", (3, 6)), ("b", 6), ("w", (6, 2))]}
    last = "y" if end is None else "z"
    nodes = [node("MatMul", "x v", "m"), node("Add", "m b", "a")]
    nodes += [node(activation, "a", "r")] if activation else []
    nodes += [node("MatMul", f"{'r' if activation else 'a'} w", last)]
    nodes += [] if end is None else [node(end, "z", "y")]
    return model_of(nodes, shape, weights, outputs=outputs, kind=KINDS[kind])


def reduce_file(model, tmp_path, *options, bounds="[-1,1]"):
    """The exit code of reducing a model that is saved first."""
    onnx.save(model, tmp_path / "net.onnx")
    command = ["reduce", str(tmp_path / "net.onnx"), "--bounds", bounds, "-o", str(tmp_path / "small.onnx")]
    return run([*command, "--quiet", *options])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "out.onnx", "--report", "net.onnx"], "the model"),
        (["-o", "out.onnx", "--report", "box.json"], "the source of the bounds"),
        (["-o", "box.json"], "the source of the bounds"),
        (["-o", "link.onnx"], "the model"),
        (["-o", "./new.onnx", "--report", "new.onnx"], "both the report and the network"),
        (["-o", os.devnull], "no regular file"),
        (["-o", "."], "is a folder"),
    ],
)
def test_no_source_is_overwritten_and_nothing_is_written_twice(options, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "net.onnx")
    (tmp_path / "link.onnx").symlink_to("net.onnx")
    (tmp_path / "box.json").write_text('{"lower": -1, "upper": 1}')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(["reduce", "net.onnx", "--bounds", "box.json", *options]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("model", "bounds"),
    [
        (mlp("float16"), "[-1,1]"),
        (mlp("float64"), "[-1,1]"),
        (mlp(shape=(1, 3)), "[-1,1]"),
        (mlp(shape=(3,)), "[-1,1]"),
        (mlp(shape=(7, 3)), "[-1,1]"),
        (mlp(activation=None), "[-1,1]"),
        (mlp(outputs=("r", "y")), "[3,4]"),
        (mlp(outputs=("a", "y")), "[-1,1]"),
        (mlp(), "[0.5,0.5]"),
        (mlp(activation="Sin"), "[-1,1]"),
        (mlp(end="Softmax"), "[-1,1]"),
        (mlp(end="Cos"), "[-1,1]"),
        (mlp(), "[-1e38,1e38]"),
        (mlp(), "[-1e300,1e300]"),
        (mlp("float16"), "[-60000,60000]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "net",
)
def test_an_odd_network_is_reduced_all_the_same(model, bounds, tmp_path, capsys):
    assert reduce_file(model, tmp_path, "--json", bounds=bounds) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema())
    assert document["measured"]["deviation"] <= 1e-4 * max(document["measured"]["scale"], 1e-30)
    assert document["reduced"]["parameters"] <= document["original"]["parameters"]
    first, second = (Session(tmp_path / name) for name in ("net.onnx", "small.onnx"))
    assert first.output_names == second.output_names


def test_a_step_that_cannot_follow_is_named_and_passed_over_unless_it_was_asked_for(tmp_path, capsys):
    assert reduce_file(mlp(end="Softmax"), tmp_path, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note.startswith("forward: y") for note in notes)
    (tmp_path / "small.onnx").unlink()
    assert reduce_file(mlp(end="Softmax"), tmp_path, "--criteria", "phase,forward") == 2
    assert "net.onnx: y" in capsys.readouterr().err
    assert not (tmp_path / "small.onnx").exists()


def test_the_report_says_what_a_tolerance_is_relative_to_and_what_counts_as_tied(tmp_path, capsys):
    box = '{"center": 0, "radius": 0.1}'
    for reference, lower in (("box", None), ("[-1,1]", [-1.0] * 3)):
        options = ["--preserve", "tolerance", "--tolerance", "0.01", "--relative-to", reference, "--json"]
        assert reduce_file(mlp(), tmp_path, *options, bounds=box) == 0
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema())
        found = document["options"]["relative_to"]
        assert found == "box" if lower is None else found["lower"] == lower
    assert reduce_file(mlp(), tmp_path, "--preserve", "decision", "--margin", "0.25", "--json", bounds=box) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema())
    assert document["options"]["margin"] == 0.25


def test_overflow_in_the_original_does_not_hide_a_difference(tmp_path, capsys, monkeypatch):
    from redy.model import Affine
    from redy.reduction import settle
    from redy.rewrite.dense import rebuilt

    to_model = settle.to_model

    def wrong(network, metadata=None, **_):
        *others, last = network.nodes
        assert isinstance(last, Affine)
        return to_model(rebuilt(network, [*others, Affine(last.name, last.terms, last.bias + 1e37)]), metadata)

    monkeypatch.setattr(settle, "to_model", wrong)
    assert reduce_file(mlp(), tmp_path, bounds="[-1e38,1e38]") == 0
    assert (tmp_path / "small.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_points_beyond_the_type_of_the_input_are_its_largest_numbers():
    box = Box(np.array([-1e300]), np.array([1e300]))
    found = within(box, np.array([[1e300], [-1e300], [0.1]]), "float32")
    largest = float(np.finfo(np.float32).max)
    np.testing.assert_array_equal(found, [[largest], [-largest], [np.float32(0.1)]])


@pytest.mark.parametrize("text", [b"", b"\x08\x08", b"no model at all\n" * 9])
def test_a_broken_model_leaves_an_existing_output_alone(text, tmp_path, capsys):
    (tmp_path / "net.onnx").write_bytes(text)
    out = tmp_path / "small.onnx"
    out.write_text("keep me")
    assert run(["reduce", str(tmp_path / "net.onnx"), "--bounds", "[-1,1]", "-o", str(out)]) == 2
    assert "net.onnx" in capsys.readouterr().err
    assert out.read_text() == "keep me"


def test_without_gurobipy_highs_answers_and_gurobi_is_one_line(models, tmp_path):
    blocked = tmp_path / "blocked"
    (blocked / "gurobipy").mkdir(parents=True)
    (blocked / "gurobipy" / "__init__.py").write_text("raise ImportError('not here')\n")
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    box = '{"center": 0, "radius": 0.05}'
    command = [sys.executable, "-m", "redy", "reduce", str(models / "avoidance.onnx"), "--bounds", box, "--quiet"]
    for solver, code in (("highs", 0), ("auto", 0), ("gurobi", 2)):
        options = ["--engine", "milp", "--solver", solver, "--time-limit", "5", "-o", str(tmp_path / "small.onnx")]
        found = subprocess.run([*command, *options], check=False, env=environment, capture_output=True, text=True)
        assert found.returncode == code, found.stderr
        assert len(found.stderr.splitlines()) == (code == 2)
        assert "Traceback" not in found.stderr


def test_ctrl_c_in_the_middle_is_one_line_and_leaves_the_output_alone(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [5, 60, 60, 60, 60, 5]
    weights = {
        f"w{k}": (rng.standard_normal(pair) / np.sqrt(pair[0])).astype(np.float32)
        for k, pair in enumerate(pairwise(sizes))
    }
    nodes = []
    for k in range(5):
        nodes.append(node("MatMul", f"{f'r{k - 1}' if k else 'x'} w{k}", "y" if k == 4 else f"a{k}"))
        nodes += [node("Relu", f"a{k}", f"r{k}")] if k < 4 else []
    onnx.save(model_of(nodes, ("N", 5), weights), tmp_path / "net.onnx")
    (tmp_path / "small.onnx").write_text("keep me")
    command = [sys.executable, "-m", "redy", "reduce", "net.onnx", "--bounds", "[-1,1]", "-o", "small.onnx"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "criterion phase" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1] == "error: interrupted; nothing was written"
    assert "Traceback" not in err
    assert (tmp_path / "small.onnx").read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "small.onnx"]
