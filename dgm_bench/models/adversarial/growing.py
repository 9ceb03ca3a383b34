"""Networks that grow: layers of higher resolutions are faded in while a game is trained.

Karras et al. (2018), https://arxiv.org/abs/1710.10196, section 2 and figure 2. A level counts how
often the smallest resolution, of 4 pixels, was doubled; between two levels the upper one is faded
in. Images always have the full resolution: what a network lacks is repeated, or averaged, pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.equalised import (
    EqualisedConv,
    EqualisedLinear,
    MinibatchDeviation,
    blurred,
    doubled,
    halved,
    leaky,
)
from dgm_bench.models.adversarial.image_game import ImageGame, Images

#: The shorter side of the smallest images.
SMALLEST = 4


@dataclass(frozen=True)
class Pyramid:
    """The resolutions of a network, the smallest first, and its widths there.

    Attributes:
        channels: Of images.
        base: Rows and columns of the smallest images.
        filters: Feature maps at each resolution.
    """

    channels: int
    base: tuple[int, int]
    filters: tuple[int, ...]

    @property
    def top(self) -> int:
        """The level of the full resolution."""
        return len(self.filters) - 1


def pyramid(event_shape: tuple[int, int, int], filters: Sequence[int]) -> Pyramid:
    """Return the resolutions for images of a shape.

    Args:
        event_shape: Channels, rows and columns.
        filters: Feature maps at 4, 8, 16, ... pixels, as far as images go; the last number holds
            for all that follow.

    Raises:
        DeclarationError: Halving does not lead to 4 pixels, or there is no number.
    """
    channels, *sides = event_shape
    top = int(math.log2(max(min(sides) // SMALLEST, 1)))
    base = (sides[0] >> top, sides[1] >> top)
    if min(base) != SMALLEST or any(side % 2**top for side in sides):
        reason = "do not become 4 pixels high or wide by halving"
        raise DeclarationError(f"images of {sides[0]}x{sides[1]} pixels", reason, "use others")
    if not filters:
        raise DeclarationError("filters", "are none", "give one number at least")
    widths = [*filters, *[filters[-1]] * top][: top + 1]
    return Pyramid(channels, base, tuple(widths))


@dataclass(frozen=True)
class Growth:
    """When each resolution is reached, by the number of images that the discriminator has seen.

    Attributes:
        start: The first level.
        top: The last one.
        stable: Images for which a level stays as it is.
        fade: Images for which the next one is faded in.
    """

    start: int
    top: int
    stable: int
    fade: int

    def level(self, images: int) -> float:
        """Return the level after so many images; between two, the share of the upper one."""
        if not self.stable + self.fade:
            return float(self.top)
        phase, since = divmod(images, self.stable + self.fade)
        faded = max(since - self.stable, 0) / self.fade if self.fade else 0.0
        return min(self.start + phase + faded, float(self.top))


def faded(
    images: Float[Tensor, "batch channels rows columns"], top: int, level: float
) -> Float[Tensor, "batch channels rows columns"]:
    """Return images with the detail that a level has, in full resolution (figure 2).

    Args:
        images: Of full resolution.
        top: The level of the full resolution.
        level: The level.
    """
    upper = math.ceil(level)
    if level == top:
        return images
    fine = halved(images, top - upper)
    if level < upper:
        fine = torch.lerp(doubled(halved(fine)), fine, level - (upper - 1))
    return doubled(fine, top - upper)


class ToImages(nn.Module):
    """From features to images of full resolution, by a linear map at each pixel.

    Args:
        shape: The resolutions and widths.
    """

    def __init__(self, shape: Pyramid) -> None:
        super().__init__()
        self.top = shape.top
        self.maps = nn.ModuleList(
            EqualisedConv(width, shape.channels, 1, gain=1) for width in shape.filters
        )

    def forward(
        self,
        below: Float[Tensor, "batch channels_below rows_below columns_below"],
        x: Float[Tensor, "batch channels rows columns"],
        level: float,
    ) -> Float[Tensor, "batch colours full_rows full_columns"]:
        """Return images of features ``x`` and, while these are faded in, of those ``below``."""
        upper = math.ceil(level)
        images: Tensor = self.maps[upper](x)
        if level < upper:
            before = doubled(self.maps[upper - 1](below))
            images = torch.lerp(before, images, level - (upper - 1))
        return doubled(images, self.top - upper)


class GrowingPlayer(nn.Module):
    """Base of both players.

    Args:
        shape: The resolutions and widths.
    """

    def __init__(self, shape: Pyramid) -> None:
        super().__init__()
        self.top = shape.top
        #: The level that it has reached: that of the full resolution, unless a game grows.
        self.level = float(shape.top)


class GrowingDiscriminator(GrowingPlayer):
    """The discriminator of both papers (ProGAN, table 2), which grows with its generator.

    Each resolution has two convolutions 3 x 3, after which pixels are averaged; the last has the
    deviation over the batch, a convolution and two linear layers.

    Args:
        shape: The resolutions and widths.
        blur: Whether features are blurred before they are averaged, as in StyleGAN.
        deviation_group: Images over which a deviation is taken; None for all of a batch.
    """

    def __init__(self, shape: Pyramid, blur: bool, deviation_group: int | None) -> None:
        super().__init__(shape)
        filters = shape.filters
        self.maps = nn.ModuleList(EqualisedConv(shape.channels, width, 1) for width in filters)
        #: From each resolution but the smallest to the one below it.
        self.blocks = nn.ModuleList(
            _Halving(above, below, blur) for below, above in pairwise(filters)
        )
        first = filters[0]
        self.deviation = MinibatchDeviation(deviation_group)
        self.last = EqualisedConv(first + 1, first, 3)
        self.hidden = EqualisedLinear(first * math.prod(shape.base), first)
        self.out = EqualisedLinear(first, 1, gain=1)

    def forward(
        self,
        x: Float[Tensor, "batch channels rows columns"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Return the score of each image, of full resolution; ``classes`` are not used."""
        upper = math.ceil(self.level)
        images = halved(x, self.top - upper)
        features: Tensor = leaky(self.maps[upper](images))
        for level in range(upper, 0, -1):
            features = self.blocks[level - 1](features)
            if level == upper and self.level < upper:
                below = leaky(self.maps[level - 1](halved(images)))
                features = torch.lerp(below, features, self.level - (upper - 1))
        features = leaky(self.last(self.deviation(features)))
        scores: Tensor = self.out(leaky(self.hidden(features.flatten(1))))
        return scores.squeeze(1)


