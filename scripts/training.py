"""A small trainer in numpy whose result is the same bytes on every machine.

The order in which a matrix product adds up differs between BLAS libraries and processors, and so does its rounding;
training amplifies the difference. Here both factors are first rounded to multiples of 2^-14, so that every partial sum
is a multiple of 2^-28 below 2^25 in magnitude: float64 holds it exactly and the order no longer matters.

Arrays are (n, features) or (n, channels, height, width); gradients are sums over the batch, not means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def grid(values: Array) -> Array:
    """The nearest multiples of 2^-14, at most 2^7 in magnitude."""
    return np.clip(np.round(values * 2.0**14) / 2.0**14, -(2.0**7), 2.0**7)


@dataclass
class Parameter:
    """A trained array with the state of Adam; where `mask` is 0 the value stays 0."""

    value: Array
    gradient: Array = field(init=False)
    first: Array = field(init=False)
    second: Array = field(init=False)
    mask: Array = field(init=False)

    def __post_init__(self) -> None:
        self.gradient, self.first, self.second = (np.zeros_like(self.value) for _ in range(3))
        self.mask = np.ones_like(self.value)


class Layer:
    """A map with its derivative; `forward` keeps what `backward` needs."""

    parameters: tuple[Parameter, ...] = ()

    def forward(self, x: Array, training: bool) -> Array:
        """The value at x; `training` decides which statistics a BatchNorm uses."""
        raise NotImplementedError

    def backward(self, gradient: Array) -> Array:
        """The gradient at the input from the one at the output; sets the gradients of the parameters."""
        raise NotImplementedError


class Dense(Layer):
    """y = x W + b, started as He et al. (2015) propose, from uniform numbers."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        self.weight = Parameter((rng.random((inputs, outputs)) * 2 - 1) * np.sqrt(6 / inputs))
        self.bias = Parameter(np.zeros(outputs))
        self.parameters = (self.weight, self.bias)

    def forward(self, x: Array, training: bool) -> Array:
        """x is (n, inputs), the result (n, outputs)."""
        self.x = grid(x)
        return self.x @ grid(self.weight.value) + self.bias.value

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        gradient = grid(gradient)
        self.weight.gradient = self.x.T @ gradient
        self.bias.gradient = gradient.sum(axis=0)
        return gradient @ grid(self.weight.value).T


class Conv(Layer):
    """A 3 x 3 convolution with zero padding 1 and no bias (a BatchNorm follows)."""

    def __init__(self, inputs: int, outputs: int, stride: int, rng: np.random.Generator) -> None:
        self.stride = stride
        self.weight = Parameter((rng.random((outputs, inputs, 3, 3)) * 2 - 1) * np.sqrt(6 / (9 * inputs)))
        self.parameters = (self.weight,)

    def forward(self, x: Array, training: bool) -> Array:
        """x is (n, inputs, h, w), the result (n, outputs, ceil(h / stride), ceil(w / stride))."""
        padded = np.pad(grid(x), ((0, 0), (0, 0), (1, 1), (1, 1)))
        self.padded_shape = padded.shape
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride].transpose(0, 2, 3, 1, 4, 5)
        self.patches = windows.reshape(-1, windows.shape[3] * 9)
        outputs = len(self.weight.value)
        y = self.patches @ grid(self.weight.value).reshape(outputs, -1).T
        return y.reshape(*windows.shape[:3], outputs).transpose(0, 3, 1, 2)

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        n, outputs, height, width = gradient.shape
        flat = grid(gradient).transpose(0, 2, 3, 1).reshape(-1, outputs)
        weight = grid(self.weight.value).reshape(outputs, -1)
        self.weight.gradient = (flat.T @ self.patches).reshape(self.weight.value.shape)
        spread = (flat @ weight).reshape(n, height, width, -1, 3, 3)
        result = np.zeros(self.padded_shape)
        s = self.stride
        for i in range(3):
            for j in range(3):
                result[:, :, i : i + s * height : s, j : j + s * width : s] += spread[..., i, j].transpose(0, 3, 1, 2)
        return result[:, :, 1:-1, 1:-1]


