"""What the code promises of its own structure; the layers themselves are contracts of import-linter."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent / "redy"


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("redy", cache_dir=None, exclude_type_checking_imports=True)
    # A package that gathers names of its modules is no circle.
    modules = {name for name in graph.modules if not (ROOT.parent / name.replace(".", "/")).is_dir()}
    # `Family.open` and `Family.save` defer the import of the module that reads and writes archives.
    modules -= {name for name in modules if name.startswith("redy.slicing.")}
    edges = {name: graph.find_modules_directly_imported_by(name) & modules for name in modules}
    TopologicalSorter(edges).prepare()


def test_the_number_of_inputs_that_branching_takes_stands_in_one_place():
    found = [path for path in ROOT.rglob("*.py") if "BRANCHING_INPUTS =" in path.read_text(encoding="utf-8")]
    assert [path.name for path in found] == ["situation.py"]
