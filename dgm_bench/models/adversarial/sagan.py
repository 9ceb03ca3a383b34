"""SAGAN (Zhang et al., 2019, https://arxiv.org/abs/1805.08318)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0
from dgm_bench.models.adversarial.biggan import ToPixels
from dgm_bench.models.adversarial.conditional_norm import ClassBatchNorm, upsampled
from dgm_bench.models.adversarial.image_game import ImageGame
from dgm_bench.models.adversarial.layers import (
    Discriminator,
    Initial,
    SelfAttention,
    SpectralLayers,
    doubled_sides,
)

Images = Float[Tensor, "batch channels height width"]


class SAGAN(ImageGame):
    """Residual networks with attention at one resolution, a table of batch norms for each class.

    https://arxiv.org/abs/1805.08318, sections 3 and 4; channels are those of the authors' code
    (brain-research/self-attention-gan).

    Args:
        event_shape: Channels, height and width.
        classes: Number of classes.
        latent: Number of noise variables.
        width: Channels that the widths below are multiples of.
        generator_widths: Before the generator's first block, and after each, which doubles the
            image's height and width.
        discriminator_widths: After each block of the discriminator.
        halvings: How many of these, the first ones, halve height and width.
        generator_attention: Height of the image after whose block attention comes, or None.
        discriminator_attention: The same of the discriminator.
        initial: How weights are drawn: ``orthogonal``, ``normal`` (with standard deviation 0.02)
            or ``xavier``.

    Raises:
        DeclarationError: Widths do not fit the images.

    Example:
        >>> game = SAGAN((1, 8, 8), classes=3, latent=4, width=8, generator_widths=[2, 1],
        ...     discriminator_widths=[1, 2], halvings=1, generator_attention=8)
        >>> game.draw_images(torch.arange(3), torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        classes: Count = 10,
        latent: Count = 128,
        width: Count = 64,
        generator_widths: Sequence[Count] = (4, 4, 4, 4),
        discriminator_widths: Sequence[Count] = (4, 4, 4, 4),
        halvings: CountFrom0 = 2,
        generator_attention: Count | None = None,
        discriminator_attention: Count | None = None,
        initial: Initial = "xavier",
    ) -> None:
        super().__init__(event_shape, latent, classes)
        layers = SpectralLayers(initial)
        up, down = ([width * n for n in own] for own in (generator_widths, discriminator_widths))
        self.generator = Generator(
            self.event_shape, classes, latent, up, generator_attention, layers
        )
        self.discriminator = Discriminator(
            self.event_shape, classes, down, halvings, discriminator_attention, layers
        )
        self.to(memory_format=torch.channels_last)


class ClassUpBlock(nn.Module):
    """A residual block that doubles height and width, with batch norms of each class.

    Args:
        inputs: Channels before.
        outputs: Channels after.
        classes: Number of classes.
        layers: Makes the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, classes: int, layers: SpectralLayers) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ClassBatchNorm(n, classes) for n in (inputs, outputs)])
        self.convolutions = nn.ModuleList(
            [layers.convolution(n, outputs) for n in (inputs, outputs)]
        )
        self.skip = layers.convolution(inputs, outputs, side=1)

    def forward(
        self, x: Images, classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return images twice as high and wide."""
        h = self.convolutions[0](upsampled(F.relu(self.norms[0](x, classes))))
        h = self.convolutions[1](F.relu(self.norms[1](h, classes)))
        return cast(Tensor, h + upsampled(self.skip(x)))


class Generator(nn.Module):
    """Residual blocks whose batch norms know the class, with attention at one resolution.

    Args:
        shape: Channels, height and width of images.
        classes: Number of classes.
        latent: Number of noise variables.
        widths: Channels before the first block, and after each.
        attention: The side of images after whose block attention comes, or None.
        layers: Makes the layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        latent: int,
        widths: Sequence[int],
        attention: int | None,
        layers: SpectralLayers,
    ) -> None:
        super().__init__()
        (rows, columns), sides = doubled_sides(shape, len(widths) - 1)
        self.first_shape = (widths[0], rows, columns)
        self.first = layers.linear(latent, widths[0] * rows * columns)
        self.blocks = nn.ModuleList()
        for i, side in enumerate(sides):
            self.blocks.append(ClassUpBlock(widths[i], widths[i + 1], classes, layers))
            if side == attention:
                self.blocks.append(SelfAttention(widths[i + 1], layers))
        self.last = ToPixels(widths[-1], shape[0], layers)

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return an image of each class, pixels in [-1, 1]."""
        x: Tensor = self.first(z).view(-1, *self.first_shape)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x) if isinstance(block, SelfAttention) else block(x, classes)
        return cast(Tensor, self.last(x))
