"""`redy reduce` on the command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import hashlib
import json

import jsonschema
import numpy as np
import onnx
import pytest

from redy.cli.main import run
from redy.formats.boxes import read_box
from redy.formats.onnx_read import read_network
from redy.formats.onnx_run import Session
from redy.report import schema


@pytest.fixture
def model(models):
    return models / "avoidance.onnx"


@pytest.fixture
def box(models):
    return models / "avoidance_close.box.json"


def test_a_reduction_is_written_reported_and_agrees(model, box, tmp_path, capsys):
    out, report = tmp_path / "small.onnx", tmp_path / "report.json"
    assert run(["reduce", str(model), "--bounds", str(box), "-o", str(out), "--report", str(report)]) == 0
    captured = capsys.readouterr()
    assert "relu" in captured.out
    assert "guarantee" in captured.out
    assert "criterion phase" in captured.err
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema())
    assert document["original"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert document["reduced"]["bytes"] == out.stat().st_size
    small, original = read_network(out), read_network(model)
    assert document["reduced"]["parameters"] == small.parameters < original.parameters
    assert document["reduced"]["multiply_adds"] == small.macs < original.macs
    totals = [sum(layer[key] for layer in document["layers"]) for key in ("parameters_after", "macs_after", "kept")]
    assert totals == [small.parameters, small.macs, small.units]
    points = read_box(box, original.input.shape).sample(2000, np.random.default_rng(1))
    expected = Session(model).run(points)
    np.testing.assert_allclose(Session(out).run(points), expected, atol=1e-4 * np.abs(expected).max())
    assert small.input == original.input
    assert small.outputs == original.outputs


def test_the_model_carries_what_was_preserved(model, box, tmp_path):
    out = tmp_path / "small.onnx"
    assert run(["reduce", str(model), "--bounds", str(box), "-o", str(out), "--quiet"]) == 0
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert metadata["redy.original.sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert metadata["redy.box.digest"] == read_box(box, read_network(model).input.shape).digest
    assert "real arithmetic" in metadata["redy.guarantee"]
    assert metadata["redy.version"]


def test_quiet_says_nothing_and_json_only_json(model, box, tmp_path, capsys):
    command = ["reduce", str(model), "--bounds", str(box), "-o", str(tmp_path / "small.onnx")]
    assert run([*command, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    assert run([*command, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    jsonschema.validate(json.loads(captured.out), schema())
    assert captured.err == ""


def test_several_boxes_give_numbered_outputs_with_one_worker_and_with_two(model, box, tmp_path, capsys):
    first = json.loads(box.read_text())
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([first, first]))
    contents = []
    for jobs in ("1", "2"):
        out = tmp_path / f"jobs{jobs}.onnx"
        command = ["reduce", str(model), "--bounds", str(boxes), "-o", str(out), "--jobs", jobs, "--json", "--quiet"]
        assert run(command) == 0
        documents = json.loads(capsys.readouterr().out)
        assert [d["reduced"]["file"] for d in documents] == [str(tmp_path / f"jobs{jobs}-{k}.onnx") for k in (1, 2)]
        contents += [(tmp_path / f"jobs{jobs}-{k}.onnx").read_bytes() for k in (1, 2)]
    assert len(set(contents)) == 1


def test_the_default_output_lies_beside_the_model(model, box, tmp_path):
    copy = tmp_path / "net.onnx"
    copy.write_bytes(model.read_bytes())
    assert run(["reduce", str(copy), "--bounds", str(box), "--quiet", "--engine", "linear"]) == 0
    assert (tmp_path / "net.reduced.onnx").exists()


def test_a_used_up_time_limit_still_writes_a_valid_network(model, box, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    command = ["reduce", str(model), "--bounds", str(box), "-o", str(out), "--time-limit", "0.001", "--json", "--quiet"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    found = len(document["findings"]) + len(document["undecided"])
    assert 0 < found <= document["original"]["units"]
    assert Session(out).run(np.zeros((1, *read_network(model).input.shape))).shape[0] == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--bounds", "nowhere.json"], "nowhere.json"),
        (["--bounds", "[1,-1]"], "inline box"),
        (["-o", "missing/folder/small.onnx"], "missing/folder"),
        (["--report", "missing/report.json"], "missing"),
        (["--criteria", "magic"], "magic"),
        (["--criteria", ","], "--criteria"),
        (["--preserve", "tolerance"], "tolerance"),
        (["--tolerance", "0.1"], "tolerance"),
        (["--time-limit", "-1"], "time"),
        (["--time-limit", "nan"], "time"),
        (["--engine", "guess"], "guess"),
    ],
)
def test_bad_usage_is_one_line_exit_2_and_changes_nothing(change, text, model, box, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "small.onnx"
    out.write_text("keep me")
    command = ["reduce", str(model), "--bounds", str(box), "-o", str(out), "--quiet", *change]
    assert run(command) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert out.read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx"]


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_model_that_cannot_be_read_is_bad_input(content, tmp_path, capsys):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content)
    assert run(["reduce", str(broken), "--bounds", "[-1,1]"]) == 2
    assert "broken.onnx" in capsys.readouterr().err


def test_the_model_itself_is_never_overwritten(model, box, tmp_path, capsys):
    copy = tmp_path / "net.onnx"
    copy.write_bytes(model.read_bytes())
    assert run(["reduce", str(copy), "--bounds", str(box), "-o", str(copy)]) == 2
    assert "the model itself" in capsys.readouterr().err
    assert copy.read_bytes() == model.read_bytes()


def test_what_the_writer_does_wrong_is_no_false_statement(model, box, tmp_path, capsys, monkeypatch):
    from redy.model import Affine
    from redy.reduction import settle
    from redy.rewrite.dense import rebuilt

    def wrong(network, **options):
        *others, last = network.nodes
        assert isinstance(last, Affine)
        return to_model(rebuilt(network, [*others, Affine(last.name, last.terms, last.bias + 1)]), **options)

    to_model = settle.to_model
    monkeypatch.setattr(settle, "to_model", wrong)
    out = tmp_path / "small.onnx"
    assert run(["reduce", str(model), "--bounds", str(box), "-o", str(out), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert out.read_bytes() == model.read_bytes()
    assert document["guarantee"]["statement"] == "The file holds the original network, unchanged."
    assert any("differs from the original by more than rounding" in note for note in document["notes"])
    assert document["findings"] == []


def test_a_result_that_differs_in_onnxruntime_is_not_written(model, box, tmp_path, capsys, monkeypatch):
    from redy.reduction import Measured
    from redy.reduction import write as writing

    monkeypatch.setattr(writing, "measure", lambda *_: Measured(10, 1.0, 2.0, 0))
    out = tmp_path / "small.onnx"
    out.write_text("keep me")
    assert run(["reduce", str(model), "--bounds", str(box), "-o", str(out), "--quiet"]) == 1
    assert "differs from the original" in capsys.readouterr().err
    assert out.read_text() == "keep me"
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_an_interrupt_leaves_nothing_half_written(model, box, tmp_path, monkeypatch):
    from redy.reduction import write as writing

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "measure", interrupted)
    out = tmp_path / "small.onnx"
    assert run(["reduce", str(model), "--bounds", str(box), "-o", str(out), "--quiet"]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prop", [1, 2, 3, 4])
def test_acas_properties(prop, redy_data, tmp_path, capsys):
    model, bounds = redy_data("acasxu/ACASXU_run2a_1_1.onnx"), redy_data(f"acasxu/prop_{prop}.vnnlib")
    out = tmp_path / "small.onnx"
    command = ["reduce", str(model), "--bounds", str(bounds), "-o", str(out), "--json", "--quiet", "--time-limit", "20"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema())
    assert document["measured"]["deviation"] <= 1e-4 * document["measured"]["scale"]
    assert document["reduced"]["parameters"] <= 13305


def test_a_padded_residual_convolutional_network_loses_its_dead_channels(models, tmp_path, capsys):
    model, bounds = models / "digits_cnn_pruned.onnx", models / "digits_cnn.box.json"
    out = tmp_path / "small.onnx"
    command = ["reduce", str(model), "--bounds", str(bounds), "-o", str(out), "--engine", "linear", "--json", "--quiet"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    channels = {layer["name"]: layer for layer in document["layers"] if layer["units"] in (16, 24)}
    assert len(channels) == 4
    assert all(layer["kept"] < layer["units"] for layer in channels.values())
    assert document["reduced"]["parameters"] < 0.4 * document["original"]["parameters"]
    original = read_network(model)
    points = read_box(bounds, original.input.shape).sample(200, np.random.default_rng(1))
    expected = Session(model).run(points)
    np.testing.assert_allclose(Session(out).run(points), expected, atol=1e-4 * np.abs(expected).max())
