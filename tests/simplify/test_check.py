"""The self-check finds what is wrong and says which rewrite did it; nothing else passes for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from simplify.building import filters, model, node

from redy.cli.simplify import simplify_command
from redy.errors import CheckFailed, InputError
from redy.simplify import fuse_batchnorm as fusing
from redy.simplify import simplify
from redy.simplify.check import compare
from redy.simplify.pipeline import first_wrong

RNG = np.random.default_rng(2)


def pruned() -> onnx.ModelProto:
    weights = {
        "w1": filters(RNG, (6, 3, 3, 3), (1, 4)), "b1": RNG.normal(size=6), "w2": RNG.normal(size=(4, 6, 3, 3)),
        "s": RNG.normal(size=4), "t": RNG.normal(size=4), "m": RNG.normal(size=4), "v": RNG.random(4) + 0.5,
    }  # fmt: skip
    nodes = [
        node("Conv", "x w1 b1", "a"),
        node("Sigmoid", "a", "r"),
        node("Conv", "r w2", "c"),
        node("BatchNormalization", "c s t m v", "y"),
    ]
    return model(nodes, ("n", 3, 8, 8), {"y": ("n", 4, 4, 4)}, weights)


def test_a_changed_weight_is_found() -> None:
    made = pruned()
    wrong = simplify(made).model
    tensor = onnx.numpy_helper.to_array(wrong.graph.initializer[0]).copy()
    tensor.flat[0] += 0.01
    wrong.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(tensor, wrong.graph.initializer[0].name))
    assert compare(made, wrong, 0).failed


def test_a_wrong_rewrite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fusing.batchnorm_line

    def wrong(*arguments):
        slope, shift = right(*arguments)
        return slope, shift + 0.1

    monkeypatch.setattr(fusing, "batchnorm_line", wrong)
    with pytest.raises(CheckFailed, match="fuse_batchnorm at BatchNormalization_y"):
        simplify(pruned())


@pytest.mark.parametrize("culprit", range(1, 9))
def test_bisection(culprit: int) -> None:
    assert first_wrong(lambda limit: limit >= culprit, 8) == culprit


def test_command(tmp_path: Path) -> None:
    onnx.save(pruned(), tmp_path / "in.onnx")
    arguments = [str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx"), "--report", str(tmp_path / "r.json")]
    done = CliRunner().invoke(simplify_command, arguments)
    assert done.exit_code == 0, done.output
    assert "multiply-adds" in done.output
    assert (tmp_path / "r.json").exists()
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == 3


def test_report_without_a_path_is_the_table(tmp_path: Path) -> None:
    onnx.save(pruned(), tmp_path / "in.onnx")
    done = CliRunner().invoke(simplify_command, [str(tmp_path / "in.onnx"), "-o", str(tmp_path / "o.onnx"), "--report"])
    assert done.exit_code == 0, done.output
    assert "multiply-adds" in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "o.onnx"]


def test_command_writes_nothing_when_the_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "batchnorm_line", lambda *_: (np.ones(4), np.ones(4)))
    onnx.save(pruned(), tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_text("as it was")
    done = CliRunner().invoke(simplify_command, [str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")])
    assert isinstance(done.exception, CheckFailed)
    assert (tmp_path / "out.onnx").read_text() == "as it was"


@pytest.mark.parametrize("content", [b"no model", b""])
def test_bad_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    done = CliRunner().invoke(simplify_command, [str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")])
    assert isinstance(done.exception, InputError)
    assert "in.onnx" in str(done.exception)
    assert not (tmp_path / "out.onnx").exists()
