"""Patterns: concatenation, splits, shuffles, padding, pooling, resizing, reshapes."""

from __future__ import annotations

import numpy as np

from .builder import Tensor
from .registry import add, before_linear, between, finish, pattern, start
from .shaping import Net


@pattern()
def concat_branches(net: Net) -> None:
    """Concat of three branches."""
    x = start(net)
    finish(net, net.concat(*(net.act(net.conv(x, c, k)) for c, k in ((8, 1), (16, 3), (4, 5)))))


@pattern()
def concat_with_input(net: Net) -> None:
    """Concat of the model input and a branch."""
    x = net.input((1, 3, 8, 8))
    finish(net, net.concat(x, net.act(net.conv(x, 8))))


@pattern()
def concat_of_itself(net: Net) -> None:
    """The same tensor twice."""
    x = start(net)
    finish(net, net.concat(x, x))


@pattern()
def concat_dead_branch(net: Net) -> None:
    """One branch is pruned entirely."""
    x = start(net)
    finish(net, net.concat(net.act(net.conv(x, 8, prune=range(8))), net.act(net.conv(x, 8))))


@pattern(measured=False)
def concat_constant(net: Net) -> None:
    """A stored map is one of the inputs of Concat."""
    x = start(net)
    (name,) = net.node("Concat", [net.initializer(net.rng.normal(size=(1, 2, 10, 10))), x.name], axis=1)
    finish(net, net.opaque([x], name, (1, 18, 10, 10)))


@pattern(measured=False)
def concat_height(net: Net) -> None:
    """Concat along the height: same channels, different constants."""
    x = start(net, prune=False)
    a, b = net.conv(x, 8, prune=[0, 1, 2, 5]), net.conv(x, 8, prune=[0, 1, 4, 6])
    (name,) = net.node("Concat", [a.name, b.name], axis=2)
    finish(net, net.opaque([a, b], name, (1, 8, 20, 10)))


@pattern(measured=False)
def concat_batch(net: Net) -> None:
    """Concat along the batch (siamese)."""
    x = start(net, prune=False)
    a, b = net.conv(x, 8, prune=[0, 1, 2, 5]), net.conv(x, 8, prune=[0, 1, 4, 6])
    (name,) = net.node("Concat", [a.name, b.name], axis=0)
    y = net.opaque([a, b], name, (2, 8, 10, 10))
    finish(net, y)


@pattern()
def split_uneven(net: Net) -> None:
    """Split into parts of different sizes that take different ways."""
    a, b, c = net.split(start(net), [4, 10, 2])
    a, b, c = net.conv(a, 8), net.conv(b, 8), net.conv(c, 8)
    finish(net, net.act(net.combine("Add", net.combine("Add", a, b), c)))


@pattern()
def split_part_unused(net: Net) -> None:
    """Only one part of a Split is read."""
    finish(net, net.split(start(net), [6, 10])[1])


@pattern(opset=18, measured=False)
def split_num_outputs(net: Net) -> None:
    """Split by num_outputs with a smaller last part."""
    x = start(net, 14)
    names = net.node("Split", [x.name], 3, axis=1, num_outputs=3)
    parts = [
        net.select(x, n, np.arange(a, b), (1, b - a, 10, 10))
        for n, a, b in zip(names, (0, 5, 10), (5, 10, 14), strict=True)
    ]
    parts = [net.conv(p, 4, 1) for p in parts]
    finish(net, net.concat(*parts))


@pattern(measured=False)
def split_equal_default(net: Net) -> None:
    """Split without sizes (equal parts)."""
    x = start(net)
    names = net.node("Split", [x.name], 2, axis=1)
    a, b = (net.select(x, n, np.arange(8) + 8 * i, (1, 8, 10, 10)) for i, n in enumerate(names))
    finish(net, net.concat(net.conv(a, 4), net.act(b)))


