"""Slices within a tolerance: the lines are proved, and every engine, export and file evaluates the very same ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_family import BOX, CUTS, TREE, expected, points, residual_model, run_c, small_model

from redy.cli.main import run
from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.rewrite import Refusal, apply_findings
from redy.runs.executor import Here, Processes, chunked
from redy.runs.store import Store
from redy.slicing.cuts import Cut, GridCut, TreeCut
from redy.slicing.export_c import c_source
from redy.slicing.export_onnx import family_model, session, slice_model
from redy.slicing.family import Family, choose_form
from redy.slicing.lines import LINE, dropped, read_lines
from redy.slicing.pruning import pruned
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.work import SliceOptions, SliceRecord, SliceWork, tolerance_of

TOLERANCE = 0.2
ROUNDING = 1e-5


def searched(cut: Cut, path: Path, model: bytes, tolerance: tuple[float, ...]) -> list[SliceRecord]:
    options = SliceOptions(samples=64, tolerance=tolerance)
    work = SliceWork(read_network(onnx.load_from_string(model)), cut, options)
    with Store(path / "store.sqlite", COLUMNS, work.digests) as store:
        return run_slices(work, Here(), store)


def relaxed(cut: Cut, path: Path, model: bytes | None = None) -> Family:
    model = small_model() if model is None else model
    tolerance = (TOLERANCE,) * read_network(onnx.load_from_string(model)).outputs[0].shape[-1]
    return Family.from_records(model, cut, searched(cut, path, model, tolerance), tolerance=tolerance)


@pytest.fixture(scope="module", params=["grid", "tree"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    made = relaxed(CUTS[request.param], tmp_path_factory.mktemp("family"))
    assert made.lines is not None
    assert len(made.lines)
    return made


@pytest.mark.parametrize("form", ["shared", "folded"])
@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_outputs_stay_within_the_tolerance(family: Family, form: str, engine: str) -> None:
    x = points(family, 5000)
    apart = np.abs(family.evaluate(x, form=form, engine=engine) - expected(family, x))
    assert 1e-3 < apart.max() <= TOLERANCE + ROUNDING


def test_results_do_not_depend_on_the_number_of_processes() -> None:
    network = read_network(onnx.load_from_string(small_model()))
    work = SliceWork(network, CUTS["grid"], SliceOptions(samples=64, tolerance=(TOLERANCE,) * 3))
    one, two = (dict(executor.run(work, chunked(range(12), 3))) for executor in (Here(), Processes(2)))
    assert sum(record.relaxed for record in one.values()) > 0
    assert {k: replace(r, seconds=0.0) for k, r in one.items()} == {k: replace(r, seconds=0.0) for k, r in two.items()}


def test_both_forms_replace_the_same_units(family: Family) -> None:
    x = points(family, 2000)
    np.testing.assert_allclose(family.evaluate(x, form="shared"), family.evaluate(x, form="folded"), atol=ROUNDING)
    exact = Family.from_records(
        family.original,
        family.cut,
        [
            SliceRecord(k, family.masks[m].tobytes(), 0, 0, True, 1, 0.0)
            for k, m in enumerate(family.slice_mask.tolist())
        ],
    )
    assert (family.removed() >= exact.removed()).all()
    assert family.removed().mean() > exact.removed().mean()


def test_more_is_removed_than_without(tmp_path: Path) -> None:
    cut = CUTS["grid"]
    loose = relaxed(cut, tmp_path)
    (tmp_path / "exact").mkdir()
    records = searched(cut, tmp_path / "exact", loose.original, (1e-9,) * 3)
    exact = Family.from_records(loose.original, cut, records, tolerance=(1e-9,) * 3)
    assert exact.lines is not None
    assert loose.removed().mean() > exact.removed().mean()
    assert loose.shared_macs().mean() < exact.shared_macs().mean()
    folded = [sum(f.program(k, "folded").macs for k in range(len(cut))) for f in (loose, exact)]
    assert folded[0] < folded[1]


def test_counted_multiply_adds_are_those_of_the_programs(family: Family) -> None:
    for index, macs in enumerate(family.shared_macs()):
        assert family.program(index, "shared").macs == macs


def test_a_zero_line_is_a_code_of_the_mask() -> None:
    lines = np.array([(1, 0.0, 0.0), (3, 0.5, 0.1)], dtype=LINE)
    assert dropped(np.full(4, 3, dtype=np.uint8), lines).tolist() == [3, 0, 3, 3]


def test_one_model_and_one_slice_as_onnx(family: Family) -> None:
    x = points(family)
    want = family.evaluate(x, form="shared")
    model = family_model(family)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], want, atol=ROUNDING)
    assert f"within {TOLERANCE}" in {p.key: p.value for p in model.metadata_props}["redy.guarantee"]
    index = int(family.locate(x)[0])
    inside = x[family.locate(x) == index]
    for form in ("shared", "folded"):
        one = session(slice_model(family, index, form)).run(None, {"x": inside})[0]
        np.testing.assert_allclose(one, family.evaluate(inside, form=form), atol=ROUNDING)


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_c99_gives_the_same_bits(family: Family, form: str, tmp_path: Path) -> None:
    x = points(family)
    want = family.evaluate(x, form=form)
    for flags in (["-O2"], ["-O1", "-DREDY_PLAIN"]):
        assert run_c(c_source(family, form), x, tmp_path, flags).tobytes() == want.tobytes()


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_a_residual_network_in_float64(form: str, tmp_path: Path) -> None:
    family = relaxed(GridCut.of(BOX, (3, 3)), tmp_path, residual_model())
    assert family.lines is not None
    assert len(family.lines)
    assert family.lines.table["slope"].dtype == np.float64
    x = family.cut.box.sample(1000, np.random.default_rng(1))
    want = family.evaluate(x, form=form)
    assert np.abs(want - expected(family, x)).max() <= TOLERANCE + 1e-9
    assert run_c(c_source(family, form), x, tmp_path).tobytes() == want.tobytes()
    np.testing.assert_allclose(session(family_model(family)).run(None, {"x": x})[0], want, atol=1e-9)


@pytest.mark.parametrize("store", [False, True])
def test_the_file_gives_the_family_back(family: Family, store: bool, tmp_path: Path) -> None:
    chosen = choose_form(family, "folded", store=store)
    chosen.save(tmp_path / "f.redy")
    opened, x = Family.open(tmp_path / "f.redy"), points(family)
    assert opened.tolerance == family.tolerance
    assert opened.guarantee == family.guarantee
    for form in ("shared", "folded"):
        assert np.array_equal(opened.evaluate(x, form=form), family.evaluate(x, form=form))


def test_joined_slices_keep_only_a_whole_set_of_lines() -> None:
    """A part of a set of lines was never proved, so slices with different sets lose all of them."""
    network = read_network(onnx.load_from_string(small_model()))
    kept = b"\xff" * -(-network.units // 4)
    one, other = (np.array([(unit, 0.0, 0.0)], dtype=LINE).tobytes() for unit in (1, 2))

    def joined(lines: list[bytes]) -> SliceRecord:
        records = [SliceRecord(k, kept, 0, 0, True, 1, 0.0, -1, len(read_lines(d)), d) for k, d in enumerate(lines)]
        return pruned(network, TREE, records, 1)[1][0]

    assert joined([one, one, one]).lines == one
    assert joined([one, one, one]).relaxed == 1
    assert joined([one, other, one]).lines == b""
    assert joined([one, other, one]).relaxed == 0


def dense(*layers: tuple[list[list[float]], list[float]]) -> bytes:
    """A ReLU network of these weights and biases, as ONNX bytes."""
    model = onnx.load_from_string(small_model(sizes=(len(layers[0][0][0]), *(len(bias) for _, bias in layers))))
    for k, (weight, bias) in enumerate(layers):
        for name, value in ((f"w{k}", weight), (f"b{k}", bias)):
            place = next(array for array in model.graph.initializer if array.name == name)
            place.CopyFrom(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    return model.SerializeToString()


def test_folding_keeps_no_relu_for_a_unit_that_was_proved_as_a_line(family: Family) -> None:
    """A mixture of ReLUs and lines was never proved; far outside the slice they differ."""
    x = 30 * family.cut.box.sample(500, np.random.default_rng(4))
    for mask in range(len(family.masks)):
        lined = apply_findings(family.network, family.findings(mask))
        assert not isinstance(lined, Refusal)
        want = lined.evaluate(x)
        np.testing.assert_allclose(family.folded_network(mask).evaluate(x), want, rtol=1e-4, atol=1e-3)


def excess(family: Family) -> float:
    """How far outputs at random points are off beyond the tolerance, in either form."""
    x = family.cut.box.sample(20000, np.random.default_rng(3)).astype(np.float32)
    y = family.network.evaluate(x.astype(np.float64))
    apart = [np.abs(family.evaluate(x, form=form) - y) for form in ("shared", "folded")]
    return float((np.array(apart) - np.array(family.tolerance)).max())


def test_units_stuck_active_may_turn_negative_behind_a_line() -> None:
    """Dropping the first unit changes both of those behind it alike only while neither is cut off at zero."""
    model = dense(
        ([[1.0], [1.0]], [0.0, -0.05]),
        ([[1.0, -1.0], [1.0, -1.0], [0.0, 1.0]], [0.01, 2.0, 0.0]),
        ([[1.0, -1.0, 0.0], [0.0, 0.0, 100.0]], [0.0, 0.0]),
    )
    box = Box(np.array([-1.0]), np.array([1.0]))
    cut, tolerance = GridCut.of(box, (1,)), (0.1, 0.1)
    work = SliceWork(read_network(onnx.load_from_string(model)), cut, SliceOptions(samples=256, tolerance=tolerance))
    assert excess(Family.from_records(model, cut, [work(0)], tolerance=tolerance)) <= ROUNDING


def test_joined_slices_with_other_masks_lose_their_lines() -> None:
    """A unit that was stuck inactive on one half would come back to life behind a dropped one."""
    model = dense(
        ([[0.9, 1, 0], [0.9, 1, 0], [-5, 0, 1], [-5, 0, -1]], [-0.9, -0.95, -1, -1]),
        ([[-1, 1, 1, -1], [0, 1, 0, 0]], [0, 0]),
        ([[1, 0], [0, 100]], [0, 0]),
    )
    box = Box(-np.ones(3), np.ones(3))
    cut = TreeCut(box, np.array([0]), np.array([0.0]), np.array([[-1, -2]]))
    network, tolerance = read_network(onnx.load_from_string(model)), (0.12, 0.12)
    work = SliceWork(network, cut, SliceOptions(samples=256, tolerance=tolerance))
    records = [work(0), work(1)]
    assert excess(Family.from_records(model, cut, records, tolerance=tolerance)) <= ROUNDING
    joined, kept = pruned(network, cut, records, 1)
    assert len(kept) == 1
    assert excess(Family.from_records(model, joined, kept, tolerance=tolerance)) <= ROUNDING


@pytest.mark.parametrize("how", [["--splits", "3"], ["--adaptive", "--budget", "5"], ["--at", "y0", "--units", "2"]])
def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    whole = ["slice", "m.onnx", "--bounds", "[-1,1]", "--quiet", "--preserve", "tolerance", *how]
    assert run([*whole, "--tolerance", "0.03", "--relative-to", "box", "-o", "f.redy"]) == 0
    family = Family.open("f.redy")
    assert family.tolerance is not None
    assert "within" in family.guarantee
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2)).astype(np.float32)
    truth = np.asarray(session(onnx.load("m.onnx")).run(None, {"x": x})[0])
    for form in ("shared", "folded"):
        apart = np.abs(family.evaluate(x, form=form) - truth)
        assert (apart <= np.array(family.tolerance) + ROUNDING).all()
    assert (np.array(family.tolerance) <= 0.03 * np.ptp(truth, axis=0) * 1.5).all()


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        (["--preserve", "tolerance"], "--tolerance E"),
        (["--tolerance", "0.1"], "--preserve tolerance"),
        (["--relative-to", "box"], "--preserve tolerance"),
        (["--preserve", "tolerance", "--tolerance", "-1"], "positive"),
        (["--preserve", "tolerance", "--tolerance", "nan"], "positive"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(small_model())
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--splits", "2", "--quiet", *wrong]) == 2
    assert part in capsys.readouterr().err
    assert not Path("m.redy").exists()


def test_a_tolerance_is_absolute_or_a_share_of_the_range() -> None:
    network = read_network(onnx.load_from_string(small_model()))
    assert tolerance_of(network, BOX, 0.5, None, 0) == (0.5,) * 3
    values = network.evaluate(BOX.sample(20000, np.random.default_rng(0)))
    share = np.array(tolerance_of(network, BOX, 0.5, "box", 0)) / np.ptp(values, axis=0)
    assert ((share > 0.45) & (share < 0.55)).all()
    with pytest.raises(InputError, match="positive"):
        tolerance_of(network, BOX, 0.0, None, 0)
