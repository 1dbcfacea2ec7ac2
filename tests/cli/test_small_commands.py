"""info, explain, doctor, warmup and completion."""

from __future__ import annotations

import json
import subprocess

import pytest

from redy.cli.main import SUMMARIES, run
from redy.formats.onnx_read import read_network


@pytest.fixture(scope="module")
def report_file(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    arguments = [
        "reduce",
        str(models / "avoidance.onnx"),
        "--bounds",
        str(models / "avoidance_close.box.json"),
        "--quiet",
    ]
    arguments += ["--criteria", "phase", "--engine", "linear", "-o", str(folder / "small.onnx")]
    assert run([*arguments, "--report", str(folder / "report.json")]) == 0
    return folder / "report.json"


@pytest.mark.parametrize("name", ["avoidance", "digits_cnn"])
def test_info_lists_every_node_and_adds_up(models, capsys, name):
    path = models / f"{name}.onnx"
    assert run(["info", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    network = read_network(path)
    assert [layer["name"] for layer in document["layers"]] == [node.name for node in network]
    for key, total in (("parameters", network.parameters), ("multiply_adds", network.macs)):
        assert sum(layer[key] for layer in document["layers"]) == document[key] == total
    assert run(["info", str(path)]) == 0
    assert f"{network.units:,} units" in capsys.readouterr().out


def test_info_of_a_missing_file_is_exit_2(tmp_path, capsys):
    assert run(["info", str(tmp_path / "no.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_explain_agrees_with_the_report_for_every_unit_of_a_layer(report_file, capsys):
    document = json.loads(report_file.read_text())
    row = document["layers"][0]
    fates = {finding["index"]: finding for finding in document["findings"] if finding["node"] == row["name"]}
    for index in range(row["units"]):
        assert run(["explain", str(report_file), "--unit", f"{row['name']}/{index}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        removed = lines[0].split(": ")[1] in ("inactive", "active")
        assert removed == (index in fates)
        assert any(line.startswith("pre-activation in [") for line in lines)
        assert any(line.startswith("proof: ") for line in lines) == removed


@pytest.mark.parametrize(
    "unit", ["relu_1.out", "relu_1.out/", "relu_1.out/32", "relu_1.out/-1", "none/0", "/", "relu_1.out/x"]
)
def test_explain_of_no_unit_is_one_line_and_exit_2(report_file, capsys, unit):
    assert run(["explain", str(report_file), "--unit", unit]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_doctor_names_versions_solvers_and_kernels(capsys):
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out
    for word in ("redy", "onnxruntime", "solver gurobi", "solver highs", "kernels", "cores"):
        assert word in told


def test_warmup_compiles_once(capsys):
    assert run(["warmup", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["warmup"]) == 0
    assert capsys.readouterr().out == "the kernels were compiled already\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_REDY_COMPLETE" in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_completion_of_another_shell_is_exit_2(capsys):
    assert run(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_command_has_a_line_of_help():
    assert all(line.endswith(".") and len(line) <= 100 for line in SUMMARIES.values())
