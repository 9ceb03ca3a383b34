"""Batch normalisation whose gains and biases depend on a condition."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.models.adversarial.layers import SpectralLayers
from dgm_bench.models.whole_batch import count, is_shared, var_mean

Images = Float[Tensor, "batch channels height width"]


class WholeBatchNorm(nn.BatchNorm2d):
    """Torch's own without gain and bias, whose statistics are those of the whole batch.

    Args:
        channels: Of the images.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, x: Images) -> Images:
        """Return ``x`` with channels of mean 0 and variance 1."""
        if not (self.training and is_shared()):
            return super().forward(x)
        variance, mean = var_mean(x, (0, 2, 3))
        self._take_in(mean.detach(), variance.detach(), count(x, (0, 2, 3)))
        centred = x - mean[:, None, None]
        return centred * (variance + self.eps).rsqrt()[:, None, None]

    @torch.no_grad()
    def _take_in(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Update the statistics that evaluation uses, as torch does."""
        self.num_batches_tracked += 1
        weight = self.momentum or 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * n / (n - 1), weight)


class AffineBatchNorm(nn.Module):
    """Batch normalisation with a gain and a bias of each channel.

    Args:
        channels: Of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalise = WholeBatchNorm(channels)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Images) -> Images:
        """Return ``x`` with channels of this bias and gain as mean and deviation."""
        gain, bias = self.gain[:, None, None], self.bias[:, None, None]
        return torch.addcmul(bias, self.normalise(x), gain)


class ClassBatchNorm(nn.Module):
    """Batch normalisation with a gain and a bias of each channel and class (SAGAN, section 4).

    Dumoulin et al. (2017), https://arxiv.org/abs/1610.07629, equation 5.

    Args:
        channels: Of the images.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.normalise = WholeBatchNorm(channels)
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Images, classes: Int[Tensor, " batch"]) -> Images:
        """Return ``x`` normalised, with gains and biases of the classes."""
        gain, bias = self.gain(classes), self.bias(classes)
        return torch.addcmul(bias[:, :, None, None], self.normalise(x), gain[:, :, None, None])


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with gains, centred at 1, and biases that are linear in a condition.

    BigGAN (https://arxiv.org/abs/1809.11096), section 3 and appendix B.

    Args:
        channels: Of the images.
        condition: Width of the condition: embedded class and noise.
        layers: Makes both maps, which have no biases.
    """

    def __init__(self, channels: int, condition: int, layers: SpectralLayers) -> None:
        super().__init__()
        self.normalise = WholeBatchNorm(channels)
        self.gain = layers.linear(condition, channels, bias=False)
        self.bias = layers.linear(condition, channels, bias=False)

    def forward(self, x: Images, condition: Float[Tensor, "batch numbers"]) -> Images:
        """Return ``x`` normalised, with gains and biases of the conditions."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[:, :, None, None], self.normalise(x), gain[:, :, None, None])


def upsampled(x: Images, twice: bool = True) -> Float[Tensor, "batch channels rows columns"]:
    """Return images with every pixel four times, or as they are."""
    return F.interpolate(x, scale_factor=2.0) if twice else x
