"""A run ends within its limits, with a valid file, whatever does not look at the clock."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from redy.cli.main import run
from redy.formats.onnx_read import read_network
from redy.model.digest import network_digest
from redy.reduction import settle
from redy.reduction.limit import BUDGETS, Budget, TimeUp, ended_after


def spin(*_, **__):
    """Computes for ever, without looking at the clock."""
    while True:
        np.ones(1000).sum()


@pytest.mark.parametrize("limit", [{"wall": 0.1}, {"cpu": 0.1}])
def test_what_does_not_look_at_the_clock_is_ended(limit):
    with pytest.raises(TimeUp), ended_after(**limit):
        spin()
    time.sleep(0.3)  # the timer is off again


@pytest.mark.parametrize("options", [["--time-limit", "1"], ["--effort", "quick"]])
def test_a_step_that_never_ends_leaves_a_valid_file(options, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(settle, "state", spin)
    monkeypatch.setattr("redy.reduction.criteria.find_phases", spin)
    monkeypatch.setitem(BUDGETS, "quick", Budget(0.2, 0.6, 0.6))
    original, small = models / "avoidance.onnx", tmp_path / "small.onnx"
    command = ["reduce", str(original), "--bounds", str(models / "avoidance.box.json"), "-o", str(small)]
    assert run([*command, "--json", "--quiet", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert any("time limit" in note for note in document["notes"])
    assert network_digest(read_network(small)) == network_digest(read_network(original))
    assert document["guarantee"]["error"] is not None


def test_more_effort_is_more_work_and_equal_effort_gives_equal_files(models, tmp_path):
    files = []
    for number, effort in enumerate(["quick", "normal", "normal"]):
        path = tmp_path / f"{number}.onnx"
        bounds = str(models / "avoidance_close.box.json")
        command = ["reduce", str(models / "avoidance.onnx"), "--bounds", bounds, "-o", str(path), "--quiet"]
        assert run([*command, "--effort", effort]) == 0
        files.append(path.read_bytes())
    assert files[1] == files[2]
