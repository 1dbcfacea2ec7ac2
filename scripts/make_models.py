"""Makes the networks of models/ with their boxes and their README: trained here, the same bytes every time.

python scripts/make_models.py [FOLDER]
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from avoidance import ADVISORIES, domain_samples
from digits import read_digits
from export import write_onnx
from training import (
    Array,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Relu,
    Residual,
    Sequence,
    cross_entropy,
    squared_error,
    train,
)

CHANNELS, LAST_CHANNELS = 16, 24


def main() -> None:
    """Write everything into the folder that the command line names, else into models/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "models"
    folder.mkdir(parents=True, exist_ok=True)
    accuracies = {**make_avoidance(folder), **make_digits(folder)}
    write_readme(folder, accuracies)
    for name, accuracy in accuracies.items():
        print(f"{name}: {accuracy:.1%}")


def make_avoidance(folder: Path) -> dict[str, float]:
    """The controller: 5 inputs, 4 hidden layers of 32 ReLUs, 5 costs; the advisory is the cheapest."""
    inputs, costs = domain_samples(40_000, seed=1)
    rng = np.random.default_rng(2)
    sizes = [5, 32, 32, 32, 32]
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (Dense(a, b, rng), Relu())]
    network = Sequence(*hidden, Dense(32, len(ADVISORIES), rng))
    train(network, inputs, costs, squared_error, epochs=25, batch=200, rate=4e-3, seed=3)
    write_onnx(folder / "avoidance.onnx", network, ("state", (5,)), ("cost", 5))
    write_json(folder / "avoidance.box.json", {"lower": -1, "upper": 1})
    write_json(
        folder / "avoidance_close.box.json",
        {"lower": [-0.75, 0.25, -0.5, 0, 0], "upper": [-0.5, 0.5, 0, 0.5, 0.5]},
    )
    test, test_costs = domain_samples(10_000, seed=4)
    agreed = network.forward(test, training=False).argmin(axis=1) == test_costs.argmin(axis=1)
    return {"avoidance.onnx": float(agreed.mean())}


def make_digits(folder: Path) -> dict[str, float]:
    """The classifiers of 8 x 8 digits: an MLP, a convolutional network, and that network with channels pruned."""
    (images, targets), (test, labels) = read_digits()
    rng = np.random.default_rng(5)
    mlp = Sequence(Dense(64, 64, rng), Relu(), Dense(64, 48, rng), Relu(), Dense(48, 10, rng))
    train(mlp, images.reshape(-1, 64), targets, cross_entropy, epochs=40, batch=50, rate=4e-3, seed=6)
    write_onnx(folder / "digits_mlp.onnx", mlp, ("image", (64,)), ("logits", 10))
    cnn = convolutional()
    train(cnn, images, targets, cross_entropy, epochs=12, batch=50, rate=6e-3, seed=8)
    write_onnx(folder / "digits_cnn.onnx", cnn, ("image", (1, 8, 8)), ("logits", 10))
    accuracies = {
        "digits_mlp.onnx": accuracy(mlp, test.reshape(-1, 64), labels),
        "digits_cnn.onnx": accuracy(cnn, test, labels),
    }
    prune(cnn)
    train(cnn, images, targets, cross_entropy, epochs=4, batch=50, rate=3e-3, seed=9)
    write_onnx(folder / "digits_cnn_pruned.onnx", cnn, ("image", (1, 8, 8)), ("logits", 10))
    accuracies["digits_cnn_pruned.onnx"] = accuracy(cnn, test, labels)
    ball = {"radius": 0.02, "clip": [0, 1]}
    write_json(folder / "digits_mlp.box.json", {"center": test[0].ravel().tolist(), **ball})
    write_json(folder / "digits_cnn.box.json", {"center": test[0].tolist(), **ball})
    return accuracies


def convolutional() -> Sequence:
    """Four zero-padded convolutions with BatchNorm, a residual connection around two of them, and a dense tail."""
    rng = np.random.default_rng(7)
    c, last = CHANNELS, LAST_CHANNELS
    block = Residual(Conv(c, c, 1, rng), BatchNorm(c), Relu(), Conv(c, c, 1, rng), BatchNorm(c))
    return Sequence(
        *(Conv(1, c, 1, rng), BatchNorm(c), Relu()),
        *(block, Relu()),
        *(Conv(c, last, 2, rng), BatchNorm(last), Relu()),
        *(Flatten(), Dense(16 * last, 32, rng), Relu(), Dense(32, 10, rng)),
    )


def prune(cnn: Sequence) -> None:
    """Zero the half of the filters with the least L1 norm; every other one keeps a constant from its BatchNorm.

    The two ends of the residual connection lose the same channels, which removes them from the sum.
    """
    stem, stem_norm, block, last, last_norm = (cnn.layers[i] for i in (0, 1, 3, 5, 6))
    inner, inner_norm, outer, outer_norm = (block.layers[i] for i in (0, 1, 3, 4))
    groups = [[(stem, stem_norm), (outer, outer_norm)], [(inner, inner_norm)], [(last, last_norm)]]
    for group in groups:
        norms = sum(np.abs(conv.weight.value).sum(axis=(1, 2, 3)) for conv, _ in group)
        doomed = np.argsort(norms, kind="stable")[: len(norms) // 2]
        for conv, norm in group:
            conv.weight.mask[doomed] = 0
            norm.scale.mask[doomed] = 0
            norm.shift.mask[doomed[::2]] = 0
            for parameter in (*conv.parameters, *norm.parameters):
                parameter.value = parameter.value * parameter.mask


def accuracy(network: Sequence, images: Array, labels: Array) -> float:
    """The share of images whose largest output is that of their label."""
    return float((network.forward(images, training=False).argmax(axis=1) == labels).mean())


def write_json(path: Path, value: object) -> None:
    """Compact JSON with a newline at its end."""
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def write_readme(folder: Path, accuracies: dict[str, float]) -> None:
    """The description of the models, with the accuracies just measured."""
    template = (Path(__file__).resolve().parent / "models_readme.md").read_text(encoding="utf-8")
    for name, accuracy in accuracies.items():
        template = template.replace(f"ACCURACY({name})", f"{accuracy:.1%}")
    (folder / "README.md").write_text(template, encoding="utf-8")


if __name__ == "__main__":
    main()
