"""Random dense networks for the tests of rewrites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from redy.model import (
    Activate,
    Affine,
    Dense,
    Finding,
    Line,
    Network,
    Operator,
    PiecewiseLinear,
    Port,
    Proof,
    Proved,
    Term,
    Unit,
    identity,
)
from redy.model.functions import absolute, clip, leaky_relu, relu


def random_network(rng: np.random.Generator, *, layers: int = 3, width: int = 6, skips: bool = True) -> Network:
    """A dense network with mixed activations, skip connections and plain affine layers, float32 weights; output y."""
    inputs = int(rng.integers(1, 5))
    sizes = {"x": inputs}
    nodes: list[Affine | Activate] = []
    previous = "x"
    for layer in range(layers):
        size = int(rng.integers(1, width + 1))
        sources = [previous]
        sources += [name for name in sizes if skips and name != previous and rng.random() < 0.3]
        terms = tuple(Term(s, _operator(rng, size, sizes[s])) for s in sources)
        nodes.append(Affine(f"z{layer}", terms, _weights(rng, (size,))))
        nodes.append(Activate(f"a{layer}", f"z{layer}", _function(rng, size), (size,)))
        previous = f"a{layer}"
        sizes[previous] = size
        if rng.random() < 0.2:
            sizes[f"z{layer}"] = size
        if rng.random() < 0.1:
            nodes.append(Activate(f"b{layer}", f"z{layer}", _function(rng, size), (size,)))
            sizes[f"b{layer}"] = size
    terms = tuple(
        Term(s, Dense.of(_weights(rng, (2, sizes[s]))))
        for s in sizes
        if s == previous or (skips and rng.random() < 0.3)
    )
    nodes.append(Affine("y", terms, _weights(rng, (2,))))
    return Network(Port("x", (inputs,)), tuple(nodes), (Port("y", (2,)),))


def with_outputs(network: Network, rng: np.random.Generator) -> Network:
    """The same network with some of its inner values as further outputs."""
    inner = [node for node in network.nodes if node.name != "y" and rng.random() < 0.3]
    return replace(network, outputs=(*network.outputs, *(Port(node.name, node.shape) for node in inner)))


def _operator(rng: np.random.Generator, size: int, width: int) -> Operator:
    if size == width and rng.random() < 0.2:
        return identity((size,))
    return Dense.of(_weights(rng, (size, width)))


def _function(rng: np.random.Generator, size: int) -> PiecewiseLinear:
    alphas = _weights(rng, (size,))
    return [relu(), relu(), leaky_relu(0.25), leaky_relu(alphas), clip(-0.5, 0.75), absolute()][rng.integers(6)]


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(size=shape).astype(np.float32).astype(np.float64)
    values[rng.random(shape) < 0.1] = 0.0
    return values


def line_finding(node: str, index: int, slope: float, intercept: float, kind: str = "relaxed") -> Finding:
    """A finding that some line replaces a unit, as if it had been proved."""
    return Finding(Unit(node, index), kind, Line(slope, intercept), 0.0, Proved(Proof("given by the test", "test")))


def phase_findings(network: Network, points: np.ndarray) -> list[Finding]:
    """The findings that hold on these points: units that stay in one piece on all of them."""
    values = network.trace(points)
    findings = []
    for node in network.activations:
        z = values[node.source]
        pieces = node.function.stuck(z.min(axis=0), z.max(axis=0))
        slopes = node.function.broadcast_to(node.shape).slopes
        intercepts = node.function.broadcast_to(node.shape).intercepts()
        for j in np.flatnonzero(pieces >= 0):
            piece = pieces[j]
            findings.append(line_finding(node.name, int(j), slopes[piece, j], intercepts[piece, j], "phase"))
    return findings


def layer(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of one layer."""
    rng = np.random.default_rng([seed, rows, columns])
    return rng.normal(size=(rows, columns)).astype(np.float32), rng.normal(size=rows).astype(np.float32)


def network_of(*layers: tuple[np.ndarray, np.ndarray]) -> Network:
    """A ReLU network z0 -> a0 -> z1 -> a1 ... -> y from (weight, bias) pairs."""
    nodes: list[Affine | Activate] = []
    previous = "x"
    for k, (weight, bias) in enumerate(layers):
        last = k == len(layers) - 1
        name = "y" if last else f"z{k}"
        nodes.append(Affine(name, (Term(previous, Dense.of(weight)),), bias))
        if not last:
            nodes.append(Activate(f"a{k}", name, relu(), bias.shape))
            previous = f"a{k}"
    return Network(Port("x", (layers[0][0].shape[1],)), tuple(nodes), (Port("y", layers[-1][1].shape),))
