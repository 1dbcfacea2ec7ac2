"""Families that keep the decision: constants where the winner is proved, the outputs elsewhere."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from test_family import BOX, TREE, expected, points, small_model

from redy.cli.main import run
from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.model.claims import SameWinner
from redy.slicing.adaptive import adaptive_cut
from redy.slicing.cuts import Cut, GridCut
from redy.slicing.export_c import c_source
from redy.slicing.export_onnx import family_model, session, slice_model
from redy.slicing.family import Family
from redy.slicing.pruning import pruned
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork, decision_of

MODEL = small_model(2, (2, 16, 12, 3))
NETWORK = read_network(onnx.load_from_string(MODEL))
CUTS = {"grid": GridCut.of(BOX, (5, 5)), "tree": adaptive_cut(NETWORK, BOX, 24)}


def searched(cut: Cut, claim: SameWinner) -> list[SliceRecord]:
    work = SliceWork(NETWORK, cut, SliceOptions(samples=64, decision=claim))
    return [work(index) for index in range(len(cut))]


@pytest.fixture(params=[(cut, winner) for cut in CUTS for winner in ("max", "min")], ids="-".join)
def family(request: pytest.FixtureRequest) -> Family:
    cut, winner = request.param
    claim = decision_of(NETWORK, BOX, winner, None)
    return Family.from_records(MODEL, CUTS[cut], searched(CUTS[cut], claim), decision=claim)


def winners(family: Family, values: np.ndarray) -> np.ndarray:
    assert family.decision is not None
    return np.asarray(values.argmax(axis=1) if family.decision.winner == "max" else values.argmin(axis=1))


def test_the_winner_is_the_originals_everywhere(family: Family) -> None:
    assert family.winner is not None
    assert 0 < (family.winner >= 0).sum() < len(family)
    x = np.concatenate([points(family), BOX.sample(20_000, np.random.default_rng(1)).astype(np.float32)])
    truth, at = expected(family, x), family.locate(x)
    decided = family.winner[at] >= 0
    assert decided.any()
    for form in ("shared", "folded"):
        for engine in ("numpy", "onnxruntime"):
            y = family.evaluate(x, form=form, engine=engine)
            np.testing.assert_allclose(y[~decided], truth[~decided], atol=1e-5)
            assert np.array_equal(winners(family, y[decided]), winners(family, truth[decided]))
            assert set(np.unique(y[decided])) == {0.0, 1.0}


def test_constants_cost_nothing(family: Family) -> None:
    assert family.winner is not None
    decided = family.winner >= 0
    assert (family.shared_macs()[decided] == 0).all()
    assert family.program(int(np.flatnonzero(decided)[0])).macs == 0


def test_exports_and_the_file(family: Family, tmp_path: Path) -> None:
    family.save(tmp_path / "f.redy")
    again = Family.open(tmp_path / "f.redy")
    x = points(family)
    y = family.evaluate(x)
    assert np.array_equal(again.evaluate(x), y)
    assert again.decision == family.decision
    model = family_model(again)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], y, atol=1e-5)
    assert "the decision alone" in {p.key: p.value for p in model.metadata_props}["redy.guarantee"]
    assert again.winner is not None
    index = int(np.flatnonzero(again.winner >= 0)[0])
    inside = x[again.locate(x) == index]
    assert len(inside)
    one = session(slice_model(again, index)).run(None, {"x": inside})[0]
    assert np.array_equal(one, family.evaluate(inside))


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_c_gives_the_same_bits(family: Family, form: Literal["shared", "folded"], tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text(c_source(family, form), encoding="ascii")
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-DREDY_MAIN"]
    subprocess.run(["gcc", *flags, "f.c", "-o", "f"], cwd=tmp_path, check=True)
    x = points(family)
    done = subprocess.run([tmp_path / "f"], input=x.tobytes(), capture_output=True, check=True)
    assert np.array_equal(np.frombuffer(done.stdout, np.float32).reshape(len(x), -1), family.evaluate(x, form=form))


def test_points_alone_decide_nothing() -> None:
    """All points of the slice show one winner; without any proof (no budget, wide bounds) there is none."""
    claim = SameWinner("max", 1e-6)
    records = searched(CUTS["grid"], claim)
    cell = CUTS["grid"].cell
    lead = {r.index: NETWORK.evaluate(cell(r.index).sample(2000, np.random.default_rng(0))) for r in records}
    for r in records:
        shown = set(lead[r.index].argmax(axis=1).tolist())
        assert r.winner == -1 or shown == {r.winner}
    wide = SliceWork(NETWORK, CUTS["grid"], SliceOptions(samples=64, decision=SameWinner("max", 1e6)))
    assert all(wide(r.index).winner == -1 for r in records)


def test_slices_with_one_winner_are_joined_and_others_are_not() -> None:
    kept = b"\xff" * -(-NETWORK.units // 4)

    def record(index: int, winner: int) -> SliceRecord:
        return SliceRecord(index, kept, 0, 0, True, 1, 1.0, winner)

    cut, records = pruned(NETWORK, TREE, [record(0, 1), record(1, 2), record(2, 2)])
    assert [r.winner for r in records] == [1, 2]
    assert len(cut) == 2
    cut, records = pruned(NETWORK, TREE, [record(0, 1), record(1, 2), record(2, 0)], 1)
    assert [r.winner for r in records] == [-1]


def test_cuts_follow_the_border_between_decisions() -> None:
    claim = decision_of(NETWORK, BOX, "max", None)
    plain, aimed = (adaptive_cut(NETWORK, BOX, 30, decision=d) for d in (None, claim))
    share = []
    for cut in (plain, aimed):
        found = searched(cut, claim)
        volume = np.array([float(np.prod(cut.cell(i).width)) for i in range(len(cut))])
        share.append(volume[[r.winner < 0 for r in found]].sum())
    assert share[1] < share[0]


def test_no_cut_where_the_decision_is_proved_constant() -> None:
    claim = decision_of(NETWORK, BOX, "max", None)
    y = NETWORK.evaluate(BOX.sample(2000, np.random.default_rng(0)))
    lead = np.sort(y, axis=1)
    centre = BOX.sample(2000, np.random.default_rng(0))[(lead[:, -1] - lead[:, -2]).argmax()]
    small = type(BOX)(np.maximum(centre - 0.01, BOX.lower), np.minimum(centre + 0.01, BOX.upper))
    assert len(adaptive_cut(NETWORK, small, 30, decision=claim)) == 1


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(MODEL)
    common = ["slice", "m.onnx", "--bounds", "[-1,1]", "--preserve", "decision", "--winner", "min"]
    assert run([*common, "--splits", "4", "-o", "f.redy"]) == 0
    assert "smallest" in capsys.readouterr().out
    assert run([*common, "--adaptive", "--budget", "9", "-o", "g.redy", "--quiet"]) == 0
    for name in ("f.redy", "g.redy"):
        family = Family.open(name)
        assert family.decision is not None
        x = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
        truth = session(onnx.load("m.onnx")).run(None, {"x": x})[0]
        assert np.array_equal(family.evaluate(x).argmin(axis=1), truth.argmin(axis=1))
    assert run([*common, "--splits", "2", "--margin", "-1", "-o", "h.redy"]) == 2
    assert not Path("h.redy").exists()
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--splits", "4", "--resume", "-o", "f.redy"]) == 2


def test_another_margin_is_another_run() -> None:
    work = SliceWork(NETWORK, TREE, SliceOptions(decision=SameWinner("max", 1e-3)))
    other = replace(work, options=SliceOptions(decision=SameWinner("max", 1e-4)))
    assert work.digests != other.digests
    with pytest.raises(InputError, match="margin"):
        decision_of(NETWORK, BOX, "max", float("nan"))
