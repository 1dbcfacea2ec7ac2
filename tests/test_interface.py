"""The Python interface: every public name is there, and importing it costs little."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import redy


@pytest.mark.parametrize("name", redy.__all__)
def test_a_public_name_is_that_of_its_module(name):
    assert getattr(redy, name) is getattr(importlib.import_module(redy._HOMES[name]), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'redy' has no attribute 'nosuch'"):
        redy.nosuch  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(redy.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == redy._HOMES
    assert sorted(seen) == dir(redy)


def test_importing_redy_imports_no_numpy():
    program = "import sys, redy; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
