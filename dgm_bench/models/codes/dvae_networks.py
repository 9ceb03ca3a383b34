"""Residual networks of DALL-E's discrete VAE (https://arxiv.org/abs/2102.12092, A.1)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """Return a convolution with same padding and weights of variance 1 / fan-in."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(inputs * size**2))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
    return layer


class BottleneckBlock(nn.Module):
    """``skip(x) + gain * residual(x)`` with a bottleneck of four convolutions, each after a ReLU.

    Kernels and gain are those of the authors' released code (dall_e/encoder.py, decoder.py).

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels; the bottleneck has a quarter of them.
        sizes: Kernel sizes of the four convolutions.
        gain: Factor of the residual.
    """

    def __init__(
        self, inputs: int, outputs: int, sizes: tuple[int, int, int, int], gain: float
    ) -> None:
        super().__init__()
        narrow = max(1, outputs // 4)
        widths = [inputs, narrow, narrow, narrow, outputs]
        self.convs = nn.ModuleList(
            conv(before, after, size)
            for (before, after), size in zip(pairwise(widths), sizes, strict=True)
        )
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)
        self.gain = gain

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the skip connection and the residual."""
        h = x
        for layer in self.convs:
            h = layer(F.relu(h))
        skipped: Tensor = self.skip(x)
        return skipped + self.gain * h


def encoder(inputs: int, hidden: int, codes: int, poolings: int, blocks: int) -> nn.Sequential:
    """Return the network from images to logits of codes.

    A 7 x 7 convolution, groups of blocks of doubling width with max-pooling in between, 1 x 1.

    Args:
        inputs: Channels of images.
        hidden: Width of the first group.
        codes: Number of output channels.
        poolings: Number of max-poolings; there is one more group.
        blocks: Blocks in each group.
    """
    gain = 1 / ((poolings + 1) * blocks) ** 2
    modules: list[nn.Module] = [conv(inputs, hidden, 7)]
    width = hidden
    for group in range(poolings + 1):
        modules += [nn.MaxPool2d(2)] if group else []
        wide = hidden * 2**group
        widths = [width, *[wide] * blocks]
        modules += [BottleneckBlock(*pair, (3, 3, 3, 1), gain) for pair in pairwise(widths)]
        width = wide
    return nn.Sequential(*modules, nn.ReLU(), conv(width, codes, 1))


def decoder(inputs: int, hidden: int, outputs: int, poolings: int, blocks: int) -> nn.Sequential:
    """Return the network from embedded codes to maps, with nearest upsampling between groups.

    Args:
        inputs: Dimensions of an embedded code.
        hidden: Width of the last group.
        outputs: Number of output channels.
        poolings: Number of upsamplings; there is one more group.
        blocks: Blocks in each group.
    """
    gain = 1 / ((poolings + 1) * blocks) ** 2
    modules: list[nn.Module] = []
    width = inputs
    for group in reversed(range(poolings + 1)):
        wide = hidden * 2**group
        widths = [width, *[wide] * blocks]
        modules += [BottleneckBlock(*pair, (1, 3, 3, 3), gain) for pair in pairwise(widths)]
        modules += [nn.Upsample(scale_factor=2, mode="nearest")] if group else []
        width = wide
    return nn.Sequential(*modules, nn.ReLU(), conv(width, outputs, 1))
