"""What is stated about a family holds for its file; what does not hold there is undone, and damage ends the writing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import BOX, CUTS, small_model

from redy.errors import CheckFailed
from redy.formats.onnx_read import read_network
from redy.model import Network
from redy.model.claims import SameWinner
from redy.questions.query import outputs
from redy.runs.executor import Here
from redy.slicing import saved
from redy.slicing.family import Family, Form
from redy.slicing.masks import KEPT, pack, unpack
from redy.slicing.program import network_of
from redy.slicing.proof import proved
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork

CUT = CUTS["grid"]


def searched(model: bytes, **options: object) -> tuple[Network, list[SliceRecord]]:
    network = read_network(onnx.load_from_string(model))
    work = SliceWork(network, CUT, SliceOptions(samples=64, **options))
    return network, [work(index) for index in range(len(CUT))]


def family_of(model: bytes, form: Form = "shared", **options: object):
    def build(records: list[SliceRecord]) -> Family:
        made = Family.from_records(model, CUT, records, **options)
        return made if form == "shared" else made.with_folded()

    return build


def largest_difference(family: Family, network: Network, index: int) -> float:
    points = CUT.cell(index).corners(16, np.random.default_rng(0))
    points = np.concatenate([points, CUT.cell(index).sample(200, np.random.default_rng(1))])
    small = network_of(family.program(index), network)
    return float(np.abs(outputs(small, points) - outputs(network, points)).max())


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_no_slice_is_further_off_than_stated(form: Form, tmp_path: Path) -> None:
    model = small_model(3, (2, 14, 12, 3))
    network, records = searched(model)
    family = proved(network, network, records, family_of(model, form), Here())
    assert family.removed().mean() > 0.2
    assert family.error is not None
    assert family.error == 0 if form == "shared" else 0 < family.error < 1e-4
    family.save(tmp_path / "f.redy")
    opened = Family.open(tmp_path / "f.redy")
    assert opened.error == family.error
    assert f"{family.error:.3g}" in opened.guarantee
    for index in range(len(CUT)):
        assert largest_difference(opened, network, index) <= family.error + 1e-9


def test_a_wrong_mask_in_the_file_is_undone() -> None:
    """As if folding or writing had confused two phases: whatever it is, the file does not compute the model there."""
    model = small_model(3, (2, 14, 12, 3))
    network, records = searched(model)
    build, wrong = family_of(model), 5

    def confused(now: list[SliceRecord]) -> Family:
        codes = unpack(np.frombuffer(now[wrong].mask, dtype=np.uint8)[None], network.units)[0].copy()
        if (codes == KEPT).all():
            return build(now)
        codes[codes == 1] = 0
        return build([replace(r, mask=pack(codes)) if r.index == wrong else r for r in now])

    off = largest_difference(confused(records), network, wrong)
    assert off > 0.1
    family = proved(network, network, records, confused, Here())
    assert (family.codes(int(family.slice_mask[wrong])) == KEPT).all()
    assert family.error == 0
    for index in range(len(CUT)):
        assert largest_difference(family, network, index) <= family.error + 1e-9


def test_lines_that_leave_the_tolerance_are_undone() -> None:
    model, tolerance = small_model(3, (2, 14, 12, 3)), 0.3
    network, records = searched(model, tolerance=(tolerance,) * 3)
    assert any(record.lines for record in records)
    honest = proved(network, network, list(records), family_of(model, tolerance=(tolerance,) * 3), Here())
    assert honest.lines is not None
    assert honest.error <= tolerance
    narrow = (tolerance / 1000,) * 3
    family = proved(network, network, list(records), family_of(model, tolerance=narrow), Here())
    assert family.error <= tolerance / 1000
    for index in range(len(CUT)):
        assert largest_difference(honest, network, index) <= tolerance + 1e-12
        assert largest_difference(family, network, index) <= tolerance / 1000 + 1e-12


def test_a_constant_of_another_winner_is_undone() -> None:
    model = small_model(3, (2, 14, 12, 3))
    claim = SameWinner("max", 1e-3)
    network, records = searched(model, decision=claim)
    decided = [record.index for record in records if record.winner >= 0]
    assert decided
    build, wrong = family_of(model, decision=claim), decided[0]

    def confused(now: list[SliceRecord]) -> Family:
        made = build(now)
        if made.winner[wrong] >= 0:
            made.winner[wrong] = (made.winner[wrong] + 1) % 3
        return made

    family = proved(network, network, records, confused, Here())
    assert family.winner[wrong] < 0
    assert sorted(np.flatnonzero(family.winner >= 0)) == decided[1:]


def test_a_file_that_holds_another_family_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(3, (2, 14, 12, 3))
    network, records = searched(model)
    family = proved(network, network, records, family_of(model), Here())
    target = tmp_path / "f.redy"
    target.write_bytes(b"mine")
    read = saved.read_family
    monkeypatch.setattr(saved, "read_family", lambda path: replace(read(path), slice_mask=read(path).slice_mask[::-1]))
    with pytest.raises(CheckFailed, match="does not hold the family"):
        family.save(target)
    assert target.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["f.redy"]
    assert BOX.shape == (2,)
