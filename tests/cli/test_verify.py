"""`redy verify`: right answers, exit codes, and changed weights are found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from redy.cli.main import run
from redy.formats.boxes import read_box
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def reduced(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "small.onnx"
    bounds = str(models / "avoidance_close.box.json")
    assert run(["reduce", str(models / "avoidance.onnx"), "--bounds", bounds, "-o", str(path), "--quiet"]) == 0
    return path


def verify(models: Path, other: Path, *options: str) -> int:
    bounds = str(models / "avoidance_close.box.json")
    return run(["verify", str(models / "avoidance.onnx"), str(other), "--bounds", bounds, *options])


def test_a_reduced_network_is_verified(models, reduced):
    assert verify(models, reduced, "--preserve", "outputs", "--quiet") == 0
    assert verify(models, reduced, "--tolerance", str(TOLERANCE), "--quiet") == 0


def mutants(path: Path, original: Path, points: np.ndarray, tolerance: float, count: int) -> list[onnx.ModelProto]:
    """Copies with one weight changed, each of which a point shows to break the tolerance."""
    rng = np.random.default_rng(0)
    model, before, found = onnx.load(path), Session(original).run(points), []
    while len(found) < count:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        tensor = rng.choice([t for t in copy.graph.initializer if len(t.dims) == 2])
        weight = numpy_helper.to_array(tensor).copy()
        weight.ravel()[rng.integers(weight.size)] += rng.choice([-1, 1]) * 10.0 ** rng.uniform(-2, 0)
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
        if np.abs(Session(copy).run(points) - before).max() > 2 * tolerance:
            found.append(copy)
    return found


@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_changed_weights_are_refuted_with_a_point_that_onnxruntime_confirms(models, reduced, tmp_path, capsys, count):
    box = read_box(str(models / "avoidance_close.box.json"), read_network(models / "avoidance.onnx").input.shape)
    points = box.sample(500, np.random.default_rng(9)).astype(np.float32)
    for number, mutant in enumerate(mutants(reduced, models / "avoidance.onnx", points, TOLERANCE, count)):
        path = tmp_path / f"{number}.onnx"
        onnx.save(mutant, path)
        assert verify(models, path, "--tolerance", str(TOLERANCE), "--json") == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["answer"] == "refuted"
        point = np.array(answer["input"])[None]
        assert box.contains(point)[0]
        apart = Session(models / "avoidance.onnx").run(point) - Session(path).run(point)
        assert np.abs(apart).max() > TOLERANCE


def test_decision_mode_is_verified_as_a_decision(models, tmp_path):
    path, bounds = tmp_path / "decision.onnx", str(models / "avoidance_close.box.json")
    model = str(models / "avoidance.onnx")
    options = ["--preserve", "decision", "--winner", "min"]
    limited = [*options, "--criteria", "phase,result:3"]
    assert run(["reduce", model, "--bounds", bounds, "-o", str(path), "--quiet", *limited]) == 0
    assert verify(models, path, *options, "--quiet") == 0


def test_no_time_is_unknown_and_not_a_proof(models, tmp_path, capsys):
    path = tmp_path / "relaxed.onnx"
    bounds, model = str(models / "avoidance_close.box.json"), str(models / "avoidance.onnx")
    options = [
        "--preserve",
        "tolerance",
        "--tolerance",
        "0.05",
        "--relative-to",
        "box",
        "--criteria",
        "phase,relaxed:2",
    ]
    assert run(["reduce", model, "--bounds", bounds, "-o", str(path), "--json", "--quiet", *options]) == 0
    stated = np.max(list(json.loads(capsys.readouterr().out)["guarantee"]["error"].values()))
    assert verify(models, path, "--tolerance", str(stated), "--time-limit", "1e-6", "--quiet") == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--preserve", "tolerance"], "give --tolerance"),
        (["--tolerance", "1", "--preserve", "outputs"], "exactly one"),
        (["--tolerance", "-1"], "positive"),
        (["--preserve", "decision", "--margin", "0"], "margin"),
        (["--tolerance", "1", "--time-limit", "0"], "time-limit"),
    ],
)
def test_bad_options_end_with_code_2(models, reduced, options, text, capsys):
    assert verify(models, reduced, *options) == 2
    assert text in capsys.readouterr().err


def test_networks_that_do_not_fit_end_with_code_2(models, capsys):
    assert verify(models, models / "digits_mlp.onnx", "--tolerance", "1") == 2
    assert "shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mode",
    [[], ["--preserve", "decision"], ["--preserve", "tolerance", "--tolerance", "0.05"]],
    ids=["outputs", "decision", "tolerance"],
)
def test_the_claim_in_a_written_file_is_confirmed_by_itself(models, mode, tmp_path, capsys):
    original, small = models / "avoidance.onnx", tmp_path / "small.onnx"
    box = models / "avoidance_close.box.json"
    assert run(["reduce", str(original), "--bounds", str(box), "-o", str(small), "--quiet", *mode]) == 0
    capsys.readouterr()
    assert run(["verify", str(original), str(small), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "verified"
    assert answer["box"]["digest"] == read_box(str(box), read_network(original).input.shape).digest
    assert [len(file["sha256"]) for file in answer["files"]] == [64, 64]
    # The claim is about this original and this box alone.
    assert run(["verify", str(original), str(small), "--bounds", "[-1,1]", "--quiet"]) == 2
    assert run(["verify", str(models / "digits_mlp.onnx"), str(small), "--quiet"]) == 2


def test_a_copy_of_the_original_is_verified(models, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes((models / "avoidance.onnx").read_bytes())
    assert run(["verify", str(models / "avoidance.onnx"), str(copy), "--bounds", "[-1,1]", "--quiet"]) == 0
