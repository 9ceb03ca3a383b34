"""The progressive growing GAN (Karras et al., 2018, https://arxiv.org/abs/1710.10196)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, StepsFrom0
from dgm_bench.models.adversarial.equalised import (
    Equalised,
    EqualisedConv,
    doubled,
    leaky,
    pixel_norm,
)
from dgm_bench.models.adversarial.growing import (
    GrowingDiscriminator,
    GrowingGame,
    GrowingPlayer,
    Pyramid,
    ToImages,
)


class ProGANGenerator(GrowingPlayer):
    """From noise on a hypersphere to images (table 2), with features normalised at each pixel.

    Args:
        shape: The resolutions and widths.
        latent: Number of noise variables.
    """

    def __init__(self, shape: Pyramid, latent: int) -> None:
        super().__init__(shape)
        filters = shape.filters
        self.first = Equalised((filters[0], latent, *shape.base))
        self.bias = nn.Parameter(torch.zeros(filters[0], 1, 1))
        self.second = EqualisedConv(filters[0], filters[0], 3)
        self.blocks = nn.ModuleList(_Doubling(below, above) for below, above in pairwise(filters))
        self.to_images = ToImages(shape)

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return images of full resolution, mostly in [-1, 1]; ``classes`` are not used."""
        x = torch.einsum("nl,clhw->nchw", pixel_norm(z), self.first.scaled())
        x = below = _normed(self.second(_normed(x + self.bias)))
        for block in self.blocks[: math.ceil(self.level)]:
            below, x = x, block(x)
        images: Tensor = self.to_images(below, x, self.level)
        return images


class _Doubling(nn.Module):
    """Twice the resolution, and two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualisedConv(inputs, outputs, 3)
        self.second = EqualisedConv(outputs, outputs, 3)

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs new_rows new_columns"]:
        """Return the features of twice the resolution."""
        return _normed(self.second(_normed(self.first(doubled(x)))))


def _normed(
    x: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    return pixel_norm(leaky(x))


class ProGAN(GrowingGame):
    """Two players that grow from 4 x 4 pixels to the full resolution; neither is told of classes.

    Karras et al. (2018), https://arxiv.org/abs/1710.10196, section 2 and table 2. What grows when
    is counted in images that the discriminator has seen.

    Args:
        event_shape: Channels, rows and columns; the sides become 4 by halving.
        latent: Number of noise variables.
        filters: Feature maps of both players at 4, 8, 16, ... pixels; the last number holds for
            all that follow.
        start: Shorter side of the images at first.
        stable: Images that a resolution is trained for before the next one is faded in.
        fade: Images that this takes.
        deviation_group: Images over which the discriminator sees a standard deviation; None for
            all of a batch.

    Raises:
        DeclarationError: Images or ``filters`` do not fit, or ``start`` is no resolution.

    Example:
        >>> model = ProGAN((1, 8, 8), latent=16, filters=[8], stable=100, fade=100)
        >>> model.grow(150)
        >>> model.generator.level
        0.5
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 64,
        filters: Sequence[Count] = (64,),
        start: Count = 4,
        stable: StepsFrom0 = 0,
        fade: StepsFrom0 = 0,
        deviation_group: Count | None = None,
    ) -> None:
        super().__init__(event_shape, latent, filters, (start, stable, fade))
        self.generator = ProGANGenerator(self.shape, latent)
        self.discriminator = GrowingDiscriminator(self.shape, False, deviation_group)
        self.grow(0)