add("split_attribute", lambda net: finish(net, net.combine("Add", *net.split(start(net), [8, 8]))), opset=11)
add("slice_first_half", between(lambda net, x: net.slice(x, 0, 8)))
add("slice_negative", between(lambda net, x: net.slice(x, -6, 2**31)))
add("slice_step", between(lambda net, x: net.slice(x, 1, 15, 3)))
add("slice_reverse", between(lambda net, x: net.slice(x, 15, -(2**31), -1)))
add("slice_attributes", between(lambda net, x: net.slice(x, 2, 12)), opset=9)
add("gather_permutation", between(lambda net, x: net.gather(x, [*range(15, -1, -1)])))
add("gather_repeated", between(lambda net, x: net.gather(x, [0, 0, 3, 5, 5, 5, 9])))
add("shuffle_two", between(lambda net, x: net.shuffle(x, 2)))
add("shuffle_four", between(lambda net, x: net.shuffle(x, 4)))
add(
    "shuffle_grouped",
    between(lambda net, x: net.conv(net.shuffle(net.conv(x, 16, 1, groups=4), 4), 16, groups=4)),
    measured=False,
)
add("pixel_shuffle", between(lambda net, x: net.depth_to_space(x)), measured=False)
add("depth_to_space_dcr", between(lambda net, x: net.depth_to_space(x, mode="DCR")), measured=False)


@pattern()
def pixel_shuffle_coherent(net: Net) -> None:
    """All four sub-channels of each pruned pixel-shuffle channel are pruned."""
    finish(net, net.depth_to_space(start(net, act="", prune=[0, 1, 2, 3, 8, 9, 10, 11])))


