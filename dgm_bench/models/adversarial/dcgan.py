"""DCGAN (Radford, Metz and Chintala, 2016, https://arxiv.org/abs/1511.06434)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.adversarial.image_game import ImageGame, Images
from dgm_bench.models.whole_batch import uniform_

#: Side of the smallest feature map, and standard deviation of initial weights (section 4).
SMALLEST, INITIAL_SD = 4, 0.02


class DCGAN(ImageGame):
    """Strided convolutions in both players, with batch normalisation, and no classes.

    Radford et al. (2016), https://arxiv.org/abs/1511.06434, section 3 and figure 1; convolutions of
    4 by 4 as in the authors' Torch code. Noise is uniform in [-1, 1].

    Args:
        event_shape: Channels, height and width, which are 4 times the same power of 2.
        latent: Number of noise variables.
        width: Channels at half the image's size; each halving of it doubles them.

    Raises:
        DeclarationError: Images have another shape.

    Example:
        >>> game = DCGAN((1, 8, 8), latent=3, width=4)
        >>> game.draw_images(torch.arange(2), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, event_shape: tuple[int, ...], latent: Count = 100, width: Count = 128
    ) -> None:
        super().__init__(event_shape, latent, None)
        channels, side, other = self.event_shape
        doublings = side.bit_length() - 3
        if side != other or side != SMALLEST * 2**doublings or doublings < 1:
            reason = f"cannot have images of {side} by {other}"
            raise DeclarationError("DCGAN", reason, "use images of 8, 16, 32 or 64 by as many")
        widths = [width * 2**k for k in range(doublings)]
        self.generator = DCGenerator(channels, latent, widths)
        self.discriminator = DCDiscriminator(channels, widths)
        for module in self.modules():
            _initialise(module)

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {self.latent}"]:
        """Return noise for ``n`` images, uniform in [-1, 1]."""
        return 2 * uniform_(self._empty(n), generator) - 1

    def truncated_noise(
        self, n: int, truncation: float, generator: torch.Generator
    ) -> Float[Tensor, "{n} {self.latent}"]:
        """Return noise given that no number is beyond ``truncation``."""
        return min(truncation, 1.0) * self.draw_noise(n, generator)


class DCGenerator(nn.Module):
    """From noise to images.

    Args:
        channels: Of the images.
        latent: Number of noise variables.
        widths: Channels of the feature maps, the largest map first.
    """

    def __init__(self, channels: int, latent: int, widths: list[int]) -> None:
        super().__init__()
        self.project = nn.Linear(latent, widths[-1] * SMALLEST**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[-1]), nn.ReLU()]
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        last = nn.ConvTranspose2d(widths[0], channels, 4, stride=2, padding=1)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"] | None = None
    ) -> Images:
        """Return images in [-1, 1]; there are no classes."""
        images: Tensor = self.layers(self.project(z).unflatten(1, (-1, SMALLEST, SMALLEST)))
        return images


class DCDiscriminator(nn.Module):
    """From images to log-odds of being data.

    Args:
        channels: Of the images.
        widths: Channels of the feature maps, the largest map first.
    """

    def __init__(self, channels: int, widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)]
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
            ]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.score = nn.Linear(widths[-1] * SMALLEST**2, 1)

    def forward(
        self, x: Images, classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return log-odds; there are no classes."""
        logits: Tensor = self.score(self.layers(x).flatten(1))
        return logits.squeeze(1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL_SD)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, INITIAL_SD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
