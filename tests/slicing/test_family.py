"""Families: every engine and export agrees with the original; faces belong to one slice; files survive."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redy.errors import InputError
from redy.formats.onnx_read import read_network
from redy.model import Box
from redy.runs.executor import Here
from redy.runs.store import Store
from redy.slicing.archive import unpack_program
from redy.slicing.cuts import Cut, GridCut, TreeCut
from redy.slicing.export_c import c_source, program_source
from redy.slicing.export_onnx import family_model, session, slice_model
from redy.slicing.family import Family, choose_form
from redy.slicing.run import COLUMNS, run_slices
from redy.slicing.selections import REFERENCE
from redy.slicing.work import SliceOptions, SliceWork


def small_model(seed: int = 0, sizes: tuple[int, ...] = (2, 12, 10, 3)) -> bytes:
    """A dense ReLU network as ONNX bytes."""
    rng = np.random.default_rng(seed)
    nodes, constants, last = [], [], "x"
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        constants.append(numpy_helper.from_array(rng.normal(size=(outputs, inputs)).astype(np.float32), f"w{k}"))
        constants.append(numpy_helper.from_array(rng.normal(size=outputs).astype(np.float32), f"b{k}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        last = f"z{k}"
        if k < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"y{k}"]))
            last = f"y{k}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", sizes[0]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", sizes[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


BOX = Box(np.array([-0.7, -1.0]), np.array([1.3, 1.0]))
TREE = TreeCut(BOX, np.array([0, 1]), np.array([0.1, -0.3]), np.array([[~0, 1], [~1, ~2]]))
CUTS = {"grid": GridCut.of(BOX, (4, 3)), "tree": TREE, "whole": GridCut.of(BOX, (1, 1))}


def made(cut: Cut, path: Path, model: bytes | None = None) -> Family:
    model = small_model() if model is None else model
    work = SliceWork(read_network(onnx.load_from_string(model)), cut, SliceOptions(samples=64))
    with Store(path / "store.sqlite", COLUMNS, work.digests) as store:
        return Family.from_records(model, cut, run_slices(work, Here(), store))


@pytest.fixture(params=list(CUTS))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Family:
    return made(CUTS[request.param], tmp_path)


def points(family: Family, count: int = 500) -> np.ndarray:
    """Random points, and every corner of every slice: points on faces."""
    box, rng = family.cut.box, np.random.default_rng(3)
    corners = [family.cut.cell(i).corners(4, rng) for i in range(len(family))]
    return np.concatenate([box.sample(count, rng), *corners]).astype(np.float32)


def expected(family: Family, x: np.ndarray) -> np.ndarray:
    return np.asarray(session(onnx.load_from_string(family.original)).run(None, {"x": x})[0])


@pytest.mark.parametrize("form", ["shared", "folded"])
@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_agrees_with_the_original(family: Family, form: str, engine: str) -> None:
    x = points(family)
    assert (family.removed() > 0).any()
    np.testing.assert_allclose(family.evaluate(x, form=form, engine=engine), expected(family, x), atol=1e-5)


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_a_point_alone_has_the_bits_it_has_in_a_batch(family: Family, form: str) -> None:
    x = points(family, 50)
    batch = family.evaluate(x, form=form)
    assert batch.dtype == np.float32
    assert np.array_equal(np.stack([family.evaluate(one, form=form) for one in x]), batch)


def test_a_point_belongs_to_one_slice_that_holds_it(family: Family) -> None:
    x = points(family)
    at = family.locate(x)
    for one, index in zip(x.astype(np.float64), at, strict=True):
        cell = family.cut.cell(int(index))
        inside = (one >= cell.lower) & ((one < cell.upper) | (cell.upper == family.cut.box.upper))
        near = np.isclose(one, cell.lower, atol=1e-7) | np.isclose(one, cell.upper, atol=1e-7)
        assert (inside | near).all()
        holders = [
            k
            for k in range(len(family))
            if all(
                lo <= v < hi or (v == hi == end)
                for lo, v, hi, end in zip(
                    family.cut.cell(k).lower, one, family.cut.cell(k).upper, family.cut.box.upper, strict=True
                )
            )
        ]
        assert holders in ([int(index)], [])  # [] only where rounding to float32 left the box


def test_one_model_picks_the_slice(family: Family) -> None:
    x = points(family)
    model = family_model(family)
    assert [port.name for port in model.graph.input] == ["x"]
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], expected(family, x), atol=1e-5)


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_one_slice_as_onnx(family: Family, form: str) -> None:
    index = len(family) // 2
    x = family.cut.cell(index).sample(100, np.random.default_rng(0)).astype(np.float32)
    np.testing.assert_allclose(
        session(slice_model(family, index, form)).run(None, {"x": x})[0], expected(family, x), atol=1e-5
    )


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_c99_gives_the_same_bits(family: Family, form: str, tmp_path: Path) -> None:
    x = points(family)
    want = family.evaluate(x, form=form)
    source = c_source(family, form)
    for flags in (["-O2"], ["-O3"], ["-O1", "-DREDY_PLAIN"]):
        assert run_c(source, x, tmp_path, flags).tobytes() == want.tobytes()


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_c99_of_a_residual_network_in_float64(form: str, tmp_path: Path) -> None:
    family = made(GridCut.of(BOX, (3, 3)), tmp_path, residual_model())
    assert family.whole.dtype == np.float64
    assert any(len(step.sources) > 1 for step in family.whole.steps)
    x = family.cut.box.sample(300, np.random.default_rng(1))
    want = family.evaluate(x, form=form)
    np.testing.assert_allclose(want, expected(family, x), atol=1e-12)
    for flags in (["-O2"], ["-O2", "-DREDY_PLAIN"]):
        assert run_c(c_source(family, form), x, tmp_path, flags).tobytes() == want.tobytes()


@pytest.mark.parametrize("form", ["shared", "folded"])
def test_the_original_in_c99(family: Family, form: str, tmp_path: Path) -> None:
    x = points(family)
    assert np.array_equal(run_c(program_source(family, form), x, tmp_path), family.whole.evaluate(x))


def residual_model() -> bytes:
    """x -> z0 -> relu y0 -> z1 -> relu y1; the output reads y0 + y1."""
    rng, nodes, constants = np.random.default_rng(2), [], []
    for k, (inputs, outputs) in enumerate([(2, 9), (9, 9), (9, 2)]):
        constants.append(numpy_helper.from_array(rng.normal(size=(outputs, inputs)), f"w{k}"))
        constants.append(numpy_helper.from_array(rng.normal(size=outputs), f"b{k}"))
    for k, source in enumerate(["x", "y0"]):
        nodes.append(helper.make_node("Gemm", [source, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"z{k}"], [f"y{k}"]))
    nodes.append(helper.make_node("Add", ["y0", "y1"], ["sum"]))
    nodes.append(helper.make_node("Gemm", ["sum", "w2", "b2"], ["out"], transB=1))
    kind = TensorProto.DOUBLE
    ports = [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in ("x", "out")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def run_c(source: str, x: np.ndarray, folder: Path, extra: list[str] | None = None) -> np.ndarray:
    (folder / "family.c").write_text(source, encoding="ascii")
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    flags = [*strict, *(extra or ["-O2"])]
    subprocess.run(["gcc", *flags, "-c", "family.c", "-o", "family.o"], cwd=folder, check=True)
    subprocess.run(["gcc", *flags, "-DREDY_MAIN", "family.c", "-o", "family"], cwd=folder, check=True)
    done = subprocess.run([folder / "family"], input=x.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype=x.dtype).reshape(len(x), -1)


@pytest.mark.parametrize("form", ["shared", "folded", "auto"])
def test_the_file_gives_the_family_back(family: Family, form: str, tmp_path: Path) -> None:
    path, again = tmp_path / "a.redy", tmp_path / "b.redy"
    chosen = choose_form(family, form)
    chosen.save(path)
    chosen.save(again)
    assert path.read_bytes() == again.read_bytes()
    opened, x = Family.open(path), points(family)
    assert opened.form == chosen.form
    assert np.array_equal(opened.evaluate(x), chosen.evaluate(x))
    assert np.array_equal(opened.evaluate(x, form="folded"), family.evaluate(x, form="folded"))


def test_stored_networks_come_back_bit_for_bit(family: Family) -> None:
    """What the original's rows and columns give is a reference; products are stored."""
    stored = family.with_folded()
    assert (stored.folded["programs"] >= REFERENCE).any()
    for mask in range(len(family.masks)):
        again = unpack_program(stored.folded, mask, family.whole.inputs, family.selections(mask).array)
        made = family.mask_program(mask, "folded")
        assert [(s.sources, s.relu) for s in again.steps] == [(s.sources, s.relu) for s in made.steps]
        for one, other in zip(again.steps, made.steps, strict=True):
            for a, b in zip((one.bias, *one.weights), (other.bias, *other.weights), strict=True):
                assert a.shape == b.shape
                assert a.tobytes() == b.tobytes()


