"""Layers that SAGAN, BigGAN and BigGAN-deep share: spectral norm, attention, projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from dgm_bench.errors import DeclarationError

Initial = Literal["orthogonal", "normal", "xavier"]
Images = Float[Tensor, "batch channels height width"]
Classes = Int[Tensor, " batch"]


@dataclass(frozen=True)
class SpectralLayers:
    """Makes layers with spectral normalisation; biases begin at zero.

    Miyato et al. (2018), https://arxiv.org/abs/1802.05957, in both players (SAGAN, section 4).

    Args:
        initial: How weights are drawn: ``orthogonal`` (BigGAN, section 3), ``normal`` with
            standard deviation 0.02, or ``xavier``, which is uniform.
    """

    initial: Initial

    def convolution(self, inputs: int, outputs: int, side: int = 3, bias: bool = True) -> nn.Module:
        """Return a convolution that keeps height and width.

        Args:
            inputs: Channels before.
            outputs: Channels after.
            side: Of its filters.
            bias: Whether it has one.
        """
        return self._made(nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=bias))

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        """Return an affine map, or without bias a linear one."""
        return self._made(nn.Linear(inputs, outputs, bias=bias))

    def embedding(self, classes: int, width: int) -> nn.Module:
        """Return vectors of classes."""
        return self._made(nn.Embedding(classes, width))

    def _made(self, layer: nn.Conv2d | nn.Linear | nn.Embedding) -> nn.Module:
        # Before it is normalised, whose power iteration begins with the weights that it finds.
        draw_weights(layer.weight, self.initial)
        if isinstance(layer.__dict__["_parameters"].get("bias"), nn.Parameter):
            nn.init.zeros_(cast(Tensor, layer.bias))
        norm = _SpectralNorm(layer.weight)
        # Not safe only where shape or type might change; the check takes another iteration.
        parametrize.register_parametrization(layer, "weight", norm, unsafe=True)
        return layer


class _SpectralNorm(parametrizations._SpectralNorm):
    """Torch's own, which does not iterate over weights without values: it takes long to do so."""

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)


def draw_weights(weight: Tensor, initial: Initial) -> None:
    """Draw the weights of a layer; see :class:`SpectralLayers`."""
    if initial == "orthogonal":
        nn.init.orthogonal_(weight)
    elif initial == "normal":
        nn.init.normal_(weight, std=0.02)
    else:
        nn.init.xavier_uniform_(weight)


class SelfAttention(nn.Module):
    """Attention of every place of an image to all others, added with a weight that begins at 0.

    SAGAN (https://arxiv.org/abs/1805.08318), section 3; as its authors' code (``non_local.py`` of
    brain-research/self-attention-gan) and BigGAN have it, keys and values are pooled to half the
    height and width, and values have half the channels.

    Args:
        channels: Of the image, before and after.
        layers: Makes the 1x1 convolutions.
    """

    def __init__(self, channels: int, layers: SpectralLayers) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = layers.convolution(channels, narrow, side=1, bias=False)
        self.key = layers.convolution(channels, narrow, side=1, bias=False)
        self.value = layers.convolution(channels, half, side=1, bias=False)
        self.out = layers.convolution(half, channels, side=1, bias=False)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Images) -> Images:
        """Return ``x`` with what its places attend to."""
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        attention = (query.mT @ key).softmax(-1)
        found = (value @ attention.mT).view(len(x), -1, *x.shape[2:])
        return x + self.weight * cast(Tensor, self.out(found))


class ProjectionHead(nn.Module):
    """The score of an image, and how well it fits its class: ``linear(h) + embedding(y) . h``.

    Miyato and Koyama (2018), https://arxiv.org/abs/1802.05637, equation 3, where ``h`` is the sum
    over places of what is positive (BigGAN, appendix B).

    Args:
        channels: Of what it is given.
        classes: Number of classes.
        layers: Makes both maps.
    """

    def __init__(self, channels: int, classes: int, layers: SpectralLayers) -> None:
        super().__init__()
        self.linear = layers.linear(channels, 1)
        self.embedding = layers.embedding(classes, channels)

    def forward(self, x: Images, classes: Classes) -> Float[Tensor, " batch"]:
        """Return the score of each image."""
        h = F.relu(x).sum((2, 3))
        return cast(Tensor, self.linear(h).squeeze(1) + (self.embedding(classes) * h).sum(1))


class DiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one (SAGAN, BigGAN), the first as wide as the output.

    Args:
        inputs: Channels before.
        outputs: Channels after.
        layers: Makes the convolutions.
        halves: Whether height and width are halved.
        first: Whether it takes an image's pixels, which are not rectified before.
    """

    def __init__(
        self, inputs: int, outputs: int, layers: SpectralLayers, *, halves: bool, first: bool
    ) -> None:
        super().__init__()
        self.halves, self.is_first = halves, first
        self.convolutions = nn.ModuleList(
            [layers.convolution(inputs, outputs), layers.convolution(outputs, outputs)]
        )
        changes = halves or inputs != outputs
        self.skip = layers.convolution(inputs, outputs, side=1) if changes else nn.Identity()

    def forward(self, x: Images) -> Float[Tensor, "batch outputs rows columns"]:
        """Return what the next block takes."""
        h = self.convolutions[0](x if self.is_first else F.relu(x))
        h = self.convolutions[1](F.relu(h))
        # A 1x1 convolution and a mean of places may change places: the smaller image is cheaper.
        return cast(Tensor, self._pooled(h) + self.skip(self._pooled(x)))

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halves else x


class Discriminator(nn.Module):
    """Residual blocks, attention after those that leave images of one side, and a projection.

    Args:
        shape: Channels, height and width of images.
        classes: Number of classes.
        widths: Channels that each block leaves.
        halvings: How many blocks, the first ones, halve height and width.
        attention: The side of images after whose first block attention comes, or None.
        layers: Makes all layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        widths: list[int],
        halvings: int,
        attention: int | None,
        layers: SpectralLayers,
    ) -> None:
        super().__init__()
        sides = halved_sides(shape, len(widths), halvings)
        channels = [shape[0], *widths]
        blocks: list[nn.Module] = []
        for i, width in enumerate(widths):
            options: dict[str, Any] = {"halves": i < halvings, "first": i == 0}
            blocks.append(DiscriminatorBlock(channels[i], width, layers, **options))
            if sides[i] == attention and attention not in sides[:i]:
                blocks.append(SelfAttention(width, layers))
        self.blocks = nn.Sequential(*blocks)
        self.head = ProjectionHead(widths[-1], classes, layers)

    def forward(self, x: Images, classes: Classes) -> Float[Tensor, " batch"]:
        """Return the score of each image of pixels in [-1, 1], given its class."""
        x = x.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.head(self.blocks(x), classes))


def halved_sides(shape: tuple[int, ...], blocks: int, halvings: int) -> list[int]:
    """Return the height of images after each block.

    Raises:
        DeclarationError: They cannot be halved so often, or not by so many blocks.
    """
    _, height, width = shape
    if height % 2**halvings or width % 2**halvings or halvings > blocks:
        reason = f"cannot halve images of {height}x{width} {halvings} times in {blocks} blocks"
        raise DeclarationError("the discriminator", reason, "give it another number of halvings")
    return [height >> min(i + 1, halvings) for i in range(blocks)]


def doubled_sides(shape: tuple[int, ...], doublings: int) -> tuple[tuple[int, int], list[int]]:
    """Return height and width where a generator begins, and the height after each doubling.

    Raises:
        DeclarationError: Images of this shape are not reached by so many doublings.
    """
    _, height, width = shape
    if height % 2**doublings or width % 2**doublings:
        reason = f"cannot reach images of {height}x{width} by {doublings} doublings"
        raise DeclarationError("the generator", reason, "give it another number of widths")
    first = height >> doublings, width >> doublings
    return first, [first[0] << (i + 1) for i in range(doublings)]