class BatchNorm(Layer):
    """Normalisation of every channel over batch and positions (Ioffe & Szegedy, 2015)."""

    def __init__(self, channels: int) -> None:
        self.scale, self.shift = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.mean, self.variance, self.epsilon = np.zeros(channels), np.ones(channels), 1e-5
        self.parameters = (self.scale, self.shift)

    def forward(self, x: Array, training: bool) -> Array:
        """x and the result are (n, channels, h, w)."""
        x = grid(x)
        if training:
            mean = x.mean(axis=(0, 2, 3))
            variance = (x * x).mean(axis=(0, 2, 3)) - mean * mean
            self.mean += 0.1 * (mean - self.mean)
            self.variance += 0.1 * (variance - self.variance)
        else:
            mean, variance = self.mean, self.variance
        self.inverse = 1 / np.sqrt(np.maximum(variance, 0) + self.epsilon)
        self.normal = grid((x - mean[:, None, None]) * self.inverse[:, None, None])
        return self.normal * self.scale.value[:, None, None] + self.shift.value[:, None, None]

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`, for the statistics of the batch."""
        gradient = grid(gradient)
        self.shift.gradient = gradient.sum(axis=(0, 2, 3))
        self.scale.gradient = (gradient * self.normal).sum(axis=(0, 2, 3))
        count = gradient.size // gradient.shape[1]
        centred = gradient - (self.shift.gradient / count)[:, None, None]
        centred = centred - self.normal * (self.scale.gradient / count)[:, None, None]
        return centred * (self.scale.value * self.inverse)[:, None, None]


class Relu(Layer):
    """max(x, 0)."""

    def forward(self, x: Array, training: bool) -> Array:
        """Any shape."""
        self.active = x > 0
        return np.where(self.active, x, 0.0)

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        return np.where(self.active, gradient, 0.0)


class Flatten(Layer):
    """(n, channels, height, width) -> (n, channels * height * width)."""

    def forward(self, x: Array, training: bool) -> Array:
        """Any shape with a batch axis."""
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        return gradient.reshape(self.shape)


class Sequence(Layer):
    """Layers one after the other."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.parameters = tuple(parameter for layer in layers for parameter in layer.parameters)

    def forward(self, x: Array, training: bool) -> Array:
        """The last layer's value."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient


class Residual(Sequence):
    """x + layers(x)."""

    def forward(self, x: Array, training: bool) -> Array:
        """x and the result have one shape."""
        return x + super().forward(x, training)

    def backward(self, gradient: Array) -> Array:
        """As `Layer.backward`."""
        return gradient + super().backward(gradient)


Loss = Callable[[Array, Array], Array]
"""(outputs, targets) -> the gradient at the outputs."""


def squared_error(outputs: Array, targets: Array) -> Array:
    """The gradient of half the squared error."""
    return outputs - targets


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """The gradient of the cross entropy of softmax(outputs) with one-hot targets."""
    odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    odds = np.round(odds * 2.0**24)  # integers, so that their sum is exact
    return odds / odds.sum(axis=1, keepdims=True) - targets


def train(
    network: Layer, inputs: Array, targets: Array, loss: Loss, *, epochs: int, batch: int, rate: float, seed: int
) -> None:
    """Adam (Kingma & Ba, 2015) with a learning rate that falls linearly to zero; keeps the masks of the parameters."""
    rng = np.random.default_rng(seed)
    steps, step = epochs * (len(inputs) // batch), 0
    decay_first, decay_second = 1.0, 1.0
    for _ in range(epochs):
        order = rng.permutation(len(inputs))
        for start in range(0, len(inputs) - batch + 1, batch):
            chosen = order[start : start + batch]
            network.backward(loss(network.forward(inputs[chosen], training=True), targets[chosen]))
            decay_first, decay_second = decay_first * 0.9, decay_second * 0.999
            size = rate * (1 - step / steps)
            step += 1
            for p in network.parameters:
                gradient = p.gradient / batch
                p.first = 0.9 * p.first + 0.1 * gradient
                p.second = 0.999 * p.second + 0.001 * gradient * gradient
                update = (p.first / (1 - decay_first)) / (np.sqrt(p.second / (1 - decay_second)) + 1e-8)
                p.value = (p.value - size * update) * p.mask