def test_a_selection_is_part_of_the_original(family: Family) -> None:
    whole = {array.tobytes() for step in family.whole.steps for array in (step.bias, *step.weights)}
    references = family.selections(0).references()
    assert whole <= set(references)
    for data, reference in references.items():
        assert family.selections(0).array(reference).tobytes() == data


def test_the_folded_form_is_far_below_separate_files(tmp_path: Path) -> None:
    family = made(GridCut.of(BOX, (12, 12)), tmp_path, small_model(1, (2, 30, 30, 3)))
    size = family.sizes()
    files = [len(slice_model(family, k, "folded").SerializeToString()) for k in range(len(family))]
    for form, each in (("folded", size.masks), ("stored", size.stored)):
        chosen = choose_form(family, "folded", store=form == "stored")
        chosen.save(tmp_path / form)
        assert 3 * (tmp_path / form).stat().st_size < sum(files)
        assert 3 * size.total(each) < size.slices * size.separate
    assert size.slices * size.separate == pytest.approx(sum(files), rel=0.25)


def test_shapes_and_refusals(family: Family, tmp_path: Path) -> None:
    assert family.evaluate([0.0, 0.5]).shape == (3,)
    assert family.evaluate(np.zeros((4, 2))).shape == (4, 3)
    assert family.evaluate(np.zeros((0, 2))).shape == (0, 3)
    for wrong, words in ((np.zeros(3), "shape"), (np.array([9.0, 0.0]), "outside"), (np.array([np.nan, 0]), "outside")):
        with pytest.raises(InputError, match=words):
            family.evaluate(wrong)
    damaged = tmp_path / "damaged.redy"
    family.save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-200])
    for path in (damaged, tmp_path / "missing.redy", tmp_path):
        with pytest.raises(InputError):
            Family.open(path)


def test_equal_masks_are_stored_once(tmp_path: Path) -> None:
    family = made(GridCut.of(BOX, (16, 16)), tmp_path)
    assert len(family.masks) < len(family) == 256
    assert len(np.unique(family.masks, axis=0)) == len(family.masks)
