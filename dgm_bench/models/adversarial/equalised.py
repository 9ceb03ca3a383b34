"""Layers of progressive growing GANs and StyleGAN: equalised rates, norms and resampling.

Karras et al. (2018), https://arxiv.org/abs/1710.10196, sections 3 and 4, and Karras et al. (2019),
https://arxiv.org/abs/1812.04948. What the papers leave open is as in the authors' code
(tkarras/progressive_growing_of_gans, networks.py; NVlabs/stylegan, networks_stylegan.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models import whole_batch

#: Slope of the leaky ReLUs, and the gain of the weights before one (He et al., 2015).
SLOPE, GAIN = 0.2, math.sqrt(2)
#: Added to means of squares, and to variances, before their roots are taken.
EPS = 1e-8


def leaky(x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
    """Return ``x`` where it is positive, and a fifth of it elsewhere."""
    return F.leaky_relu(x, SLOPE)


class Equalised(nn.Module):
    """Weights that begin as standard normal noise and are scaled where they are used.

    The scale is He's constant, ``gain / sqrt(inputs)``, so that all weights have the same dynamic
    range, and so, with Adam, learn equally fast (section 4.1 of the first paper).

    Args:
        shape: Of the weights: outputs, then what one output sums over.
        gain: Wanted standard deviation of outputs, for inputs of unit variance.
        rate: Factor of the learning rate; what is stored is larger by as much.
    """

    def __init__(self, shape: tuple[int, ...], gain: float = GAIN, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / rate)
        self.scale = gain / math.sqrt(math.prod(shape[1:])) * rate

    def scaled(self) -> Tensor:
        """Return the weights as they are applied."""
        return self.weight * self.scale


class EqualisedLinear(Equalised):
    """A linear layer with an equalised learning rate.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        gain: Of the weights.
        rate: Factor of the learning rate.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN, rate: float = 1.0) -> None:
        super().__init__((outputs, inputs), gain, rate)
        self.bias, self.rate = nn.Parameter(torch.zeros(outputs)), rate

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs."""
        return F.linear(x, self.scaled(), self.bias * self.rate)


class EqualisedConv(Equalised):
    """A convolution of odd size, padded with zeros, with an equalised learning rate.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Height and width of the kernel.
        gain: Of the weights.
    """

    def __init__(self, inputs: int, outputs: int, size: int, gain: float = GAIN) -> None:
        super().__init__((outputs, inputs, size, size), gain)
        self.bias, self.padding = nn.Parameter(torch.zeros(outputs)), size // 2

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the convolution."""
        return F.conv2d(x, self.scaled(), self.bias, padding=self.padding)


# ----------------------------------------------------------------------------- norms


def pixel_norm(x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch channels *grid"]:
    """Return features over the root mean of their squares at each pixel (section 4.2)."""
    scale: Tensor = (x.square().mean(1, keepdim=True) + EPS).rsqrt()
    return x * scale


def instance_norm(
    x: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Return each channel of each image with mean 0 and variance 1 over its pixels."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) * (variance + EPS).rsqrt()


class MinibatchDeviation(nn.Module):
    """Appends a map that tells the discriminator how much the images of a batch differ.

    It holds the standard deviation over images, averaged over channels and pixels (section 3).

    Args:
        group: Images over which a deviation is taken, with a map for each such group; None for
            all, as in the paper. Of ``n`` images every ``n / group``-th is of the same group.
    """

    def __init__(self, group: int | None = None) -> None:
        super().__init__()
        self.group = group

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels_and_one rows columns"]:
        """Return ``x`` and the map.

        Raises:
            DeclarationError: A batch is not of whole groups, or is divided and has groups.
        """
        deviation = (self._variance(x) + EPS).sqrt().flatten(1).mean(1)
        rows = deviation.repeat(len(x) // len(deviation)).view(-1, 1, 1, 1)
        return torch.cat([x, rows.expand(-1, 1, *x.shape[2:])], 1)

    def _variance(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "groups channels rows columns"]:
        if self.group is None or (self.group >= len(x) and not whole_batch.is_shared()):
            return whole_batch.var_mean(x, [0])[0][None]
        if whole_batch.is_shared() or len(x) % self.group:
            reason = f"are not taken of {len(x)} images, or of a divided batch"
            remedy = f"use batches of a multiple of {self.group} images, undivided"
            raise DeclarationError(f"deviations of {self.group} images", reason, remedy)
        return x.view(self.group, -1, *x.shape[1:]).var(0, correction=0)


# ----------------------------------------------------------------------------- resampling


def doubled(
    x: Float[Tensor, "batch channels rows columns"], times: int = 1
) -> Float[Tensor, "batch channels new_rows new_columns"]:
    """Return images of twice the resolution, so many times, of the nearest pixels."""
    larger: Tensor = F.interpolate(x, scale_factor=2**times) if times else x
    return larger


def halved(
    x: Float[Tensor, "batch channels rows columns"], times: int = 1
) -> Float[Tensor, "batch channels new_rows new_columns"]:
    """Return images of half the resolution, so many times: means of two by two pixels."""
    smaller: Tensor = F.avg_pool2d(x, 2**times) if times else x
    return smaller


def blurred(
    x: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Return images filtered with binomial weights (1, 2, 1) along rows and columns.

    Beside :func:`doubled` and :func:`halved` that is bilinear resampling (StyleGAN, section 2).
    """
    taps = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])
