"""BigGAN (Brock, Donahue and Simonyan, 2019, https://arxiv.org/abs/1809.11096)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0
from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.conditional_norm import (
    AffineBatchNorm,
    ConditionalBatchNorm,
    upsampled,
)
from dgm_bench.models.adversarial.image_game import ImageGame
from dgm_bench.models.adversarial.layers import (
    Discriminator,
    Initial,
    SelfAttention,
    SpectralLayers,
    doubled_sides,
    draw_weights,
)

Images = Float[Tensor, "batch channels height width"]
Condition = Float[Tensor, "batch numbers"]


class BigGAN(ImageGame):
    """Class-conditional residual networks with a part of the noise for each block of the generator.

    https://arxiv.org/abs/1809.11096, section 3 and appendix B, table 4. Widths of the discriminator
    are those of the authors' released code and of its 88.0 million parameters (table 1); the table
    of the appendix has a block more. The generator's first layer is given noise alone, as its 70.4
    million have it.

    Args:
        event_shape: Channels, height and width.
        classes: Number of classes.
        latent: Number of noise variables, a multiple of the number of ``generator_widths``.
        embedding: Width of the classes' vectors, which all batch norms share.
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
        DeclarationError: Widths or noise do not fit the images.

    Example:
        >>> game = BigGAN((1, 8, 8), classes=3, latent=4, width=8, generator_widths=[2, 1],
        ...     discriminator_widths=[1, 2], halvings=1)
        >>> game.draw_images(torch.arange(3), torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        classes: Count = 10,
        latent: Count = 80,
        embedding: Count = 128,
        width: Count = 64,
        generator_widths: Sequence[Count] = (4, 4, 4, 4),
        discriminator_widths: Sequence[Count] = (4, 4, 4, 4),
        halvings: CountFrom0 = 2,
        generator_attention: Count | None = None,
        discriminator_attention: Count | None = None,
        initial: Initial = "orthogonal",
    ) -> None:
        super().__init__(event_shape, latent, classes)
        layers = SpectralLayers(initial)
        up, down = ([width * n for n in own] for own in (generator_widths, discriminator_widths))
        self.generator = Generator(
            self.event_shape, classes, latent, embedding, up, generator_attention, layers
        )
        self.discriminator = Discriminator(
            self.event_shape, classes, down, halvings, discriminator_attention, layers
        )
        self.to(memory_format=torch.channels_last)


class UpBlock(nn.Module):
    """A residual block of the generator, which doubles height and width (figure 15b).

    Args:
        inputs: Channels before.
        outputs: Channels after.
        condition: Width of what its batch norms are given.
        layers: Makes its layers.
    """

    def __init__(self, inputs: int, outputs: int, condition: int, layers: SpectralLayers) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [ConditionalBatchNorm(n, condition, layers) for n in (inputs, outputs)]
        )
        self.convolutions = nn.ModuleList(
            [layers.convolution(n, outputs) for n in (inputs, outputs)]
        )
        self.skip = layers.convolution(inputs, outputs, side=1)

    def forward(
        self, x: Images, condition: Condition
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return images twice as high and wide."""
        h = self.convolutions[0](upsampled(F.relu(self.norms[0](x, condition))))
        h = self.convolutions[1](F.relu(self.norms[1](h, condition)))
        # The 1x1 convolution of a repeated pixel is repeated: the smaller image is cheaper.
        return cast(Tensor, h + upsampled(self.skip(x)))


class Generator(nn.Module):
    """Blocks that are each given the embedded class and a part of the noise.

    Args:
        shape: Channels, height and width of images.
        classes: Number of classes.
        latent: Number of noise variables, divided evenly among the first layer and the blocks.
        embedding: Width of the classes' vectors.
        widths: Channels before the first block, and after each.
        attention: The side of images after whose block attention comes, or None.
        layers: Makes the layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        latent: int,
        embedding: int,
        widths: Sequence[int],
        attention: int | None,
        layers: SpectralLayers,
    ) -> None:
        super().__init__()
        (rows, columns), sides = doubled_sides(shape, len(widths) - 1)
        if latent % len(widths):
            reason = f"cannot be divided into {len(widths)} parts"
            raise DeclarationError(f"latent={latent}", reason, f"use {len(widths)} times a number")
        self.first_shape = (widths[0], rows, columns)
        self.part = latent // len(widths)
        self.embedding = class_vectors(classes, embedding, layers)
        self.first = layers.linear(self.part, widths[0] * rows * columns)
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for i, side in enumerate(sides):
            self.blocks.append(UpBlock(widths[i], widths[i + 1], embedding + self.part, layers))
            if side == attention:
                self.attention[str(i)] = SelfAttention(widths[i + 1], layers)
        self.last = ToPixels(widths[-1], shape[0], layers)

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return an image of each class, pixels in [-1, 1]."""
        first, *others = z.split(self.part, dim=1)
        vectors = self.embedding(classes)
        x: Tensor = self.first(first).view(-1, *self.first_shape)
        x = x.contiguous(memory_format=torch.channels_last)
        for i, (block, part) in enumerate(zip(self.blocks, others, strict=True)):
            x = block(x, torch.cat([vectors, part], 1))
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        return cast(Tensor, self.last(x))


class ToPixels(nn.Module):
    """Batch norm, ReLU, a 3x3 convolution and tanh.

    Args:
        inputs: Channels before.
        outputs: Channels of images.
        layers: Makes the convolution.
        unused: Channels that the convolution has besides, and that nothing reads.
    """

    def __init__(self, inputs: int, outputs: int, layers: SpectralLayers, unused: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        self.norm = AffineBatchNorm(inputs)
        self.convolution = layers.convolution(inputs, outputs + unused)

    def forward(self, x: Images) -> Float[Tensor, "batch colours height width"]:
        """Return pixels in [-1, 1]."""
        h: Tensor = self.convolution(F.relu(self.norm(x)))
        return h[:, : self.outputs].tanh()


def class_vectors(classes: int, width: int, layers: SpectralLayers) -> nn.Embedding:
    """Return vectors of classes, drawn as other weights are but not spectrally normalised."""
    vectors = nn.Embedding(classes, width)
    draw_weights(vectors.weight, layers.initial)
    return vectors