@pattern(measured=False)
def pixel_shuffle_decomposed(net: Net) -> None:
    """Reshape, Transpose, Reshape as torch writes nn.PixelShuffle without the operator."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 4, 2, 2, 10, 10])])
    (name,) = net.node("Transpose", [name], perm=[0, 1, 4, 2, 5, 3])
    (name,) = net.node("Reshape", [name, net.integers([1, 4, 20, 20])])
    finish(net, net.opaque([x], name, (1, 4, 20, 20)))


@pattern(measured=False)
def space_to_depth(net: Net) -> None:
    """SpaceToDepth makes four channels out of one."""
    x = start(net)
    (name,) = net.node("SpaceToDepth", [x.name], blocksize=2)
    finish(net, net.opaque([x], name, (1, 64, 5, 5)))


PADS = {"constant": 0.0, "reflect": 0.0, "edge": 0.0, "wrap": 0.0}
for mode in PADS:
    opset = 19 if mode == "wrap" else 17
    add(f"pad_{mode}", between(lambda net, x, mode=mode: net.pad(x, (1, 2, 1, 0), mode), size=(9, 9)), opset=opset)
for fill in (1.0, -0.5, float("-inf")):
    stem = str(fill).replace("-", "minus_").replace(".", "_")
    middle = (
        (lambda net, x: net.pool(net.pad(x, (1, 1, 1, 1), fill=float("-inf")), "MaxPool", 3, stride=2))
        if fill == float("-inf")
        else (lambda net, x, fill=fill: net.pad(x, (1, 1, 1, 1), fill=fill))
    )
    add(f"pad_value_{stem}", between(middle))
add("pad_negative", between(lambda net, x: net.pad(x, (-1, 0, -2, 1))))
add("pad_then_unpadded_conv", between(lambda net, x: net.act(net.conv(net.pad(x, (1, 1, 1, 1)), 16, pad=0))))
add("pad_attributes", between(lambda net, x: net.pad(x, (1, 1, 1, 1), fill=0.3)), opset=9)


@pattern(measured=False)
def pad_channels(net: Net) -> None:
    """Pad of the channel axis with a value (option A shortcut)."""
    x = start(net)
    (name,) = net.node("Pad", [x.name, net.integers([0, 2, 0, 0, 0, 3, 0, 0]), net.initializer(np.array(0.25))])
    finish(net, net.opaque([x], name, (1, 21, 10, 10)))


add("max_pool", between(lambda net, x: net.pool(x)))
add("max_pool_padded", between(lambda net, x: net.pool(x, "MaxPool", 3, stride=2, pad=1), act="Tanh"))
add("max_pool_ceil", between(lambda net, x: net.pool(x, "MaxPool", 3, stride=2, ceil_mode=1)))


def _dilated_pool(net: Net, x: Tensor) -> Tensor:
    (name,) = net.node("MaxPool", [x.name], kernel_shape=[2, 2], dilations=[2, 2], strides=[1, 1])
    return net.through([x], name, (1, 16, 8, 8), x.channels.value)


add("max_pool_dilated", between(_dilated_pool))


for count in (0, 1):
    add(
        f"average_pool_padded_include{count}",
        between(lambda net, x, count=count: net.pool(x, "AveragePool", 3, stride=2, pad=1, count_include_pad=count)),
    )
add("average_pool", between(lambda net, x: net.pool(x, "AveragePool")))
add("average_pool_ceil", between(lambda net, x: net.pool(x, "AveragePool", 3, stride=2, ceil_mode=1), size=(10, 10)))
add(
    "average_pool_then_linear",
    before_linear(lambda net, x: net.flatten(net.pool(x, "AveragePool", 3, stride=2, pad=1, count_include_pad=1))),
)


@pattern(measured=False)
def max_pool_indices(net: Net) -> None:
    """MaxPool with its second output: flat indices over all channels."""
    x = start(net, act="Tanh")
    values, indices = net.node("MaxPool", [x.name], 2, kernel_shape=[2, 2], strides=[2, 2])
    finish(net, net.opaque([x], values, (1, 16, 5, 5)))
    net.output(net.opaque([x], indices, (1, 16, 5, 5)), kind=7)


@pattern(measured=False)
def max_unpool(net: Net) -> None:
    """MaxPool indices read back by MaxUnpool."""
    x = start(net, act="Tanh")
    names = net.node("MaxPool", [x.name], 2, kernel_shape=[2, 2], strides=[2, 2])
    (name,) = net.node("MaxUnpool", names, kernel_shape=[2, 2], strides=[2, 2])
    finish(net, net.opaque([x], name, (1, 16, 10, 10)))


add(
    "lp_pool",
    between(
        lambda net, x: net.opaque(
            [x], net.node("LpPool", [x.name], kernel_shape=[2, 2], strides=[2, 2])[0], (1, 16, 5, 5)
        )
    ),
    measured=False,
)
add("resize_nearest", between(lambda net, x: net.resize(x)))
add("resize_linear", between(lambda net, x: net.resize(x, 2, "linear", coordinate_transformation_mode="half_pixel")))
add("resize_cubic", between(lambda net, x: net.resize(x, 2, "cubic", coordinate_transformation_mode="align_corners")))
add("upsample_old", between(lambda net, x: net.resize(x)), opset=9)
add("resize_opset10", between(lambda net, x: net.resize(x)), opset=10)


@pattern(measured=False)
def resize_to_sizes(net: Net) -> None:
    """Resize with hard-coded sizes that hold the channel count."""
    x = start(net)
    (name,) = net.node("Resize", [x.name, "", "", net.integers([1, 16, 15, 20])], mode="nearest")
    finish(net, net.select(x, name, np.arange(16), (1, 16, 15, 20)))


@pattern(measured=False)
def resize_to_shape_of(net: Net) -> None:
    """Resize to the size of another tensor: Shape, Slice, Concat, as feature pyramids do."""
    x = start(net, dims=(1, 3, "height", "width"))
    net.also_at(input=(1, 3, 14, 12))
    y = net.act(net.conv(net.pool(x), 16))
    (shape,) = net.node("Shape", [x.name])
    (space,) = net.node("Slice", [shape, net.integers([2]), net.integers([4])])
    (own,) = net.node("Shape", [y.name])
    (lead,) = net.node("Slice", [own, net.integers([0]), net.integers([2])])
    (sizes,) = net.node("Concat", [lead, space], axis=0)
    (name,) = net.node("Resize", [y.name, "", "", sizes], mode="nearest")
    z = net.opaque([y], name, (1, 16, 10, 10))
    finish(net, net.combine("Add", x, z), dims=(1, 8, "height", "width"))


@pattern(measured=False)
def resize_crop(net: Net) -> None:
    """Resize with tf_crop_and_resize fills what lies outside with a value."""
    x = start(net)
    roi = net.initializer(np.array([0, 0, -0.2, 0.1, 1, 1, 0.8, 1.3], np.float32), "roi")
    scales = net.initializer(np.ones(4, np.float32), "scales")
    (name,) = net.node(
        "Resize", [x.name, roi, scales], mode="linear", extrapolation_value=2.0,
        coordinate_transformation_mode="tf_crop_and_resize",
    )  # fmt: skip
    finish(net, net.opaque([x], name, (1, 16, 10, 10)))


@pattern()
def reshape_then_conv1d(net: Net) -> None:
    """N x C x H x W to N x C x HW, then Conv1d."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 16, 100])])
    finish(net, net.select(x, name, np.arange(16), (1, 16, 100)))


