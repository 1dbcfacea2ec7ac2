"""The page of a reduction: complete, self-contained, escaped, small, and without an error in a browser."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import redy
from redy.cli.main import run
from redy.report import page, report
from redy.report.cells import FATES, MOST_CELLS, layers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def document(models):
    network = redy.read_network(models / "avoidance.onnx")
    box = redy.read_box(models / "avoidance_close.box.json", network.input.shape)
    found = report(redy.reduce(network, box, criteria=("phase",), engine="linear"), command="redy reduce 'a b.onnx'")
    return json.loads(json.dumps(found))


def wide(document, units):
    layer = {**document["layers"][0], "name": "wide", "units": units, "kept": units}
    return {**document, "layers": [layer], "findings": [], "undecided": [], "bounds": None}


def test_every_unit_is_a_cell_with_its_fate_and_bounds(document):
    drawn = layers(document)
    assert sum(len(layer.cells) for layer in drawn) == document["original"]["units"]
    for layer, row in zip(drawn, document["layers"], strict=False):
        shares = dict(layer.shares)
        for fate in ("inactive", "active", "replaced", "undecided"):
            assert shares.get(fate, 0) == row[fate]
        assert sum(shares.values()) == row["units"]
        for index, cell in enumerate(layer.cells):
            lower, upper = (document["bounds"][layer.name][end][index] for end in ("lower", "upper"))
            assert cell.title.startswith(f"{layer.name}/{index}: {cell.fate}")
            assert cell.title.endswith(f"pre-activation in [{lower:.6g}, {upper:.6g}]")
            assert not (cell.fate == "inactive" and lower > 0)


def test_the_page_says_what_an_auditor_asks(document):
    text = page([document])
    for part in (
        document["guarantee"]["statement"].split("'")[0],
        document["box"]["digest"],
        "What is trusted",
        "redy reduce &#39;a b.onnx&#39;",
    ):
        assert part in text
    assert all(fate in text for fate in FATES)
    assert len(text.encode()) < 600_000


def test_the_page_asks_nothing_of_the_network(document):
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import|https?://""", page([document]))
    assert addresses == [("data:,", "")]


def test_times_add_up_to_the_total(document):
    seconds = {"phase": 1.0, "total": 3.5}
    rows = re.findall(r"<td>(\w+)</td><td class=\"n\">([\d.]+) s</td>", page([{**document, "seconds": seconds}]))
    assert rows == [("phase", "1.00"), ("other", "2.50"), ("total", "3.50")]


def test_names_from_files_are_text_and_no_markup(document):
    name = "<script>alert(1)</script>\"'&"
    layer = {**document["layers"][0], "name": name}
    hostile = {**document, "layers": [layer], "original": {**document["original"], "file": name}, "notes": [name]}
    text = page([hostile])
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3


@pytest.mark.parametrize("units", [1, MOST_CELLS, MOST_CELLS + 1, 200_000])
def test_the_page_stays_small_whatever_the_width(document, units):
    assert len(page([wide(document, units)]).encode()) < 600_000


def test_report_writes_the_page_of_one_and_of_several(document, tmp_path):
    for documents in (document, [document, document]):
        source, target = tmp_path / "report.json", tmp_path / "page.html"
        source.write_text(json.dumps(documents))
        assert run(["report", str(source), "-o", str(target)]) == 0
        count = len(documents) if isinstance(documents, list) else 1
        assert target.read_text(encoding="utf-8").count("<article>") == count


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": 2}', '[{"format": 1}]', "[" * 100_000, "\x00"]
)
def test_what_is_no_report_is_one_line_and_exit_2(text, tmp_path, capsys):
    source, target = tmp_path / "report.json", tmp_path / "page.html"
    source.write_text(text)
    target.write_text("mine")
    assert run(["report", str(source), "-o", str(target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {source}: ")
    assert error.count("\n") == 1
    assert target.read_text() == "mine"


def test_the_page_never_replaces_its_own_report(document, tmp_path):
    source = tmp_path / "report.json"
    source.write_text(json.dumps(document))
    before = source.read_bytes()
    assert run(["report", str(source), "-o", str(source)]) == 2
    assert source.read_bytes() == before


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_an_error(document, tmp_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    target = tmp_path / "page.html"
    target.write_text(page([document]), encoding="utf-8")
    problems = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 740})
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        tab.goto(target.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        cell = tab.locator(".layer rect").first
        cell.hover()
        assert "pre-activation in" in tab.locator("#tip").inner_text()
        assert tab.evaluate(CONTRAST) >= 4.5
        browser.close()
    assert problems == []


CONTRAST = """() => {
  const part = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const under = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
  return Math.min(...[...document.querySelectorAll("p, h1, h2, td, th, li, pre, footer, .top span, .top b")].map(e => {
    const a = light(getComputedStyle(e).color), b = light(under(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
}"""
"""The least contrast of text to what is behind it, as WCAG 2 counts it."""
