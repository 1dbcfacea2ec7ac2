"""Random graphs of pruned layers: any operator of the corpus behind any other, with shared tensors."""

from __future__ import annotations

import numpy as np

from .builder import Built, Pruning, Tensor
from .shaping import Net

ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "LeakyRelu", "Neg", "Abs", "Elu")


def random_graph(seed: int, nodes: int = 14) -> Built:
    """A graph with one or two outputs, whose tensors are read any number of times."""
    rng = np.random.default_rng(seed)
    kind = "constant" if seed % 2 else "zero"
    net = Net(Pruning(float(rng.choice([0.3, 0.5, 0.8])), kind, seed), opset=int(rng.choice([14, 16, 17, 18, 20])))
    dynamic = bool(rng.integers(2))
    dims = ("batch", 3, "height", "width") if dynamic else ("batch", 3, 8, 8)
    x = net.input((2, 3, 8, 8), dims=dims)
    if dynamic:
        net.also_at(input=(1, 3, 12, 16))
    pool = [net.conv(x, 8), net.conv(x, 16, 1)]
    for _ in range(nodes):
        choice = len(pool) - 1 - int(rng.integers(min(len(pool), 4)))
        pool.append(_step(net, rng, pool, pool[choice]))
    outs = [pool[-1], pool[int(rng.integers(len(pool)))]]
    for i, y in enumerate(dict.fromkeys(t.name for t in outs)):
        tensor = next(t for t in outs if t.name == y)
        last = net.act(tensor, "Tanh") if i else net.conv(tensor, 4, prune=False)
        net.output(last, dims=("batch", last.shape[1], f"h{i}", f"w{i}"))
    return net.build()


def _step(net: Net, rng: np.random.Generator, pool: list[Tensor], x: Tensor) -> Tensor:
    channels = x.shape[1]
    match int(rng.integers(18)):
        case 0 | 1:
            return net.conv(x, int(rng.choice([8, 12, 16])), int(rng.choice([1, 3])), prune=bool(rng.integers(4)))
        case 2:
            return net.conv(x, channels, int(rng.choice([3, 5])), groups=channels, prune=bool(rng.integers(2)))
        case 3:
            groups = int(rng.choice([g for g in (1, 2, 4) if channels % g == 0]))
            return net.conv(x, 4 * int(rng.integers(1, 5)), groups=groups, prune=bool(rng.integers(2)))
        case 4 | 5 | 6:
            return net.act(x, str(rng.choice(ACTIVATIONS)))
        case 7:
            return net.batch_norm(x, keep=True)
        case 8 | 9 | 10:
            same = [t for t in pool if t.shape == x.shape]
            return net.combine(str(rng.choice(["Add", "Mul", "Sub"])), x, same[int(rng.integers(len(same)))])
        case 11:
            same = [t for t in pool if t.shape[2:] == x.shape[2:] and t.shape[1] + channels <= 40]
            return net.concat(x, same[int(rng.integers(len(same)))]) if same else net.prelu(x)
        case 12:
            part = int(rng.integers(1, channels)) if channels > 1 else 1
            return net.slice(x, 0, part) if rng.integers(2) else net.slice(x, channels - part, channels)
        case 13:
            return net.shuffle(x, 2) if channels % 2 == 0 and _static(net) else net.clip(x, -0.3, 0.8)
        case 14:
            count = int(rng.integers(2))
            return net.pool(x, "AveragePool", 3, stride=1, pad=1, count_include_pad=count)
        case 15:
            fill, mode = float(rng.choice([0.0, 0.7])), str(rng.choice(["constant", "edge"]))
            return net.pool(net.pad(x, (1, 1, 1, 1), mode, fill), "MaxPool", 3, stride=1)
        case 16:
            return net.gate(x, 4, hard=bool(rng.integers(2)))
        case _:
            shape = [(1,), (channels, 1, 1), (1, channels, 1, 1), ()][int(rng.integers(4))]
            return net.constant(str(rng.choice(["Add", "Mul", "Sub"])), x, rng.normal(0.5, 0.5, shape))


def _static(net: Net) -> bool:
    return len(net.shapes) == 1
