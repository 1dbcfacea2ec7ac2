"""`redy slice --flash`: the C file keeps within the bytes and gives numpy's bits; more bytes are no slower."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_family import run_c, small_model

import redy
from redy.cli.main import run
from redy.formats.onnx_read import read_network
from redy.runs.executor import Here
from redy.slicing import flash
from redy.slicing.adaptive import adaptive_cut
from redy.slicing.cuts import leaves_of
from redy.slicing.export_c import c_source
from redy.slicing.family import Family
from redy.slicing.flash import flash_pruned, flash_size
from redy.slicing.pruning import pruned
from redy.slicing.run import run_slices
from redy.slicing.work import SliceOptions, SliceWork

BOX = redy.Box(np.full(2, -1.0), np.full(2, 1.0))
MODEL = small_model(1, (2, 24, 20, 3))
NETWORK = read_network(onnx.load_from_string(MODEL))
COMPILER = shutil.which("gcc")


@pytest.fixture(scope="module")
def searched():
    cut = adaptive_cut(NETWORK, BOX, 40)
    return cut, run_slices(SliceWork(NETWORK, cut, SliceOptions(samples=64)), Here(), None)


def made(cut, records, form) -> Family:
    family = Family.from_records(MODEL, cut, records)
    family.form = form
    return family


def at(searched, room: int) -> Family:
    return made(*flash_pruned(NETWORK, *searched, room, made))


def test_the_code_keeps_within_its_bytes_and_more_bytes_are_no_slower(searched) -> None:
    times = []
    for room in (9_000, 12_000, 20_000, 60_000):
        family = at(searched, room)
        assert flash_size(c_source(family)) <= room
        codes = [*flash._folded(NETWORK, *searched, room, made), *flash._shared(NETWORK, *searched, room, made)]
        times.append(min(code.time for code in codes if code.size <= room))
    assert times == sorted(times, reverse=True)
    assert len(at(searched, 60_000)) > len(at(searched, 9_000))


def test_what_cannot_fit_is_refused_with_the_bytes_it_takes(searched) -> None:
    with pytest.raises(redy.InputError, match="--flash 4100: the smallest code takes") as error:
        at(searched, 4_100)
    least = int(str(error.value).split("takes ")[1].split()[0])
    assert flash_size(c_source(at(searched, least))) <= least


def test_the_subtree_of_a_price_is_the_best_of_all(searched) -> None:
    """Against every subtree of a small tree."""
    cut = adaptive_cut(NETWORK, BOX, 6)
    records = run_slices(SliceWork(NETWORK, cut, SliceOptions(samples=64)), Here(), None)
    cut, records = pruned(NETWORK, cut, records)
    tree = flash._Weighed.of(NETWORK, cut, records, made)

    def subtrees(node: int):
        yield {}
        if node >= 0:
            below, above = (int(child) for child in cut.children[node])
            own = {node: (int(cut.axis[node]), float(cut.face[node]), below, above)}
            for one, other in itertools.product(subtrees(below), subtrees(above)):
                yield own | one | other

    def cost(nodes, price: float) -> float:
        leaves = leaves_of(nodes)
        bytes_ = sum(tree.size[name] for name in leaves) + flash.NODE * len(nodes)
        return sum(tree.time[name] for name in leaves) + price * bytes_

    for price in (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0):
        best = min(cost(nodes, price) for nodes in subtrees(0))
        assert cost(tree._at(price), price) == pytest.approx(best, rel=1e-9)


@pytest.mark.skipif(COMPILER is None, reason="needs gcc")
@pytest.mark.parametrize(
    "preserve", [[], ["--preserve", "decision"], ["--preserve", "tolerance", "--tolerance", "0.5"]]
)
def test_the_command_and_its_c_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preserve: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(MODEL)
    command = ["slice", "m.onnx", "--bounds", "[-1,1]", "--flash", "12k", "-o", "f.redy", *preserve]
    assert run([*command, "--quiet"]) == 0
    assert run(["export", "f.redy", "-o", "f.c"]) == 0
    family = Family.open("f.redy")
    assert family.options["flash"] == 12 * 1024
    x = BOX.sample(500, np.random.default_rng(0)).astype(np.float32)
    assert np.array_equal(run_c(Path("f.c").read_text(), x, tmp_path), family.evaluate(x))
    subprocess.run(["gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-c", "f.c"], check=True)
    counted = subprocess.run(["size", "f.o"], check=True, capture_output=True, text=True).stdout
    text, data, *_ = counted.splitlines()[1].split()
    assert int(text) + int(data) <= flash_size(Path("f.c").read_text()) <= 12 * 1024


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flash", "much"], "number of bytes"),
        (["--flash", "0"], "positive"),
        (["--flash", "100"], "smallest code"),
        (["--flash", "9k", "--splits", "2"], "say how to cut"),
        (["--flash", "9k", "--form", "shared"], "chooses the form"),
    ],
)
def test_bad_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(MODEL)
    assert run(["slice", "m.onnx", "--bounds", "[-1,1]", "--work", "0", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not Path("m.redy").exists()