@pattern(measured=False)
def reshape_splits_channels(net: Net) -> None:
    """16 channels become 4 x 4: an axis of heads, read by a 3-D convolution."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 4, 4, 10, 10])])
    finish(net, net.opaque([x], name, (1, 4, 4, 10, 10)))


@pattern(measured=False)
def reshape_merges_rows(net: Net) -> None:
    """N x C x H x W to N x CH x W: each channel becomes ten."""
    x = start(net)
    (name,) = net.node("Reshape", [x.name, net.integers([1, 160, 10])])
    finish(net, net.opaque([x], name, (1, 160, 10)))


@pattern()
def channels_last_linear(net: Net) -> None:
    """Transpose to N x H x W x C, MatMul (ConvNeXt), and back."""
    x = net.transpose(start(net), [0, 2, 3, 1])
    x = net.gelu(net.linear(x, 32, form="matmul"))
    x = net.linear(x, 16, form="matmul")
    finish(net, net.transpose(x, [0, 3, 1, 2]))


@pattern(measured=False)
def transpose_space(net: Net) -> None:
    """Transpose swaps height and width only."""
    x = net.transpose(start(net, size=(8, 12)), [0, 1, 3, 2])
    finish(net, x)


@pattern(measured=False)
def transpose_channel_into_space(net: Net) -> None:
    """Channels become the height of an image."""
    x = start(net)
    (name,) = net.node("Transpose", [x.name], perm=[0, 2, 1, 3])
    finish(net, net.opaque([x], name, (1, 10, 16, 10)))


@pattern()
def squeeze_unsqueeze(net: Net) -> None:
    """Squeeze the space axes and put them back."""
    x = net.global_pool(start(net, batch=2))
    axes = [net.integers([2, 3])]
    (name,) = net.node("Squeeze", [x.name, *axes])
    x = net.act(net.linear(net.select(x, name, np.arange(16), (2, 16)), 12))
    (name,) = net.node("Unsqueeze", [x.name, *axes])
    finish(net, net.select(x, name, np.arange(12), (2, 12, 1, 1)), kernel=1)


@pattern(measured=False)
def expand_tile(net: Net) -> None:
    """Tile of channels: the copies follow each other."""
    x = start(net)
    (name,) = net.node("Tile", [x.name, net.integers([1, 2, 1, 1])])
    finish(net, net.select(x, name, np.arange(32) % 16, (1, 32, 10, 10)))


@pattern(measured=False)
def expand_to_stored_shape(net: Net) -> None:
    """Expand to a hard-coded shape with the channel count."""
    x = net.global_pool(start(net))
    (name,) = net.node("Expand", [x.name, net.integers([1, 16, 4, 4])])
    finish(net, net.select(x, name, np.arange(16), (1, 16, 4, 4)))


def _dynamic(*sizes: tuple[int, int]) -> object:
    def body(net: Net) -> None:
        x = start(net, size=sizes[0], dims=("batch", 3, "height", "width"))
        for height, width in sizes[1:]:
            net.also_at(input=(2, 3, height, width))
        x = net.act(net.conv(x, 16, stride=2))
        finish(net, x, dims=("batch", 8, "h", "w"))

    return body


add("dynamic_size", _dynamic((12, 12), (1, 1), (7, 16), (33, 5), (64, 48)))


@pattern()
def dynamic_residual_pool(net: Net) -> None:
    """Dynamic sizes with a residual sum, average pool and a mean."""
    x = start(net, size=(12, 12), dims=("batch", 3, "height", "width"))
    net.also_at(input=(3, 3, 20, 9))
    net.also_at(input=(1, 3, 5, 40))
    x = net.act(net.combine("Add", x, net.conv(net.act(net.conv(x, 16)), 16)))
    x = net.pool(x, "AveragePool", 3, stride=2, pad=1, count_include_pad=1)
    net.output(net.linear(net.flatten(net.global_pool(x)), 5, prune=False))


@pattern()
def dynamic_depthwise(net: Net) -> None:
    """A depthwise convolution turns constants into maps at unknown sizes."""
    x = start(net, size=(12, 12), dims=(1, 3, "height", "width"))
    net.also_at(input=(1, 3, 3, 17))
    x = net.clip(net.conv(x, 16, 5, groups=16, prune=False))
    finish(net, x, kernel=1, dims=(1, 8, "height", "width"))


@pattern()
def dynamic_dilated_transpose(net: Net) -> None:
    """Dilated convolution and ConvTranspose at unknown sizes."""
    x = start(net, size=(12, 12), dims=(1, 3, "height", "width"))
    net.also_at(input=(1, 3, 9, 30))
    x = net.act(net.conv(x, 16, dilation=3))
    x = net.act(net.conv_transpose(x, 12, 4, pad=1))
    finish(net, x, dims=(1, 8, "h2", "w2"))
