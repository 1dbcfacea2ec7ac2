"""`redy reduce --certificate`, `redy certify` and `redy check` together."""

from pathlib import Path

import pytest

from redy.cli.main import main

MODELS = Path(__file__).resolve().parents[2] / "models"
MODEL, BOX = MODELS / "avoidance.onnx", MODELS / "avoidance_close.box.json"


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code or 0


@pytest.mark.slow
def test_a_reduction_is_certified_and_checked(tmp_path, capsys):
    small, proof = tmp_path / "small.onnx", tmp_path / "small.cert"
    assert run("reduce", MODEL, "--bounds", BOX, "-o", small, "--certificate", proof, "--quiet") == 0
    assert run("check", MODEL, small, proof) == 0
    assert "accepted" in capsys.readouterr().out
    assert run("check", small, MODEL, proof) == 1
    assert run("check", MODEL, proof) == 2
    assert run("check", MODEL, small, MODEL) == 2


def test_what_is_not_proved_is_not_written(tmp_path):
    proof = tmp_path / "false.cert"
    other = MODELS / "digits_mlp.onnx"
    assert run("certify", MODEL, other, "--bounds", BOX, "--tolerance", "1", "-o", proof) == 3
    assert run("certify", MODEL, MODEL, "--bounds", BOX, "--tolerance", "1", "-o", MODEL) == 2
    assert not proof.exists()
