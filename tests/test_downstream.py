"""The guide to other tools: its blocks run on the shipped controller, for every tool that is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from redy.cli.main import run
from redy.formats.onnx_run import Session

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "downstream.md"


def blocks(language: str, title: str) -> list[str]:
    """The blocks of one section; those before the first title are the beginning."""
    section = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(title))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the guide's command was run."""
    folder = tmp_path_factory.mktemp("downstream")
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("external"))
    (command,) = blocks("bash", "# Reduced")
    words = command.split()
    assert words[:2] == ["redy", "reduce"]
    paths = [str(folder / word) if word.startswith(("models/", "small")) else word for word in words[1:]]
    assert run([*paths, "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(
    ("title", "package", "reports"),
    [("Marabou", "maraboupy", "verdict"), ("gurobi", "gurobi_ml", "largest_cost"), ("OMLT", "omlt", "largest_cost")],
)
def test_every_block_runs_and_agrees_with_the_network(title, package, reports, place):
    pytest.importorskip(package, reason=f"pip install '.[guides]' for {package}")
    (start,), (block,) = blocks("python", "# Reduced"), blocks("python", title)
    code = f"{start}\n{block}\nprint('answer', {reports})"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = re.search(r"^answer (\S+)", done.stdout, re.MULTILINE)[1]
    low, high = (np.array(v) for v in ((-0.75, 0.25, -0.5, 0, 0), (-0.5, 0.5, 0, 0.5, 0.5)))
    x = np.random.default_rng(0).uniform(low, high, (20_000, 5))
    met = Session(place / "small.onnx").run(x)[:, 0].max()
    if reports == "verdict":
        assert answer == "sat" or met < 2
    else:
        assert met - 1e-4 <= float(answer) <= met + 0.2 * (1 + abs(met))
