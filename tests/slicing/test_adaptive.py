"""Adaptive slicing: an exact cover that gains on the grid; pruning is optimal and claims what was proved."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import BOX, TREE, expected, points, small_model

from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.runs.executor import Here, Processes
from redy.runs.store import Store
from redy.slicing.adaptive import REFINED, adaptive_cut
from redy.slicing.cost import SharedCost
from redy.slicing.cuts import Cut, GridCut, TreeCut, read_cut
from redy.slicing.family import Family
from redy.slicing.masks import KEPT, pack, unpack
from redy.slicing.pruning import pruned
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork

MODEL = small_model(1, (2, 24, 24, 3))
NETWORK = read_network(onnx.load_from_string(MODEL))


def searched(cut: Cut, path: Path, executor: Here | Processes | None = None) -> list[SliceRecord]:
    work = SliceWork(NETWORK, cut, SliceOptions(samples=64))
    with Store(path, COLUMNS, work.digests) as store:
        return run_slices(work, executor or Here(), store)


def family_of(cut: Cut, path: Path, slices: int | None = None) -> Family:
    return Family.from_records(MODEL, *pruned(NETWORK, cut, searched(cut, path), slices))


def mean_cost(family: Family) -> float:
    x = BOX.sample(5000, np.random.default_rng(0))
    return float(family.shared_macs()[family.locate(x)].mean())


def test_cells_cover_the_box_once() -> None:
    cut = adaptive_cut(NETWORK, BOX, 20)
    assert len(cut) == 20
    x = BOX.sample(5000, np.random.default_rng(0))
    held = np.stack([cut.cell(i).contains(x) for i in range(20)], axis=1)
    assert (held.sum(axis=1) == 1).all()
    assert np.array_equal(held.argmax(axis=1), cut.locate(x))
    again = read_cut(cut.arrays())
    assert np.array_equal(again.locate(x), cut.locate(x))


def test_cheaper_than_a_grid_of_the_same_size(tmp_path: Path) -> None:
    grid = family_of(GridCut.of(BOX, (6, 6)), tmp_path / "grid.sqlite")
    tree = family_of(adaptive_cut(NETWORK, BOX, 36 * REFINED), tmp_path / "tree.sqlite", 36)
    assert len(tree) <= 36
    assert mean_cost(tree) < mean_cost(grid)
    np.testing.assert_allclose(tree.evaluate(points(tree)), expected(tree, points(tree)), atol=1e-5)


def test_a_third_of_the_slices_where_the_network_turns_in_one_strip(tmp_path: Path) -> None:
    """What adaptive cuts are for: most of the box needs few units."""
    rng, model = np.random.default_rng(0), onnx.load_from_string(small_model(1, (2, 24, 3)))
    sign, place = rng.choice([-1.0, 1.0], 24), rng.uniform(0.5, 0.9, 24)
    for tensor in model.graph.initializer:
        if tensor.name in {"w0", "b0"}:
            values = np.stack([sign, 0 * sign], axis=1) if tensor.name == "w0" else -sign * place
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    network, cost = read_network(model), []
    for cut, slices in ((GridCut.of(BOX, (9, 9)), None), (adaptive_cut(network, BOX, 27 * REFINED), 27)):
        work = SliceWork(network, cut, SliceOptions(samples=64))
        records = [work(i) for i in range(len(cut))]
        family = Family.from_records(model.SerializeToString(), *pruned(network, cut, records, slices))
        assert slices is None or len(family) <= slices
        cost.append(mean_cost(family))
    assert cost[1] < cost[0]


def test_the_same_whatever_works_on_it(tmp_path: Path) -> None:
    found = []
    for name, executor in (("one", Here()), ("two", Processes(2))):
        cut = adaptive_cut(NETWORK, BOX, 12)
        found.append(pruned(NETWORK, cut, searched(cut, tmp_path / name, executor), 4))
    (cut, records), (again, others) = found
    assert all(np.array_equal(array, again.arrays()[name]) for name, array in cut.arrays().items())
    assert [record.mask for record in records] == [record.mask for record in others]


def test_one_leaf() -> None:
    cut = adaptive_cut(NETWORK, BOX, 1)
    assert len(cut) == 1
    assert cut.cell(0) == BOX
    assert (cut.locate(BOX.sample(5, np.random.default_rng(0))) == 0).all()


def test_no_cut_where_the_network_is_proved_affine() -> None:
    tiny = Box(BOX.center - 1e-6, BOX.center + 1e-6)
    trace = NETWORK.trace(BOX.center[None])
    assert all((np.abs(trace[node.source]) > 1e-3).all() for node in NETWORK.activations)
    assert len(adaptive_cut(NETWORK, tiny, 20)) == 1


def test_points_that_show_an_affine_function_are_no_proof() -> None:
    """Beyond the points' reach a unit still turns: linear bounds see it, and the cuts go on until it is enclosed."""
    model = small_model(1, (2, 1, 1))
    weights = {tensor.name: tensor for tensor in onnx.load_from_string(model).graph.initializer}
    w, b = (onnx.numpy_helper.to_array(weights[name]) for name in ("w0", "b0"))
    corner = np.where(w[0] > 0, BOX.lower, BOX.upper)
    turned = onnx.load_from_string(model)
    for tensor in turned.graph.initializer:
        if tensor.name == "b0":  # the unit is active except for a sliver at one corner
            tensor.CopyFrom(onnx.numpy_helper.from_array((b * 0 - w[0] @ corner - 1e-5).astype(np.float32), "b0"))
    network = read_network(turned)
    assert (network.trace(BOX.sample(512, np.random.default_rng([0, 0])))[network.activations[0].source] > 0).all()
    cut = adaptive_cut(network, BOX, 20)
    assert len(cut) > 1
    sizes = [float(np.prod(cut.cell(i).width)) for i in cut.locate(np.stack([corner, BOX.center]))]
    assert sizes[0] < sizes[1]


