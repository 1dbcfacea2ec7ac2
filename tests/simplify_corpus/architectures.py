"""Sixteen architectures with their real layer structure, pruned filter by filter.

Each function takes a `Net` and `width` (multiplier of the published channel counts) and `size`
(height and width of the image); at width 1 and size 224 they have the published costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .builder import Tensor
from .shaping import Net

Architecture = Callable[[Net, float, int], None]
CLASSES = 1000


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """`channels` times `width`, rounded to a multiple."""
    return max(multiple, round(channels * width / multiple) * multiple)


def conv_bn(
    net: Net, x: Tensor, out: int, kernel: int | Sequence[int] = 3, act: str = "Relu", **options: object
) -> Tensor:
    """Conv without bias, BatchNormalization (or fused with a bias), activation."""
    x = net.batch_norm(net.conv(x, out, kernel, bias=net.fused, **options))
    match act:
        case "":
            return x
        case "relu6":
            return net.clip(x)
        case "silu":
            return net.silu(x)
        case "hardswish":
            return net.hard_swish(x)
    return net.act(x, act)


def image(net: Net, size: int) -> Tensor:
    """The input of an image network, with a symbolic batch."""
    x = net.input((1, 3, size, size), dims=("batch", 3, size, size))
    net.also_at(input=(3, 3, size, size))
    return x


def head(net: Net, x: Tensor, width: float, *, mean: bool = False) -> None:
    """Global average, Flatten, Gemm."""
    x = net.global_pool(x, "ReduceMean", keep=False) if mean else net.flatten(net.global_pool(x))
    net.output(net.linear(x, scaled(CLASSES, width), prune=False))


def vgg16(net: Net, width: float, size: int) -> None:
    """VGG-16 (configuration D)."""
    x = image(net, size)
    for repeats, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            x = net.act(net.conv(x, scaled(channels, width)))
        x = net.pool(x)
    x = net.flatten(x, "Flatten")
    for _ in range(2):
        x = net.act(net.linear(x, scaled(4096, width)))
    net.output(net.linear(x, scaled(CLASSES, width), prune=False))


def _stem(net: Net, x: Tensor, width: float) -> Tensor:
    return net.pool(conv_bn(net, x, scaled(64, width), 7, stride=2, pad=3), "MaxPool", 3, stride=2, pad=1)


def resnet18(net: Net, width: float, size: int) -> None:
    """ResNet-18 with basic blocks."""
    x = _stem(net, image(net, size), width)
    for stage, channels in enumerate((64, 128, 256, 512)):
        c = scaled(channels, width)
        for block in range(2):
            stride = 2 if block == 0 and stage else 1
            y = conv_bn(net, x, c, stride=stride)
            y = conv_bn(net, y, c, act="")
            if stride == 2:
                x = conv_bn(net, x, c, 1, "", stride=2, pad=0)
            x = net.act(net.combine("Add", y, x))
    head(net, x, width)


def _bottlenecks(net: Net, width: float, size: int, groups: int, inner: int) -> None:
    x = _stem(net, image(net, size), width)
    for stage, repeats in enumerate((3, 4, 6, 3)):
        middle = scaled(inner * 2**stage, width, groups * 2 if groups > 1 else 8)
        out = scaled(256 * 2**stage, width)
        for block in range(repeats):
            stride = 2 if block == 0 and stage else 1
            y = net.batch_norm(_grouped_ready(net, x, middle, groups))
            y = conv_bn(net, net.act(y), middle, 3, stride=stride, groups=groups)
            y = conv_bn(net, y, out, 1, "")
            if block == 0:
                x = conv_bn(net, x, out, 1, "", stride=stride, pad=0)
            x = net.act(net.combine("Add", y, x))
    head(net, x, width)


def _grouped_ready(net: Net, x: Tensor, out: int, groups: int) -> Tensor:
    """A 1x1 convolution pruned by the same share in each group of its reader."""
    dead = np.flatnonzero(net.chosen(out, True, groups))
    return net.conv(x, out, 1, bias=net.fused, prune=list(dead))


def resnet50(net: Net, width: float, size: int) -> None:
    """ResNet-50 (stride in the 3x3 convolution)."""
    _bottlenecks(net, width, size, 1, 64)


def resnext50(net: Net, width: float, size: int) -> None:
    """ResNeXt-50 32x4d; narrow variants have fewer groups."""
    _bottlenecks(net, width, size, 32 if width >= 1 else 8, 128)


def _inverted(
    net: Net,
    x: Tensor,
    hidden: int,
    out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    act: str = "relu6",
    gate: Callable[[Tensor], Tensor] | None = None,
    expand: bool = True,
) -> Tensor:
    """Inverted residual: expand, depthwise, gate, project, and add where shapes allow."""
    y = conv_bn(net, x, hidden, 1, act) if expand else x
    y = conv_bn(net, y, hidden, kernel, act, stride=stride, groups=hidden)
    if gate is not None:
        y = gate(y)
    y = conv_bn(net, y, out, 1, "")
    return net.combine("Add", x, y) if stride == 1 and x.shape[1] == out else y


def mobilenet_v2(net: Net, width: float, size: int) -> None:
    """MobileNet v2."""
    x = conv_bn(net, image(net, size), scaled(32, width), act="relu6", stride=2)
    plan = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for factor, channels, repeats, first in plan:
        for block in range(repeats):
            stride = first if block == 0 else 1
            hidden = x.shape[1] * factor
            x = _inverted(net, x, hidden, scaled(channels, width), stride=stride, expand=factor > 1)
    x = conv_bn(net, x, scaled(1280, width), 1, "relu6")
    head(net, x, width)


def mobilenet_v3(net: Net, width: float, size: int) -> None:
    """MobileNet v3 large: hard swish and squeeze-and-excitation."""
    x = conv_bn(net, image(net, size), scaled(16, width), act="hardswish", stride=2)
    plan = (
        (3, 16, 16, 0, "Relu", 1), (3, 64, 24, 0, "Relu", 2), (3, 72, 24, 0, "Relu", 1),
        (5, 72, 40, 1, "Relu", 2), (5, 120, 40, 1, "Relu", 1), (5, 120, 40, 1, "Relu", 1),
        (3, 240, 80, 0, "hardswish", 2), (3, 200, 80, 0, "hardswish", 1),
        (3, 184, 80, 0, "hardswish", 1), (3, 184, 80, 0, "hardswish", 1),
        (3, 480, 112, 1, "hardswish", 1), (3, 672, 112, 1, "hardswish", 1),
        (5, 672, 160, 1, "hardswish", 2), (5, 960, 160, 1, "hardswish", 1),
        (5, 960, 160, 1, "hardswish", 1),
    )  # fmt: skip
    for kernel, hidden, out, excite, act, stride in plan:
        wide = scaled(hidden, width)

        def gate(y: Tensor, wide: int = wide) -> Tensor:
            return net.gate(y, scaled(wide // 4, 1.0), hard=True)

        x = _inverted(
            net, x, wide, scaled(out, width), kernel=kernel, stride=stride, act=act,
            gate=gate if excite else None, expand=wide != x.shape[1],
        )  # fmt: skip
    x = conv_bn(net, x, scaled(960, width), 1, "hardswish")
    x = net.flatten(net.global_pool(x))
    x = net.hard_swish(net.linear(x, scaled(1280, width)))
    net.output(net.linear(x, scaled(CLASSES, width), prune=False))


def efficientnet_b0(net: Net, width: float, size: int) -> None:
    """EfficientNet-B0: SiLU and gates whose size follows the block's input."""
    x = conv_bn(net, image(net, size), scaled(32, width), act="silu", stride=2)
    plan = (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
    )  # fmt: skip
    for factor, kernel, first, out, repeats in plan:
        for block in range(repeats):
            squeezed = max(2, x.shape[1] // 4)

            def gate(y: Tensor, squeezed: int = squeezed) -> Tensor:
                return net.gate(y, squeezed, inner="silu")

            x = _inverted(
                net, x, x.shape[1] * factor, scaled(out, width), kernel=kernel, act="silu",
                stride=first if block == 0 else 1, gate=gate, expand=factor > 1,
            )  # fmt: skip
    x = conv_bn(net, x, scaled(1280, width), 1, "silu")
    head(net, x, width)


def shufflenet_v2(net: Net, width: float, size: int) -> None:
    """ShuffleNet v2 x1.0: split, concat, channel shuffle."""
    x = conv_bn(net, image(net, size), 24, stride=2)
    x = net.pool(x, "MaxPool", 3, stride=2, pad=1)
    for channels, repeats in ((116, 4), (232, 8), (464, 4)):
        half = scaled(channels, width, 4) // 2
        for block in range(repeats):
            stride = 2 if block == 0 else 1
            if stride == 2:
                left = conv_bn(net, x, x.shape[1], 3, "", stride=2, groups=x.shape[1])
                left, right = conv_bn(net, left, half, 1), x
            else:
                left, right = net.split(x, [half, half])
            right = conv_bn(net, right, half, 1)
            right = conv_bn(net, right, half, 3, "", stride=stride, groups=half)
            right = conv_bn(net, right, half, 1)
            x = net.shuffle(net.concat(left, right), 2)
    x = conv_bn(net, x, scaled(1024, width), 1)
    head(net, x, width, mean=True)


def densenet121(net: Net, width: float, size: int) -> None:
    """DenseNet-121: normalisation before each convolution, concatenation of everything."""
    growth = scaled(32, width)
    x = _stem(net, image(net, size), width)
    for stage, repeats in enumerate((6, 12, 24, 16) if width >= 1 else (2, 3, 3, 2)):
        for _ in range(repeats):
            y = net.act(net.batch_norm(x, keep=True))
            y = conv_bn(net, y, growth * 4, 1)
            x = net.concat(x, net.conv(y, growth, bias=False))
        x = net.act(net.batch_norm(x, keep=True))
        if stage < 3:
            x = net.pool(net.conv(x, x.shape[1] // 2, 1, bias=False), "AveragePool")
    head(net, x, width)


def squeezenet(net: Net, width: float, size: int) -> None:
    """SqueezeNet 1.1: fire modules and a convolution as classifier."""
    x = net.act(net.conv(image(net, size), scaled(64, width), 3, stride=2, pad=0))
    fires = (16, 64), (16, 64), (0, 0), (32, 128), (32, 128), (0, 0), (48, 192), (48, 192), (64, 256), (64, 256)
    x = net.pool(x, "MaxPool", 3, stride=2)
    for squeeze, expand in fires:
        if squeeze == 0:
            x = net.pool(x, "MaxPool", 3, stride=2)
            continue
        x = net.act(net.conv(x, scaled(squeeze, width), 1))
        parts = [net.act(net.conv(x, scaled(expand, width), k)) for k in (1, 3)]
        x = net.concat(*parts)
    x = net.act(net.conv(x, scaled(CLASSES, width), 1, prune=False))
    net.output(net.flatten(net.global_pool(x)))


def googlenet(net: Net, width: float, size: int) -> None:
    """GoogLeNet with BatchNorm, without auxiliary classifiers."""
    x = conv_bn(net, image(net, size), scaled(64, width), 7, stride=2, pad=3)
    x = net.pool(x, "MaxPool", 3, stride=2, ceil_mode=1)
    x = conv_bn(net, conv_bn(net, x, scaled(64, width), 1), scaled(192, width))
    x = net.pool(x, "MaxPool", 3, stride=2, ceil_mode=1)
    plan = (
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (),
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), (),
        (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    )  # fmt: skip
    for sizes in plan:
        if not sizes:
            x = net.pool(x, "MaxPool", 3, stride=2, ceil_mode=1)
            continue
        a, b, bb, c, cc, d = (scaled(s, width) for s in sizes)
        branches = [
            conv_bn(net, x, a, 1),
            conv_bn(net, conv_bn(net, x, b, 1), bb),
            conv_bn(net, conv_bn(net, x, c, 1), cc),
            conv_bn(net, net.pool(x, "MaxPool", 3, stride=1, pad=1, ceil_mode=1), d, 1),
        ]
        x = net.concat(*branches)
    head(net, x, width)


def unet(net: Net, width: float, size: int) -> None:
    """U-Net with padded convolutions and ConvTranspose, at any multiple of 16 pixels."""
    x = net.input((1, 3, size, size), dims=("batch", 3, "height", "width"))
    net.also_at(input=(2, 3, size + 16, size + 32))
    skips: list[Tensor] = []

    def double(x: Tensor, channels: int) -> Tensor:
        return conv_bn(net, conv_bn(net, x, channels), channels)

    for channels in (64, 128, 256, 512):
        x = double(x, scaled(channels, width))
        skips.append(x)
        x = net.pool(x)
    x = double(x, scaled(1024, width))
    for channels, skip in zip((512, 256, 128, 64), reversed(skips), strict=True):
        c = scaled(channels, width)
        x = double(net.concat(skip, net.conv_transpose(x, c)), c)
    net.output(net.conv(x, 2, 1, prune=False), dims=("batch", 2, "height", "width"))


def vit_tiny(net: Net, width: float, size: int) -> None:
    """ViT-tiny: neurons of the MLPs are pruned; the residual stream feeds LayerNorm."""
    dim, heads, patch = scaled(192, width, 24), 3, 16 if size >= 128 else 8
    x = net.input((1, 3, size, size))
    x = net.tokens(net.conv(x, dim, patch, stride=patch, pad=0, prune=False))
    x = net.constant("Add", x, net.rng.normal(0, 0.02, (1, *x.shape[1:])))
    for _ in range(12 if width >= 1 else 3):
        x = net.combine("Add", x, _attention(net, layer_norm(net, x), heads))
        y = net.gelu(net.linear(layer_norm(net, x), dim * 4, form="matmul"))
        x = net.combine("Add", x, net.linear(y, dim, form="matmul", prune=False))
    x = layer_norm(net, x)
    x = net.opaque(
        [x],
        net.node(
            "ReduceMean",
            [x.name, net.integers([1])] if net.opset >= 18 else [x.name],
            keepdims=0,
            **({} if net.opset >= 18 else {"axes": [1]}),
        )[0],
        (1, dim),
    )
    net.output(net.linear(x, scaled(CLASSES, width), prune=False))


def layer_norm(net: Net, x: Tensor) -> Tensor:
    """LayerNormalization over the channels (opset 17)."""
    extra = [
        net.initializer(net.rng.uniform(0.8, 1.2, x.shape[-1])),
        net.initializer(net.rng.normal(0, 0.1, x.shape[-1]), "bias"),
    ]
    return net.wall("LayerNormalization", [x], extra, axis=-1, epsilon=1e-6)


def _attention(net: Net, x: Tensor, heads: int) -> Tensor:
    n, length, dim = x.shape
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        y = net.linear(x, dim, form="matmul", prune=False)
        (name,) = net.node("Reshape", [y.name, net.integers([n, length, heads, dim // heads])])
        parts.append(net.opaque([y], net.node("Transpose", [name], perm=perm)[0], (n, heads), 1))
    q, k, v = parts
    (name,) = net.node("MatMul", [q.name, k.name])
    (name,) = net.node("Mul", [name, net.initializer(np.array((dim // heads) ** -0.5), "scale")])
    (name,) = net.node("Softmax", [name], axis=-1)
    (name,) = net.node("MatMul", [name, v.name])
    net.tape.costs.append(lambda: 2 * n * length * length * dim)
    (name,) = net.node("Transpose", [name], perm=[0, 2, 1, 3])
    (name,) = net.node("Reshape", [name, net.integers([n, length, dim])])
    joined = net.opaque([q, k, v], name, (n, length, dim), 2)
    return net.linear(joined, dim, form="matmul", prune=False)


def mlp(net: Net, width: float, size: int) -> None:
    """A classifier of flattened images with Gemm layers."""
    x = net.input((1, size * size), dims=("batch", size * size))
    net.also_at(input=(5, size * size))
    for neurons in (1024, 1024, 512, 256):
        x = net.act(net.linear(x, scaled(neurons, width)))
    net.output(net.linear(x, 10, prune=False))


def mlp_bn(net: Net, width: float, size: int) -> None:
    """The same with BatchNormalization and MatMul + Add."""
    x = net.input((1, size * size), dims=("batch", size * size))
    net.also_at(input=(5, size * size))
    for neurons in (1024, 1024, 512, 256):
        x = net.act(net.batch_norm(net.linear(x, scaled(neurons, width), form="matmul")))
    net.output(net.linear(x, 10, prune=False))


def gated_1d(net: Net, width: float, size: int) -> None:
    """A gated 1-D convolution network (WaveNet): dilations, tanh * sigmoid gates, skip sums."""
    x = net.input((1, 8, size * 4), dims=("batch", 8, "time"))
    net.also_at(input=(2, 8, size * 4 + 13))
    c = scaled(128, width)
    x = net.conv(x, c, 1)
    skips: list[Tensor] = []
    for dilation in (1, 2, 4, 8, 16):
        y = net.conv(x, 2 * c, 3, dilation=dilation, pad=dilation, prune=net_glu(net, c))
        a, b = net.split(y, [c, c])
        y = net.combine("Mul", net.act(a, "Tanh"), net.act(b, "Sigmoid"))
        skips.append(net.conv(y, c, 1))
        x = net.combine("Add", net.conv(y, c, 1), x)
    total = skips[0]
    for skip in skips[1:]:
        total = net.combine("Add", total, skip)
    x = net.act(net.conv(net.act(total), c, 1))
    net.output(net.conv(x, 16, 1, prune=False), dims=("batch", 16, "time"))


def net_glu(net: Net, half: int) -> list[int]:
    """Prune the same channels in both halves of a gated layer."""
    dead = np.flatnonzero(net.chosen(half, True))
    return [*dead, *(dead + half)]


ARCHITECTURES: dict[str, Architecture] = {
    f.__name__: f
    for f in (
        vgg16,
        resnet18,
        resnet50,
        resnext50,
        mobilenet_v2,
        mobilenet_v3,
        shufflenet_v2,
        densenet121,
        squeezenet,
        googlenet,
        efficientnet_b0,
        unet,
        vit_tiny,
        mlp,
        mlp_bn,
        gated_1d,
    )
}
