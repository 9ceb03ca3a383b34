"""BigGAN-deep (Brock, Donahue and Simonyan, 2019, appendix B, https://arxiv.org/abs/1809.11096)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count, CountFrom0
from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.biggan import ToPixels, class_vectors
from dgm_bench.models.adversarial.conditional_norm import ConditionalBatchNorm, upsampled
from dgm_bench.models.adversarial.image_game import ImageGame
from dgm_bench.models.adversarial.layers import (
    Initial,
    ProjectionHead,
    SelfAttention,
    SpectralLayers,
    doubled_sides,
    halved_sides,
)

Images = Float[Tensor, "batch channels height width"]
Condition = Float[Tensor, "batch numbers"]

#: What the inner convolutions of a block are narrower by.
REDUCTION = 4
#: Blocks of each resolution.
DEPTH = 2


class BigGANDeep(ImageGame):
    """Bottleneck blocks, two of each resolution, whose skips keep the identity.

    https://arxiv.org/abs/1809.11096, appendix B, tables 7 to 9. Each block of the generator is
    given the whole noise.

    Args:
        event_shape: Channels, height and width.
        classes: Number of classes.
        latent: Number of noise variables.
        embedding: Width of the classes' vectors, which all batch norms share.
        width: Channels that the widths below are multiples of.
        generator_widths: Before the generator's first blocks, and after each pair, which doubles
            the image's height and width.
        discriminator_widths: After the discriminator's first convolution, and after each pair.
        halvings: How many of these pairs, the first ones, halve height and width.
        generator_attention: Height of the image after whose blocks attention comes, or None.
        discriminator_attention: The same of the discriminator.
        initial: How weights are drawn: ``orthogonal``, ``normal`` (with standard deviation 0.02)
            or ``xavier``.
        unused: Channels that the generator's last convolution has besides those of images: 125 in
            the released generator, which are among its 50.4 million parameters.

    Raises:
        DeclarationError: Widths do not fit the images, or grow in the generator, or shrink in the
            discriminator.

    Example:
        >>> game = BigGANDeep((1, 8, 8), classes=3, latent=4, width=8, generator_widths=[2, 1],
        ...     discriminator_widths=[1, 2], halvings=1)
        >>> game.draw_images(torch.arange(3), torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        classes: Count = 10,
        latent: Count = 128,
        embedding: Count = 128,
        width: Count = 64,
        generator_widths: Sequence[Count] = (4, 4, 4, 4),
        discriminator_widths: Sequence[Count] = (4, 4, 4, 4),
        halvings: CountFrom0 = 2,
        generator_attention: Count | None = None,
        discriminator_attention: Count | None = None,
        initial: Initial = "orthogonal",
        unused: CountFrom0 = 0,
    ) -> None:
        super().__init__(event_shape, latent, classes)
        layers = SpectralLayers(initial)
        up, down = ([width * n for n in own] for own in (generator_widths, discriminator_widths))
        _require_order("generator_widths", up[::-1], "grow")
        _require_order("discriminator_widths", down, "shrink")
        self.generator = DeepGenerator(
            self.event_shape, classes, latent, embedding, up, generator_attention, layers, unused
        )
        self.discriminator = DeepDiscriminator(
            self.event_shape, classes, down, halvings, discriminator_attention, layers
        )
        self.to(memory_format=torch.channels_last)


def _require_order(name: str, widths: list[int], wrong: str) -> None:
    if widths != sorted(widths):
        reason = f"{wrong}, and a block's skip only drops channels, or only adds some"
        raise DeclarationError(name, reason, "put them in the other order")


def bottleneck(inputs: int, inner: int, outputs: int, layers: SpectralLayers) -> nn.ModuleList:
    """Return a 1x1 convolution, two 3x3 ones and another 1x1 one."""
    widths, sides = [inputs, inner, inner, inner, outputs], [1, 3, 3, 1]
    return nn.ModuleList(
        [layers.convolution(widths[i], widths[i + 1], side) for i, side in enumerate(sides)]
    )


