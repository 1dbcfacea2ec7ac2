"""The documentation: complete about commands, options, exit codes and operators; its tutorials run; the site builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from redy.cli.main import SUMMARIES, redy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402 - a script beside the package


@pytest.mark.parametrize("name", list(SUMMARIES))
def test_every_option_is_documented(name):
    command = redy.get_command(click.Context(redy), name)
    section = reference.commands_page().split(f"\n## redy {name}\n")[1].split("\n## ")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"redy {name} {option.opts[0]} has no help"
            assert all(f"{spelling}" in section for spelling in option.opts)


def test_every_exit_code_of_a_help_text_is_documented():
    page = reference.commands_page()
    for name in SUMMARIES:
        text = redy.get_command(click.Context(redy), name).help.partition("Exit code")[2]
        codes = {int(code) for code in re.findall(r"\b(\d{1,3}):", text)}
        assert codes, f"redy {name} documents no exit code"
        assert codes <= set(reference.EXIT_CODES)
    assert all(f"| {code} |" in page for code in (0, 1, 2, 3, 70, 130))


def test_every_operator_is_documented():
    from redy.formats.reading.graph import READERS

    page = reference.operators_page()
    assert len(READERS) > 50
    assert all(f"- `{name}`\n" in page for name in READERS)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_runs(page, tmp_path):
    external = Path(os.environ.get("REDY_DATA") or ROOT / "models" / "external").resolve()
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "REDY_DATA" in "".join(blocks) and not (external / "acasxu").exists():
        pytest.skip("needs the ACAS Xu networks; run: python scripts/fetch_acas.py")
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("external"))
    (tmp_path / "redy").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m redy "$@"\n')
    (tmp_path / "redy").chmod(0o755)
    assert blocks
    script = f'set -e\nPATH="{tmp_path}:$PATH"\n' + "\n".join(blocks)
    where = {**os.environ, "REDY_DATA": str(external)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_every_notebook_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("external"))
    (tmp_path / "build").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    read = nbformat.read(notebook, as_version=4)
    done = nbclient.NotebookClient(read, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell.outputs for cell in done.cells if cell.cell_type == "code"]
    assert outputs
    assert all(outputs)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "commands" / "index.html").exists()


def test_the_examples_of_extending_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 10
    (tmp_path / "models").symlink_to(ROOT / "models")
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
