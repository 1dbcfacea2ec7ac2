"""Pages of verdicts, simplifications, batches and families that commands write with --html."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redy.cli.main import run
from redy.report.listing import WORDS, batch_page, verdicts_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def line(tmp_path):
    """y = relu(x) of one input."""
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    port = (TensorProto.FLOAT, ["n", 1])
    ends = [helper.make_tensor_value_info(name, *port) for name in "xy"]
    graph = helper.make_graph(nodes, "line", ends[:1], ends[1:], [one])
    path = tmp_path / "line & <b>.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def cells(page):
    text = page.read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert "<b>.onnx" not in text
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    return [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def test_prove_writes_its_verdicts(line, tmp_path):
    unsafe = (
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 -1))(assert (>= Y_0 {}))"
    )
    names = []
    for limit in (2, 0.5):
        (tmp_path / f"p{limit}.vnnlib").write_text(unsafe.format(limit))
        names += ["--property", str(tmp_path / f"p{limit}.vnnlib")]
    page = tmp_path / "page.html"
    assert run(["prove", str(line), *names, "--html", str(page), "--quiet"]) == 1
    rows = cells(page)
    assert [row[0] for row in rows] == ["holds", "violated"]
    assert rows[1][2].endswith("p0.5.vnnlib")
    point = float(re.search(r"input \((.*?)\)", rows[1][3])[1])
    assert 0.5 <= point <= 1
    text = page.read_text(encoding="utf-8")
    assert "1 holds, 1 violated" in text
    assert f"redy prove {shlex.quote(str(line))}".replace("&", "&amp;").split(" ")[0] in text


def test_verify_writes_its_answers(line, tmp_path):
    page = tmp_path / "page.html"
    asked = ["--bounds", "[-1,1]", "--tolerance", "0.1", "--html", str(page), "--quiet"]
    assert run(["verify", str(line), str(line), *asked]) == 0
    assert [row[0] for row in cells(page)] == ["verified"]


def test_simplify_writes_its_report(line, tmp_path):
    page, small = tmp_path / "page.html", tmp_path / "small.onnx"
    assert run(["simplify", str(line), "-o", str(small), "--html", str(page), "--quiet"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "multiply-adds" in text
    assert "What stays the same" in text
    assert small.exists()


def test_batch_writes_a_row_for_every_job(line, tmp_path):
    page, jobs = tmp_path / "page.html", tmp_path / "jobs.jsonl"
    both = [{"model": line.name, "bounds": "[-1,1]"}, {"model": "none.onnx", "bounds": "[-1,1]"}]
    jobs.write_text("\n".join(map(json.dumps, both)))
    asked = ["-o", str(tmp_path / "out"), "--html", str(page), "--quiet", "--jobs", "1"]
    assert run(["batch", str(jobs), *asked]) == 1
    rows = cells(page)
    assert [row[0] for row in rows] == ["1", "2"]
    assert rows[0][3] == "done"
    assert rows[1][3].startswith("failed: ")
    assert "1 of 2 jobs done" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["prove", "verify", "simplify", "slice", "batch"])
def test_a_page_never_replaces_an_input(command, line, tmp_path, capsys):
    (tmp_path / "p.vnnlib").write_text("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= Y_0 2))")
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"model": line.name, "bounds": "[-1,1]"}))
    arguments = {
        "prove": [str(line), "--property", str(tmp_path / "p.vnnlib")],
        "verify": [str(line), str(line), "--bounds", "[-1,1]", "--tolerance", "1"],
        "simplify": [str(line), "-o", str(tmp_path / "o.onnx")],
        "slice": [str(line), "--bounds", "[-1,1]", "--splits", "2", "-o", str(tmp_path / "f.redy")],
        "batch": [str(tmp_path / "jobs.jsonl"), "-o", str(tmp_path / "out")],
    }[command]
    before = line.read_bytes()
    assert run([command, *arguments, "--html", str(line)]) == 2
    assert line.read_bytes() == before
    assert capsys.readouterr().err.count("\n") == 1


def test_every_verdict_has_a_meaning():
    for word in WORDS:
        answer = {"answer": word, "network": "n.onnx", "property": "p", "seconds": 0.1, "input": list(range(100))}
        text = verdicts_page([answer])
        assert WORDS[word] in text.replace("&#39;", "'")
        assert "and 84 more" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_sorts_the_table(tmp_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    sizes = {"units_before": 10, "parameters_before": 100, "undecided": 0, "status": "done", "bounds": "[-1,1]"}
    rows = [
        {
            **sizes,
            "job": k,
            "model": f"n{k}.onnx",
            "units_after": k % 7,
            "parameters_after": 13 * k % 97,
            "seconds": 1.0,
        }
        for k in range(1, 30)
    ]
    target = tmp_path / "page.html"
    target.write_text(batch_page(rows, tmp_path / "results.sqlite"), encoding="utf-8")
    problems = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 740})
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(target.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        for order in ("ascending", "descending"):
            tab.click("#rows th:nth-child(6) button")
            shown = tab.evaluate("[...document.querySelectorAll('#rows tbody tr')].map(r => +r.cells[5].dataset.v)")
            assert shown == sorted((13 * k % 97 / 100 for k in range(1, 30)), reverse=order == "descending")
            assert tab.get_attribute("#rows th:nth-child(6)", "aria-sort") == order
        browser.close()
    assert problems == []
