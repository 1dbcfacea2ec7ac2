"""What redy imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"scikit-learn": "sklearn", "onnx-ir": "onnx_ir", "ml-dtypes": "ml_dtypes", "protobuf": "google"}
"""Distribution -> module, where they differ."""
INDIRECT = {"llvmlite"}
"""Modules that a declared package (numba) is built on and gives in its own interface."""


def modules(requirements):
    found = {
        requirement.split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip() for requirement in requirements
    }
    return {NAMES.get(name, name) for name in found}


def test_imports_and_declared_dependencies_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = set()
    for path in (ROOT / "redy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    imported -= set(sys.stdlib_module_names) | {"redy"} | INDIRECT
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    declared = modules(project["dependencies"])
    assert declared - imported - {"highspy", "gurobipy"} == set()
    assert imported - declared - modules(extras) == set()
