"""The networks that the project ships: sound files, as accurate as their README says, and made by their script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from redy.formats.boxes import read_box

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "models").glob("*.onnx"))
BOXES = {
    "avoidance.onnx": ["avoidance.box.json", "avoidance_close.box.json"],
    "digits_mlp.onnx": ["digits_mlp.box.json"],
    "digits_cnn.onnx": ["digits_cnn.box.json"],
    "digits_cnn_pruned.onnx": ["digits_cnn.box.json"],
}
SAMPLE = {
    "avoidance.onnx": (5,),
    "digits_mlp.onnx": (64,),
    "digits_cnn.onnx": (1, 8, 8),
    "digits_cnn_pruned.onnx": (1, 8, 8),
}


def evaluate(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs.astype(np.float32)})[0]


def stated_accuracy(name: str) -> float:
    row = next(line for line in (ROOT / "models/README.md").read_text().splitlines() if line.startswith(f"| `{name}`"))
    return float(re.search(r"([\d.]+)%", row)[1]) / 100


def test_every_shipped_network_is_known_here():
    assert [path.name for path in FILES] == sorted(BOXES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_network_is_small_valid_and_takes_batches(path):
    assert path.stat().st_size < 1_000_000
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for count in (1, 3):
        outputs = evaluate(path, np.zeros((count, *SAMPLE[path.name])))
        assert outputs.shape[0] == count
        assert np.isfinite(outputs).all()


@pytest.mark.parametrize(("name", "box"), [(name, box) for name, boxes in BOXES.items() for box in boxes])
def test_a_box_fits_its_network(name, box):
    found = read_box(ROOT / "models" / box, SAMPLE[name])
    assert (found.lower < found.upper).any()


def test_the_controller_is_as_accurate_as_stated(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from avoidance import domain_samples

    states, costs = domain_samples(10_000, seed=4)
    agreed = evaluate(ROOT / "models/avoidance.onnx", states).argmin(axis=1) == costs.argmin(axis=1)
    assert agreed.mean() == pytest.approx(stated_accuracy("avoidance.onnx"), abs=1e-3)
    # Every advisory is the best one somewhere, or the decision would be no decision.
    assert set(costs.argmin(axis=1)) == set(range(5))


@pytest.mark.parametrize("name", ["digits_mlp.onnx", "digits_cnn.onnx", "digits_cnn_pruned.onnx"])
def test_a_classifier_is_as_accurate_as_stated(monkeypatch, name):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from digits import read_digits

    _, (images, labels) = read_digits()
    found = evaluate(ROOT / "models" / name, images.reshape(-1, *SAMPLE[name])).argmax(axis=1)
    assert (found == labels).mean() == pytest.approx(stated_accuracy(name), abs=5e-3)


def test_the_pruned_network_stores_zeroed_filters_and_constants():
    arrays = {
        array.name: onnx.numpy_helper.to_array(array)
        for array in onnx.load(ROOT / "models/digits_cnn_pruned.onnx").graph.initializer
    }
    zeroed = [~arrays[f"conv_{i}.weight"].any(axis=(1, 2, 3)) for i in range(1, 5)]
    assert [int(dead.sum()) for dead in zeroed] == [8, 8, 8, 12]
    constants = [arrays[f"batchnormalization_{i}.shift"][dead] for i, dead in enumerate(zeroed, start=1)]
    assert all((constant == 0).any() and (constant != 0).any() for constant in constants)


@pytest.mark.slow
def test_the_script_makes_the_same_bytes(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/make_models.py", tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == sorted(path.name for path in (ROOT / "models").iterdir() if path.is_file())
    assert [name for name in made if made[name] != (ROOT / "models" / name).read_bytes()] == []