class _Halving(nn.Module):
    """Two convolutions, and half the resolution; with a blur that comes before the last ReLU."""

    def __init__(self, inputs: int, outputs: int, blur: bool) -> None:
        super().__init__()
        self.first, self.second = (
            EqualisedConv(inputs, inputs, 3),
            EqualisedConv(inputs, outputs, 3),
        )
        self.blur = blur

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs half_rows half_columns"]:
        """Return the features of half the resolution."""
        x = leaky(self.first(x))
        if self.blur:
            return leaky(halved(self.second(blurred(x))))
        return halved(leaky(self.second(x)))


class GrowingGame(ImageGame):
    """Base of games whose players grow; neither is told of classes.

    Subclasses set both players, and let them begin with ``grow(0)``.

    Args:
        event_shape: Channels, rows and columns.
        latent: Number of noise variables.
        filters: Feature maps at each resolution; see :func:`pyramid`.
        growth: The shorter side of the images at first, and for how many images a resolution is
            trained before the next one, and faded in.

    Raises:
        DeclarationError: Images or ``filters`` do not fit, or the first side is no resolution.
    """

    generator: GrowingPlayer
    discriminator: GrowingPlayer

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: int,
        filters: Sequence[int],
        growth: tuple[int, int, int],
    ) -> None:
        super().__init__(event_shape, latent, None)
        self.shape, (start, stable, fade) = pyramid(self.event_shape, filters), growth
        sides = [SMALLEST * 2**level for level in range(self.shape.top + 1)]
        if start not in sides:
            remedy = f"use one of {', '.join(map(str, sides))}"
            raise DeclarationError(f"start={start}", "is no resolution of these images", remedy)
        self.growth = Growth(sides.index(start), self.shape.top, stable, fade)
        self.images_shown = 0

    def grow(self, images_shown: int) -> None:
        """Let both players have the level after so many images that the discriminator saw."""
        self.images_shown = images_shown
        level = self.growth.level(images_shown)
        self.generator.level = self.discriminator.level = level

    def examples_and_classes(self, x: Num[Tensor, "batch *row"]) -> tuple[Images, None]:
        """Return images in [-1, 1], in training with the detail of the level; no classes."""
        images = 2 * x - 1
        if not self.training:
            return images, None
        return faded(images, self.shape.top, self.growth.level(self.images_shown)), None

    def get_extra_state(self) -> Int[Tensor, ""]:
        """Return the number of images shown, for the state dict."""
        return torch.tensor(self.images_shown)

    def set_extra_state(self, state: Int[Tensor, ""]) -> None:
        """Go back to a number of images."""
        self.grow(int(state))
