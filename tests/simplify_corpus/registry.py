"""The list of single patterns; modules `patterns_*` add to it by decorating functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .builder import Built, Pruning, Tensor
from .shaping import Net

Body = Callable[[Net], None]
KINDS = ("zero", "constant")


@dataclass(frozen=True)
class Pattern:
    """One small model for each kind of pruning; `measured` if its ideal cost is meaningful."""

    name: str
    body: Body
    opset: int
    dtype: Any
    measured: bool
    kinds: tuple[str, ...]
    tolerance: float

    def build(self, kind: str, ratio: float = 0.5, seed: int = 3) -> Built:
        """The model pruned in the given way."""
        net = Net(Pruning(ratio, kind, seed), opset=self.opset, dtype=self.dtype)
        self.body(net)
        return net.build()


PATTERNS: dict[str, Pattern] = {}


def add(
    name: str,
    body: Body,
    *,
    opset: int = 17,
    dtype: Any = np.float32,
    measured: bool = True,
    kinds: Sequence[str] = KINDS,
    tolerance: float = 1e-4,
) -> None:
    """Register `body` under a unique name."""
    assert name not in PATTERNS, name
    PATTERNS[name] = Pattern(name, body, opset, dtype, measured, tuple(kinds), tolerance)


def pattern(**options: Any) -> Callable[[Body], Body]:
    """Decorator form of `add`, under the name of the function."""

    def register(body: Body) -> Body:
        add(body.__name__, body, **options)
        return body

    return register


def start(
    net: Net, channels: int = 16, *, size: Sequence[int] = (10, 10), act: str = "Relu",
    dims: Sequence[int | str] | None = None, batch: int = 1, **options: Any,
) -> Tensor:  # fmt: skip
    """An input, a pruned convolution and an activation."""
    x = net.input((batch, 3, *size), dims=dims)
    x = net.conv(x, channels, **options)
    return net.act(x, act) if act else x


def finish(net: Net, x: Tensor, out: int = 8, kernel: int = 3, **options: Any) -> None:
    """An unpruned convolution and the output."""
    dims = options.pop("dims", None)
    net.output(net.conv(x, out, kernel, prune=False, **options), dims=dims)


def between(middle: Callable[[Net, Tensor], Tensor], **options: Any) -> Body:
    """The model: pruned convolution, activation, `middle`, convolution."""

    def body(net: Net) -> None:
        finish(net, middle(net, start(net, **options)))

    return body


def before_linear(middle: Callable[[Net, Tensor], Tensor], **options: Any) -> Body:
    """The model: pruned convolution, activation, `middle` that flattens, Gemm."""

    def body(net: Net) -> None:
        x = middle(net, start(net, **options))
        net.output(net.linear(x, 6, prune=False))

    return body
