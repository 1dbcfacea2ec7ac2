"""`redy reduce` with its certificate, `redy certify` and `redy check` together."""

import hashlib
import json
import re
import zlib
from pathlib import Path

import onnx
import pytest

from redy.cli.main import main

MODELS = Path(__file__).resolve().parents[2] / "models"
MODEL, BOX = MODELS / "avoidance.onnx", MODELS / "avoidance_close.box.json"


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code or 0


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """A reduction by default, quick: its file, certificate and report."""
    folder = tmp_path_factory.mktemp("reduced")
    small, told = folder / "small.onnx", folder / "report.json"
    call = ["reduce", MODEL, "--bounds", BOX, "-o", small, "--quiet", "--effort", "quick", "--criteria", "phase"]
    assert run(*call, "--report", told) == 0
    return small, folder / "small.cert", json.loads(told.read_text())


def test_a_reduction_is_certified_unless_told_otherwise(reduced, capsys, tmp_path):
    small, proof, told = reduced
    assert run("check", MODEL, small, proof) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("accepted")
    assert told["certificate"]["claim"] in printed
    assert told["certificate"]["sha256"] == hashlib.sha256(proof.read_bytes()).hexdigest()
    assert run("check", small, MODEL, proof) == 1
    assert run("check", MODEL, proof) == 2
    assert run("check", MODEL, small, MODEL) == 2
    other = tmp_path / "other.onnx"
    call = ["reduce", MODEL, "--bounds", BOX, "-o", other, "--quiet", "--effort", "quick", "--criteria", "phase"]
    assert run(*call, "--no-certificate") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]
    assert run(*call, "--no-certificate", "--certificate", tmp_path / "c.cert") == 2


def test_the_reduced_file_names_its_certificate(reduced):
    """As docs/certificate.md says it: the content of the certificate with `reduced` left empty."""
    small, proof, _ = reduced
    named = {entry.key: entry.value for entry in onnx.load(small).metadata_props}["redy.certificate"]
    content = zlib.decompress(proof.read_bytes().split(b"\n", 1)[1])
    left_empty = re.sub(rb'"reduced":"[0-9a-f]{64}"', b'"reduced":""', content, count=1)
    assert left_empty != content
    assert hashlib.sha256(left_empty).hexdigest() == named


def test_what_is_not_proved_is_not_written(tmp_path):
    proof = tmp_path / "false.cert"
    other = MODELS / "digits_mlp.onnx"
    assert run("certify", MODEL, other, "--bounds", BOX, "--tolerance", "1", "-o", proof) == 3
    assert run("certify", MODEL, MODEL, "--bounds", BOX, "--tolerance", "1", "-o", MODEL) == 2
    assert not proof.exists()
