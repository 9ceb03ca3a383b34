"""Gated layers, and encoders and decoders of such layers.

A gated layer is ``h(x) * sigmoid(g(x))`` without further nonlinearity or normalisation. ``h`` and
``g`` are the two halves of one layer of twice the width, which start as two separate layers would.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

Size = tuple[int, int]


class Gated(nn.Module):
    """A layer whose outputs, along dimension 1, are values followed by their gates.

    Args:
        layer: A layer with twice as many outputs.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: Float[Tensor, "batch inputs *size"]
    ) -> Float[Tensor, "batch outputs *resized"]:
        """Return values times the sigmoid of their gates."""
        # In the order in which channels-last memory lies: along dimension 1, torch's gradient of a
        # gated linear unit copies such maps.
        gated: Tensor = F.glu(self.layer(x).movedim(1, -1), dim=-1).movedim(-1, 1)
        return gated


def gated_conv(inputs: int, outputs: int, kernel: int | Size, stride: int, padding: int) -> Gated:
    """Return a gated convolution."""
    return Gated(nn.Conv2d(inputs, 2 * outputs, kernel, stride, padding))


def gated_deconv(inputs: int, outputs: int, kernel: int | Size, stride: int, padding: int) -> Gated:
    """Return a gated transposed convolution; of stride 2, it doubles the size exactly."""
    layer = nn.ConvTranspose2d(
        inputs, 2 * outputs, kernel, stride, padding, output_padding=stride - 1
    )
    # torch takes the fan-in of a transposed convolution from its outputs: here twice those of a
    # half, whose bounds would be too small by this factor.
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(math.sqrt(2))
    return Gated(layer)


def gated_dense(inputs: int, outputs: int) -> Gated:
    """Return a gated fully connected layer."""
    return Gated(nn.Linear(inputs, 2 * outputs))


class DenseEncoder(nn.Sequential):
    """Two gated layers, from flattened examples to features.

    Args:
        dim: Dimensions of an example.
        hidden: Width of both layers: the number of features.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Flatten(), gated_dense(dim, hidden), gated_dense(hidden, hidden))


class DenseDecoder(nn.Sequential):
    """Two gated layers and a linear one, from latent variables to flat logits.

    Args:
        latent: Number of latent variables.
        hidden: Width of both layers.
        dim: Dimensions of an example.
    """

    def __init__(self, latent: int, hidden: int, dim: int) -> None:
        super().__init__(
            gated_dense(latent, hidden), gated_dense(hidden, hidden), nn.Linear(hidden, dim)
        )


class ConvEncoder(nn.Module):
    """Six gated convolutions to 256 features (Sylvester code, ``models/VAE.py``).

    Args:
        channels: Channels of an image.
        size: Height and width of an image; multiples of 4.
    """

    features = 256

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            gated_conv(channels, 32, 5, 1, 2),
            gated_conv(32, 32, 5, 2, 2),
            gated_conv(32, 64, 5, 1, 2),
            gated_conv(64, 64, 5, 2, 2),
            gated_conv(64, 64, 5, 1, 2),
            gated_conv(64, self.features, (size[0] // 4, size[1] // 4), 1, 0),
        ).to(memory_format=torch.channels_last)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Return the features."""
        features: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return features.flatten(1)


class ConvDecoder(nn.Module):
    """Six gated transposed convolutions, then convolutions to logits (``models/VAE.py``).

    Args:
        latent: Number of latent variables.
        channels: Channels of an image.
        size: Height and width of an image; multiples of 4.
        levels: Levels of a pixel, each with a logit; None for binary pixels, which have one logit.
            With levels, a 5x5 convolution to 256 maps precedes the last one.
    """

    def __init__(self, latent: int, channels: int, size: Size, levels: int | None) -> None:
        super().__init__()
        last: list[nn.Module] = [nn.Conv2d(32, channels, 1)]
        if levels is not None:
            last = [nn.Conv2d(32, 256, 5, 1, 2), nn.Conv2d(256, channels * levels, 1)]
        self.layers = nn.Sequential(
            gated_deconv(latent, 64, (size[0] // 4, size[1] // 4), 1, 0),
            gated_deconv(64, 64, 5, 1, 2),
            gated_deconv(64, 32, 5, 2, 2),
            gated_deconv(32, 32, 5, 1, 2),
            gated_deconv(32, 32, 5, 2, 2),
            gated_deconv(32, 32, 5, 1, 2),
            *last,
        ).to(memory_format=torch.channels_last)
        self.channels, self.levels = channels, levels

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch dim *levels"]:
        """Return flat logits: ``(batch, dim)``, or with levels ``(batch, dim, levels)``."""
        logits: Tensor = self.layers(z[:, :, None, None])
        if self.levels is None:
            return logits.flatten(1)
        # No copy with one channel: in channels-last order the levels of a pixel are contiguous.
        by_channel: Tensor = logits.unflatten(1, (self.channels, self.levels)).movedim(2, -1)
        return by_channel.flatten(1, 3)
