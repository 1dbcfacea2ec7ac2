"""The page of a family: its figures are the family's, it stays small, and a browser shows it."""

from __future__ import annotations

import base64
import re
import shutil

import numpy as np
import pytest

from redy.cli.main import run
from redy.report.family_page import family_page
from redy.slicing.family import Family

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def family_file(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("family") / "f.redy"
    box = ["--bounds", str(models / "avoidance_close.box.json"), "--splits", "3,2,1,1,2"]
    assert run(["slice", str(models / "avoidance.onnx"), *box, "-o", str(path), "--quiet"]) == 0
    return path


def test_the_page_holds_the_share_of_every_slice(family_file, tmp_path):
    target = tmp_path / "page.html"
    assert run(["report", str(family_file), "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    family = Family.open(family_file)
    shares = np.frombuffer(base64.b64decode(re.search(r'atob\("([^"]*)"\)', text)[1]), dtype=np.uint8)
    assert np.abs(shares / 255 - family.removed()).max() <= 0.5 / 255 + 1e-12
    bars = [int(count) for count in re.findall(r"removed: (\d+) slices", text)]
    assert sum(bars) == len(family)
    assert f"{family.removed().mean():.1%}" in text
    assert "http://" not in text
    assert "https://" not in text


def test_a_page_of_32768_slices_is_below_8_megabytes(family_file, monkeypatch):
    family = Family.open(family_file)
    cut = type(family.cut).of(family.cut.box, (8, 8, 8, 8, 8))
    many = Family(family.original, cut, family.masks, np.zeros(32768, dtype=np.int64), np.ones(32768, dtype=bool))
    assert len(family_page(many, "many").encode()) < 8_000_000


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}"])
def test_what_is_no_family_is_exit_2(tmp_path, capsys, content):
    source, target = tmp_path / "f.redy", tmp_path / "page.html"
    source.write_bytes(content)
    assert run(["report", str(source), "-o", str(target)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not target.exists()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_the_map_and_its_selectors_work(family_file, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    target = tmp_path / "page.html"
    target.write_text(family_page(Family.open(family_file), "f.redy"), encoding="utf-8")
    problems = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 360, "height": 740})
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(target.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert tab.evaluate("[map.width, map.height]") == [3, 2]
        tab.select_option("#ay", "4")
        tab.select_option("#ax", "1")
        assert tab.evaluate("[map.width, map.height]") == [2, 2]
        tab.locator("#map").hover()
        assert "removed where input 1 is in" in tab.locator("#at").inner_text()
        browser.close()
    assert problems == []