class DeepUpBlock(nn.Module):
    """A residual block of the generator, whose skip drops the channels that are too many.

    Figure 16b.

    Args:
        inputs: Channels before.
        outputs: Channels after, at most as many.
        condition: Width of what its batch norms are given.
        layers: Makes its layers.
        doubles: Whether it doubles height and width.
    """

    def __init__(
        self, inputs: int, outputs: int, condition: int, layers: SpectralLayers, *, doubles: bool
    ) -> None:
        super().__init__()
        self.outputs, self.doubles = outputs, doubles
        inner = max(1, inputs // REDUCTION)
        self.norms = nn.ModuleList(
            [ConditionalBatchNorm(n, condition, layers) for n in (inputs, inner, inner, inner)]
        )
        self.convolutions = bottleneck(inputs, inner, outputs, layers)

    def forward(
        self, x: Images, condition: Condition
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return what the next block takes."""
        h = x
        for i, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            h = F.relu(norm(h, condition))
            h = convolution(upsampled(h, self.doubles and i == 1))
        return h + upsampled(x[:, : self.outputs], self.doubles)


class DeepGenerator(nn.Module):
    """Two blocks of each resolution, all given the embedded class and the whole noise.

    Args:
        shape: Channels, height and width of images.
        classes: Number of classes.
        latent: Number of noise variables.
        embedding: Width of the classes' vectors.
        widths: Channels before the first resolution, and after each.
        attention: The side of images after whose blocks attention comes, or None.
        layers: Makes the layers.
        unused: Channels that the last convolution has besides those of images.
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
        unused: int = 0,
    ) -> None:
        super().__init__()
        (rows, columns), sides = doubled_sides(shape, len(widths) - 1)
        self.first_shape, condition = (widths[0], rows, columns), latent + embedding
        self.embedding = class_vectors(classes, embedding, layers)
        self.first = layers.linear(condition, widths[0] * rows * columns)
        self.blocks = nn.ModuleList()
        for i, side in enumerate(sides):
            for last in [*[False] * (DEPTH - 1), True]:
                outputs = widths[i + last]
                self.blocks.append(DeepUpBlock(widths[i], outputs, condition, layers, doubles=last))
            if side == attention:
                self.blocks.append(SelfAttention(widths[i + 1], layers))
        self.last = ToPixels(widths[-1], shape[0], layers, unused)

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return an image of each class, pixels in [-1, 1]."""
        condition = torch.cat([z, self.embedding(classes)], 1)
        x: Tensor = self.first(condition).view(-1, *self.first_shape)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x) if isinstance(block, SelfAttention) else block(x, condition)
        return cast(Tensor, self.last(x))


class DeepDownBlock(nn.Module):
    """A residual block of the discriminator, whose skip adds the channels that are missing.

    Figure 16c.

    Args:
        inputs: Channels before.
        outputs: Channels after, at least as many.
        layers: Makes the convolutions.
        halves: Whether height and width are halved.
    """

    def __init__(self, inputs: int, outputs: int, layers: SpectralLayers, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.convolutions = bottleneck(inputs, max(1, outputs // REDUCTION), outputs, layers)
        more = outputs - inputs
        self.more = layers.convolution(inputs, more, side=1) if more else None

    def forward(self, x: Images) -> Float[Tensor, "batch outputs rows columns"]:
        """Return what the next block takes."""
        h = x
        for convolution in self.convolutions[:-1]:
            h = convolution(F.relu(h))
        h = self.convolutions[-1](self._pooled(F.relu(h)))
        x = self._pooled(x)
        skip = x if self.more is None else torch.cat([x, self.more(x)], 1)
        return cast(Tensor, h + skip)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halves else x


class DeepDiscriminator(nn.Module):
    """A convolution, two blocks of each width, and a projection.

    Args:
        shape: Channels, height and width of images.
        classes: Number of classes.
        widths: Channels of the first convolution, and after each pair of blocks.
        halvings: How many pairs, the first ones, halve height and width.
        attention: The side of images after whose first pair attention comes, or None.
        layers: Makes all layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        widths: Sequence[int],
        halvings: int,
        attention: int | None,
        layers: SpectralLayers,
    ) -> None:
        super().__init__()
        sides = halved_sides(shape, len(widths) - 1, halvings)
        blocks = [layers.convolution(shape[0], widths[0])]
        for i, side in enumerate(sides):
            for first in [True, *[False] * (DEPTH - 1)]:
                inputs, halves = widths[i if first else i + 1], first and i < halvings
                blocks.append(DeepDownBlock(inputs, widths[i + 1], layers, halves=halves))
            if side == attention and attention not in sides[:i]:
                blocks.append(SelfAttention(widths[i + 1], layers))
        self.blocks = nn.Sequential(*blocks)
        self.head = ProjectionHead(widths[-1], classes, layers)

    def forward(self, x: Images, classes: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the score of each image of pixels in [-1, 1], given its class."""
        x = x.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.head(self.blocks(x), classes))
