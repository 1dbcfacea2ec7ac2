"""The table on the terminal: complete where there is room, fewer columns and whole numbers where there is not."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

import redy
from redy.report import listed, report, show


@pytest.fixture(scope="module")
def document(models):
    network = redy.read_network(models / "avoidance.onnx")
    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    return json.loads(json.dumps(report(redy.reduce(network, box, criteria=("phase",), engine="linear"))))


def shown(document, width):
    console = Console(width=width, record=True, file=io.StringIO())
    show(document, console)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_width_cuts_a_number(document, width):
    text = shown(document, width)
    table = [line for line in text.split("\n") if "\u2502" in line]
    assert max(map(len, text.split("\n"))) <= width
    assert "\u2026" not in text
    total = next(line for line in table if "total" in line)
    cells = [cell.strip() for cell in total.strip("\u2502").split("\u2502")]
    assert cells[1:3] == [str(document["original"]["units"]), str(sum(layer["kept"] for layer in document["layers"]))]
    for layer in document["layers"]:
        assert any(layer["name"] in line for line in table)
    if width >= 140:
        assert f"{document['reduced']['multiply_adds']:,}" in total


def test_the_lines_say_what_was_removed_guaranteed_and_trusted(document):
    text = shown(document, 200)
    gone = document["original"]["units"] - document["reduced"]["units"]
    assert f"{gone} of {document['original']['units']} units" in text
    for line in ("removed", "guarantee", "trusted", "proofs", "seconds"):
        assert re.search(rf"^{line} ", text, re.MULTILINE)


@pytest.mark.parametrize("engine", ["linear", "branch"])
def test_a_reduction_that_removes_nothing_says_why_and_what_to_try(models, engine):
    network = redy.read_network(models / "avoidance.onnx")
    wide = redy.Box(np.full(network.input.shape, -1000.0), np.full(network.input.shape, 1000.0))
    made = redy.reduce(network, wide, criteria=("phase",), engine=engine, effort="quick")
    notes = report(made)["notes"]
    said = [note for note in notes if note.startswith("Nothing was proved or removed, because ")]
    assert len(said) == (0 if made.findings else 1)
    assert all("; try " in note for note in said)
    if engine == "linear":
        assert "; try --engine auto." in said[0]


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_a_listing_leaves_out_columns_and_never_cuts_a_number(width):
    columns = ("layer", "before", "after", "operator", "shape")
    rows = [(f"/backbone/block{k}/convolution_output", f"{10**k:,}", "gone", "Conv", "3x224x224") for k in range(8)]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(listed(columns, rows, columns[1:3], console))
    text = console.export_text()
    assert max(map(len, text.split("\n"))) <= width
    assert "\u2026" not in text
    assert f"{10**7:,}" in text
    assert ("3x224x224" in text) == (width >= 100)