def record(index: int, mask: bytes, complete: bool = True) -> SliceRecord:
    return SliceRecord(index, mask, 1, index, complete, 1, 1.0)


def test_neighbours_with_one_mask_are_joined() -> None:
    kept = pack(np.full(NETWORK.units, KEPT, dtype=np.uint8))
    dead = pack(np.zeros(NETWORK.units, dtype=np.uint8))
    cut, records = pruned(NETWORK, TREE, [record(0, dead), record(1, kept, complete=False), record(2, kept)])
    assert isinstance(cut, TreeCut)
    assert [r.mask for r in records] == [dead, kept]
    assert [r.index for r in records] == [0, 1]
    assert not records[1].complete
    assert [cut.cell(i) for i in (0, 1)] == [TREE.cell(0), Box(TREE.cell(1).lower, TREE.cell(2).upper)]
    whole, one = pruned(NETWORK, TREE, [record(i, kept) for i in range(3)])
    assert len(whole) == len(one) == 1
    assert whole.cell(0) == BOX


def test_a_joined_slice_claims_what_holds_on_all_its_parts() -> None:
    rng = np.random.default_rng(2)
    codes = rng.choice(np.array([0, 1, KEPT], dtype=np.uint8), (3, NETWORK.units))
    cut, records = pruned(NETWORK, TREE, [record(i, pack(codes[i])) for i in range(3)], 1)
    assert len(cut) == len(records) == 1
    joined = unpack(np.frombuffer(records[0].mask, dtype=np.uint8)[None], NETWORK.units)[0]
    agree = (codes == codes[0]).all(axis=0)
    assert np.array_equal(joined, np.where(agree, codes[0], KEPT))
    assert records[0].stuck == np.count_nonzero(joined != KEPT)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slices", range(1, 9))
def test_no_other_subtree_is_cheaper(seed: int, slices: int) -> None:
    """Against every way of joining the 8 leaves of a random tree."""
    rng = np.random.default_rng(seed)
    cut = adaptive_cut(NETWORK, BOX, 8, seed=seed)
    codes = np.where(rng.random((8, NETWORK.units)) < rng.random((8, 1)), 0, KEPT).astype(np.uint8)
    found, records = pruned(NETWORK, cut, [record(i, pack(codes[i])) for i in range(8)], slices)
    assert len(found) <= slices
    cost = SharedCost(NETWORK)
    volume = [float(np.prod(cut.cell(i).width)) for i in range(8)]

    def ways(node: int) -> list[tuple[int, float, list[int]]]:
        """All subtrees under a node: how many slices, their cost, the leaves below."""
        if node < 0:
            return [(1, volume[~node] * float(cost.of_units(codes[[~node]] != 0)[0]), [~node])]
        below, above = (ways(int(child)) for child in cut.children[node])
        leaves = below[0][2] + above[0][2]
        whole = sum(volume[i] for i in leaves) * float(cost.of_units((codes[leaves] != 0).any(axis=0)[None])[0])
        return [(1, whole, leaves), *((a + b, c + d, leaves) for (a, c, _), (b, d, _) in product(below, above))]

    best = min(total for count, total, _ in ways(0) if count <= slices)
    mine = sum(
        float(np.prod(found.cell(i).width)) * float(cost.of_units(
            unpack(np.frombuffer(r.mask, dtype=np.uint8)[None], NETWORK.units) != 0)[0])
        for i, r in enumerate(records)
    )  # fmt: skip
    assert mine == pytest.approx(best, rel=1e-9)


def test_the_cost_is_that_of_the_family(tmp_path: Path) -> None:
    cut = GridCut.of(BOX, (3, 3))
    records = searched(cut, tmp_path / "s")
    family = Family.from_records(MODEL, cut, records)
    masks = np.stack([np.frombuffer(r.mask, dtype=np.uint8) for r in records])
    assert np.array_equal(SharedCost(NETWORK).of_units(unpack(masks, NETWORK.units) != 0), family.shared_macs())
