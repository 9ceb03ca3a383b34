"""Convolutional encoders and decoders of VQ-VAEs (https://arxiv.org/abs/1711.00937, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """``x + conv1x1(relu(conv3x3(relu(x))))``.

    Args:
        hidden: Channels of ``x``.
        units: Channels of the hidden layer.
    """

    def __init__(self, hidden: int, units: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(hidden, units, 3, padding=1)
        self.outer = nn.Conv2d(units, hidden, 1)

    def forward(
        self, x: Float[Tensor, "batch hidden rows columns"]
    ) -> Float[Tensor, "batch hidden rows columns"]:
        """Return ``x`` and the residual."""
        residual: Tensor = self.outer(F.relu(self.inner(F.relu(x))))
        return x + residual


class Encoder(nn.Sequential):
    """Convolutions 4 x 4 with stride 2, optionally one 3 x 3, and residual units.

    Args:
        inputs: Number of input channels.
        widths: Channels after each strided convolution, one entry for each.
        units: Channels inside residual units.
        layers: Number of residual units.
        smooth: Whether there is a 3 x 3 convolution after the strided ones.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], units: int, layers: int, smooth: bool
    ) -> None:
        modules: list[nn.Module] = []
        for before, after in pairwise([inputs, *widths]):
            modules += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        hidden = widths[-1]
        # Residual units, and the ReLUs that take their place, start with a ReLU themselves.
        modules.pop()
        if smooth:
            modules += [nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1)]
        modules += [ResidualUnit(hidden, units) for _ in range(layers)]
        super().__init__(*modules, nn.ReLU())


class Decoder(nn.Sequential):
    """The reverse of an encoder: 3 x 3, residual units, transposed convolutions 4 x 4, stride 2.

    Args:
        inputs: Number of input channels.
        widths: Channels before each transposed convolution; the first is that of the units.
        units: Channels inside residual units.
        layers: Number of residual units.
        outputs: Number of output channels.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], units: int, layers: int, outputs: int
    ) -> None:
        hidden = widths[0]
        modules: list[nn.Module] = [nn.Conv2d(inputs, hidden, 3, padding=1)]
        modules += [ResidualUnit(hidden, units) for _ in range(layers)]
        for before, after in pairwise([*widths, outputs]):
            modules += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        super().__init__(*modules)


def upsampling(channels: int, doublings: int) -> nn.Sequential:
    """Return transposed convolutions that each double both sides, without nonlinearities."""
    return nn.Sequential(
        *(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1) for _ in range(doublings))
    )
