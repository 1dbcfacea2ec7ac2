"""Certificates of small random networks: accepted ones are true at every point, and changed ones are never false."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from redy.certificates import Effort, Refusal, certify_files
from redy.certificates.encoding import pack
from redy.certify import Rejected, Unusable, check
from redy.certify.claims import Property, SameWinner, Unsafe, Within
from redy.certify.encoding import MAGIC, unpack

LAYERS = (2, 5, 4, 3)


def write(path, weights, biases, activation="Relu"):
    nodes, tensors, value = [], [], "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        tensors += [numpy_helper.from_array(w, f"w{k}"), numpy_helper.from_array(b, f"b{k}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        value = f"z{k}"
        if k + 1 < len(weights):
            nodes.append(helper.make_node(activation, [value], [f"a{k}"]))
            value = f"a{k}"
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s])
        for n, s in (("x", LAYERS[0]), (value, LAYERS[-1]))
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def drawn(rng, scale=1.0):
    shapes = list(zip(LAYERS[1:], LAYERS[:-1], strict=True))
    weights = [(scale ** (1 if k % 2 else -1) * rng.normal(size=s)).astype(np.float32) for k, s in enumerate(shapes)]
    return weights, [rng.normal(size=len(w)).astype(np.float32) for w in weights]


def evaluated(weights, biases, x, activation="Relu"):
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w.astype(np.float64).T + b.astype(np.float64)
        if k + 1 < len(weights):
            x = (
                np.abs(x)
                if activation == "Abs"
                else np.where(x > 0, x, 0.009999999776482582 * x if activation == "LeakyRelu" else 0.0)
            )
    return x


def pair(rng, folder, activation="Relu", scale=1.0, change=1e-4):
    weights, biases = drawn(rng, scale)
    others = [(w + change * np.abs(w) * rng.uniform(-1, 1, w.shape)).astype(np.float32) for w in weights]
    files = folder / "a.onnx", folder / "b.onnx"
    write(files[0], weights, biases, activation)
    write(files[1], others, biases, activation)
    x = rng.uniform(-1, 1, (4000, LAYERS[0]))
    return files, evaluated(weights, biases, x, activation), evaluated(others, biases, x, activation)


BOX = np.full(2, -1.0), np.full(2, 1.0)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Abs"])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_what_is_accepted_holds_and_what_is_false_is_refused(tmp_path, activation, scale):
    made = 0
    for seed in range(4):
        files, ours, theirs = pair(np.random.default_rng(seed), tmp_path, activation, scale)
        met = np.abs(ours - theirs).max()
        true = certify_files(*files, BOX, Within(np.array([1.5 * met])), effort=Effort(nodes=2000))
        made += isinstance(true, bytes)
        false = certify_files(*files, BOX, Within(np.array([0.999 * met])), effort=Effort(nodes=200))
        assert isinstance(false, Refusal)
        if isinstance(true, bytes):
            header, body = unpack(true)
            part = header.parts[0]
            lie = type(part)(part.low, part.high, Within(np.array([0.999 * met])))
            lying = type(header)(header.original, header.reduced, (lie,), header.fits)
            with pytest.raises(Rejected):
                check(*files, pack(lying, body))
    assert made >= 3


def test_every_changed_byte_is_rejected_or_states_something_true(tmp_path):
    files, ours, theirs = pair(np.random.default_rng(5), tmp_path, change=1e-2)
    met = np.abs(ours - theirs).max()
    data = certify_files(*files, BOX, Within(np.array([1.2 * met])))
    assert isinstance(data, bytes)
    header, body = unpack(data)
    rng, accepted = np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(body)
        changed[rng.integers(len(changed))] = rng.choice([0, 1, 2, 3, 5, 255])
        try:
            found = check(*files, pack(header, bytes(changed)))
        except Rejected:
            continue
        accepted += 1
        assert found.parts[0].claim.error.max() >= met
    assert accepted < 300
    for changed in (data[:-3], data + b"x", b"", MAGIC, data[: len(MAGIC)] + b"\0" * 50):
        with pytest.raises((Rejected, Unusable)):
            check(*files, changed)
    for wrong in (body[:-1], body + b"\xff"):
        with pytest.raises(Rejected):
            check(*files, pack(header, wrong))


def test_other_files_and_other_weights_are_rejected(tmp_path):
    files, ours, theirs = pair(np.random.default_rng(6), tmp_path)
    data = certify_files(*files, BOX, Within(np.array([2 * np.abs(ours - theirs).max()])))
    with pytest.raises(Rejected, match="another file"):
        check(files[1], files[0], data)
    model = onnx.load(files[1])
    bias = numpy_helper.to_array(model.graph.initializer[-1]).copy()
    bias[0] += 1
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(bias, model.graph.initializer[-1].name))
    onnx.save(model, files[1])
    with pytest.raises(Rejected):
        check(*files, data)
    header, body = unpack(data)
    from redy.certify.graph import Graph

    forged = type(header)(header.original, Graph(files[1]).digest, header.parts, header.fits)
    with pytest.raises(Rejected, match="node"):
        check(*files, pack(forged, body))


def test_decisions(tmp_path):
    proved = 0
    for seed in range(4):
        files, ours, theirs = pair(np.random.default_rng(seed), tmp_path, change=1e-2)
        rows = np.arange(len(ours))
        for winner, sign in (("max", 1), ("min", -1)):
            best = (sign * ours).argmax(axis=1)
            lead = sign * (ours[rows, best][:, None] - ours)
            lost = lead[sign * (theirs[rows, best][:, None] - theirs) < 0]
            worst = lost.max(initial=0.0)
            data = certify_files(*files, BOX, SameWinner(winner, 4 * worst + 0.05))
            proved += isinstance(data, bytes)
            if worst > 0:
                assert isinstance(
                    certify_files(*files, BOX, SameWinner(winner, 0.99 * worst), effort=Effort(nodes=200)), Refusal
                )
    assert proved >= 6


def test_properties_of_one_file(tmp_path):
    files, ours, _ = pair(np.random.default_rng(2), tmp_path)
    high = ours[:, 0].max()

    def above(limit):
        row = np.eye(3)[:1] * -1.0
        return Property((Unsafe(np.hstack([row, np.zeros((1, 2))]), np.array([limit]), np.array([False])),))

    data = certify_files(files[0], None, BOX, above(high + 0.5))
    assert isinstance(data, bytes)
    check(files[0], None, data)
    assert isinstance(certify_files(files[0], None, BOX, above(high - 1e-9), effort=Effort(nodes=200)), Refusal)


def test_the_folder_runs_alone(tmp_path):
    files, ours, theirs = pair(np.random.default_rng(6), tmp_path)
    data = certify_files(*files, BOX, Within(np.array([2 * np.abs(ours - theirs).max()])))
    (tmp_path / "c.cert").write_bytes(data)
    import redy.certify

    alone = tmp_path / "alone"
    shutil.copytree(Path(redy.certify.__file__).parent, alone / "checker")
    blocked = alone / "redy"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('redy must not be imported')")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    call = [sys.executable, "-m", "checker", str(files[0]), str(files[1])]
    good = subprocess.run(
        check=False, args=[*call, str(tmp_path / "c.cert")], cwd=alone, env=environment, capture_output=True, text=True
    )
    assert good.returncode == 0, good.stderr
    assert "accepted" in good.stdout
    (tmp_path / "d.cert").write_bytes(data[:-4])
    bad = subprocess.run(
        check=False, args=[*call, str(tmp_path / "d.cert")], cwd=alone, env=environment, capture_output=True, text=True
    )
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


def test_unknown_operators_are_named(tmp_path):
    weights, biases = drawn(np.random.default_rng(0))
    write(tmp_path / "s.onnx", weights, biases, "Sigmoid")
    made = certify_files(tmp_path / "s.onnx", tmp_path / "s.onnx", BOX, Within(np.array([1.0])))
    assert isinstance(made, Refusal)
    assert "Sigmoid" in made.reason
