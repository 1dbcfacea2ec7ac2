"""Wheel and source archive: what is in them, and that they work where nothing else is installed.

Needs `build` and an index of packages, no other package of the tests: CI runs it on a bare Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def run(*command, cwd=None):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(wheel, source archive), the wheel built from the source archive."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_holds_the_package_and_its_data(distributions):
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "redy").rglob("*") if path.is_file()}
    tracked = {name for name in tracked if "__pycache__" not in name}
    assert {name for name in names if name.startswith("redy/")} == tracked
    assert {name.split("/")[0] for name in names} == {
        "redy",
        next(n for n in names if ".dist-info/" in n).split("/")[0],
    }


def test_the_source_archive_holds_what_the_project_needs_and_nothing_built(distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "redy/cli/main.py", "tests/conftest.py"} <= names
    assert not {name for name in names if name.startswith((".venv", "build/", "dist/", "models/external/"))}


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_a_clean_environment_reduces_a_network(distributions, tmp_path, kind):
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", environment)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", distributions[0 if kind == "wheel" else 1])
    version = distributions[0].name.split("-")[1]
    assert run(programs / "redy", "--version", cwd=tmp_path) == f"redy, version {version}\n"
    if kind == "source":
        return
    for name in ("avoidance.onnx", "avoidance_close.box.json"):
        shutil.copy(ROOT / "models" / name, tmp_path)
    run(programs / "redy", "doctor", cwd=tmp_path)
    arguments = ("avoidance.onnx", "--bounds", "avoidance_close.box.json", "--effort", "quick", "-o", "small.onnx")
    run(programs / "redy", "reduce", *arguments, "--html", "small.html", cwd=tmp_path)
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "avoidance.onnx").stat().st_size
    assert "</html>" in (tmp_path / "small.html").read_text(encoding="utf-8")
    run(programs / "redy", "verify", "avoidance.onnx", "small.onnx", "--bounds", "avoidance_close.box.json",
        "--tolerance", "1e-3", cwd=tmp_path)  # fmt: skip
