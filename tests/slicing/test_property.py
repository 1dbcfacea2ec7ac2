"""A property of a family: what is proved of a slice holds there, what is not kept is never evaluated or exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import redy
from redy.cli.main import redy as command
from redy.cli.main import run
from redy.errors import CheckFailed, InputError
from redy.model import Box, Conjunction, Property
from redy.slicing.family import Family
from redy.slicing.property import HOLDS, OPEN, OUTSIDE, VIOLATED, prove_family, restricted_to, share_of

VNNLIB = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const X_2 Real)
(declare-const X_3 Real)
(declare-const X_4 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(declare-const Y_2 Real)
(declare-const Y_3 Real)
(declare-const Y_4 Real)
{bounds}
(assert (>= Y_0 {limit}))
"""


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """The controller, its box, and a property that some slices have and others have not."""
    folder = tmp_path_factory.mktemp("property")
    network = redy.read_network(models / "avoidance.onnx")
    box = redy.read_box(models / "avoidance_close.box.json", network.input)
    x = box.sample(5000, np.random.default_rng(0))
    y, cell = network.evaluate(x)[:, 0], (x > box.center)[:, [0, 1, 3]] @ [4, 2, 1]
    limit = float(np.median([y[cell == k].max() for k in range(8)]))
    bounds = "\n".join(
        f"(assert (>= X_{k} {low}))\n(assert (<= X_{k} {high}))"
        for k, (low, high) in enumerate(zip(box.lower.tolist(), box.upper.tolist(), strict=True))
    )
    for name, at in (("some", limit), ("all", float(y.max()) + 1.0), ("none", float(y.min()) - 1.0)):
        (folder / f"{name}.vnnlib").write_text(VNNLIB.format(bounds=bounds, limit=at))
    return folder, network, box, limit


@pytest.fixture(scope="module")
def family(files, models):
    """Slices with the property that some have."""
    folder, _, box, _ = files
    found = redy.slice_network(models / "avoidance.onnx", box, splits=(2, 2, 1, 2, 1), prop=folder / "some.vnnlib")
    found.save(folder / "kept.redy")
    return found


def test_kept_slices_have_the_property_and_others_refuse_to_answer(files, family):
    folder, _, box, limit = files
    again = Family.open(folder / "kept.redy")
    kept = again.proved.kept
    assert (kept == family.proved.kept).all()
    assert 0 < kept.sum() < len(kept)
    x = box.sample(4000, np.random.default_rng(1)).astype(np.float32)
    at = again.locate(x)
    inside = kept[at]
    assert (again.evaluate(x[inside])[:, 0] < limit + 1e-6).all()
    first = int((~inside).argmax())
    with pytest.raises(InputError, match=f"point 0 lies in slice {at[first]}, which was not kept"):
        again.evaluate(x[first : first + 1])
    assert share_of(again, kept) == pytest.approx(kept.mean())
    assert f"{kept.sum()} of {len(kept)} slices are kept" in again.guarantee


def test_a_family_is_asked_for_its_proof(files, models):
    folder, _, box, limit = files
    whole = redy.slice_network(models / "avoidance.onnx", box, splits=(2, 2, 1, 1, 1))
    whole.save(folder / "whole.redy")
    assert run(["prove", str(folder / "whole.redy"), "--property", str(folder / "all.vnnlib"), "--quiet"]) == 0
    asked = ["prove", str(folder / "whole.redy"), "--property", str(folder / "some.vnnlib"), "--json"]
    ended = CliRunner().invoke(command, asked)
    assert ended.exit_code == 1
    answer = json.loads(ended.output)
    point = np.array(answer["input"], dtype=np.float32)
    assert whole.evaluate(point)[0] >= np.float32(limit) - 1e-6
    small = Box(box.lower, box.lower + box.width / 4)
    part = redy.slice_network(models / "avoidance.onnx", small, splits=1)
    part.save(folder / "part.redy")
    ended = CliRunner().invoke(command, ["prove", str(folder / "part.redy"), "--property", str(folder / "all.vnnlib")])
    assert ended.exit_code == 3
    assert "reaches out of the family's box" in ended.output


def test_slices_that_no_box_touches_have_nothing_to_show(files, models):
    _, _, box, _ = files
    whole = redy.slice_network(models / "avoidance.onnx", box, splits=(2, 1, 1, 1, 1))
    upper = box.upper.copy()
    upper[0] = box.lower[0] + box.width[0] / 8
    one = Conjunction(Box(box.lower, upper), np.zeros((1, 5)), np.eye(5)[:1], np.array([1e6]), np.array([False]))
    verdict = prove_family(whole, Property((one,)))
    assert verdict.slices.verdicts.tolist() == [HOLDS, OUTSIDE]
    assert verdict.answer == "holds"
    assert verdict.share == 1.0
    never = Conjunction(one.box, one.inputs, one.outputs, -one.constants, one.strict)
    verdict = prove_family(whole, Property((never,)))
    assert verdict.slices.verdicts[0] in {VIOLATED, OPEN}
    assert verdict.answer != "holds"
    assert not restricted_to(Property((one,)), whole.cut.cell(1)).conjunctions


def test_what_was_not_kept_is_not_exported(files, family, tmp_path, capsys):
    folder, *_ = files
    for name in ("family.c", "family.onnx"):
        assert run(["export", str(folder / "kept.redy"), "-o", str(tmp_path / name)]) == 2
        assert "was not kept" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    kept = int(family.proved.kept.argmax())
    assert run(["export", str(folder / "kept.redy"), "-o", str(tmp_path / "one.onnx"), "--slice", str(kept)]) == 0
    assert (tmp_path / "one.onnx").exists()


def test_without_a_slice_to_keep_nothing_is_written(files, models, tmp_path, capsys):
    folder, _, box, _ = files
    with pytest.raises(CheckFailed, match="no slice can be kept"):
        redy.slice_network(models / "avoidance.onnx", box, splits=1, prop=folder / "none.vnnlib")
    asked = ["slice", str(models / "avoidance.onnx"), "--bounds", str(models / "avoidance_close.box.json")]
    asked += ["--splits", "1", "-o", str(tmp_path / "a.redy"), "--property", str(folder / "none.vnnlib"), "--quiet"]
    assert run(asked) == 1
    assert "no slice can be kept" in capsys.readouterr().err
    assert not (tmp_path / "a.redy").exists()
