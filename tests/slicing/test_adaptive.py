"""Adaptive slicing: an exact cover that gains on the grid, neighbours joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from test_family import BOX, TREE, expected, points, small_model

from redy.formats.onnx_read import read_network
from redy.slicing.adaptive import adaptive_cut, merged
from redy.slicing.cuts import Cut, GridCut, TreeCut, read_cut
from redy.slicing.executor import Here
from redy.slicing.family import Family
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.store import Store
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork

MODEL = small_model(1, (2, 24, 24, 3))


def family_of(cut: Cut, path: Path) -> Family:
    work = SliceWork(read_network(onnx.load_from_string(MODEL)), cut, SliceOptions(samples=64))
    with Store(path, COLUMNS, work.digests) as store:
        return Family.from_records(MODEL, *merged(cut, run_slices(work, Here(), store)))


def test_cells_cover_the_box_once() -> None:
    cut = adaptive_cut(read_network(onnx.load_from_string(MODEL)), BOX, 20)
    assert len(cut) == 20
    x = BOX.sample(5000, np.random.default_rng(0))
    held = np.stack([cut.cell(i).contains(x) for i in range(20)], axis=1)
    assert (held.sum(axis=1) == 1).all()
    assert np.array_equal(held.argmax(axis=1), cut.locate(x))
    again = read_cut(cut.arrays())
    assert np.array_equal(again.locate(x), cut.locate(x))


def test_cuts_better_than_a_grid_of_the_same_size(tmp_path: Path) -> None:
    network = read_network(onnx.load_from_string(MODEL))
    grid = family_of(GridCut.of(BOX, (6, 6)), tmp_path / "grid.sqlite")
    tree = family_of(adaptive_cut(network, BOX, 36), tmp_path / "tree.sqlite")
    x = BOX.sample(2000, np.random.default_rng(0))
    cost = [family.shared_macs()[family.locate(x)].mean() for family in (grid, tree)]
    assert cost[1] < cost[0]
    np.testing.assert_allclose(tree.evaluate(points(tree)), expected(tree, points(tree)), atol=1e-5)


def test_one_leaf() -> None:
    cut = adaptive_cut(read_network(onnx.load_from_string(MODEL)), BOX, 1)
    assert len(cut) == 1
    assert cut.cell(0) == BOX
    assert (cut.locate(BOX.sample(5, np.random.default_rng(0))) == 0).all()


def test_neighbours_with_one_mask_are_joined() -> None:
    def record(index: int, mask: bytes) -> SliceRecord:
        return SliceRecord(index, mask, 1, index, index != 1, 1, 1.0)

    cut, records = merged(TREE, [record(0, b"a"), record(1, b"b"), record(2, b"b")])
    assert isinstance(cut, TreeCut)
    assert [r.mask for r in records] == [b"a", b"b"]
    assert [r.index for r in records] == [0, 1]
    assert not records[1].complete
    assert [cut.cell(i) for i in (0, 1)] == [
        TREE.cell(0),
        type(BOX)(TREE.cell(1).lower, TREE.cell(2).upper),
    ]
    whole, one = merged(TREE, [record(i, b"a") for i in range(3)])
    assert len(whole) == len(one) == 1
    assert whole.cell(0) == BOX
