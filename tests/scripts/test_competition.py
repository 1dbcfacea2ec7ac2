"""The scripts that the verification competition calls: one word in the result file, whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts" / "competition"
PROPERTY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)))(assert (>= Y_0 {bound}))"""


@pytest.fixture
def network(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 2), ("y", 1)))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, 1.0])
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    path = tmp_path / "net.onnx"
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs coreutils")
@pytest.mark.parametrize(
    ("text", "word"), [(PROPERTY.format(bound=2.5), "unsat"), (PROPERTY.format(bound=1), "sat"), ("(", "error")]
)
def test_an_instance_ends_with_one_word(network, tmp_path, text, word):
    prop, result = tmp_path / "p.vnnlib", tmp_path / "result.txt"
    prop.write_text(text)
    command = tmp_path / "redy"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m redy "$@"\n')
    command.chmod(0o755)
    given = ["v1", "test", str(network), str(prop), str(result), "60"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = tmp_path / "tree" / "scripts" / "competition"
    shutil.copytree(SCRIPTS, script)
    subprocess.run([script / "prepare_instance.sh", *given[:4]], check=True)
    ended = subprocess.run([script / "run_instance.sh", *given], env=environment, check=False)
    assert result.read_text().split()[0] == word
    assert (ended.returncode == 0) == (word != "error")
