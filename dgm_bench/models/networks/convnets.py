"""Residual convolutional networks with weight and batch normalisation (Real NVP, section 4.1).

The paper is https://arxiv.org/abs/1605.08803.

Settings that the paper leaves open are those of the authors' released code
(tensorflow/models, research/real_nvp: real_nvp_multiscale_dataset.py and real_nvp_utils.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models import whole_batch


class WeightNormConv(nn.Module):
    """A convolution whose weights have norm 1 for each output, or a learned norm.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Height and width of the kernel, odd.
        learn_norm: Whether the norms are learned; they have no effect if batch normalisation
            follows.
        bias: Whether a bias is added; it too has no effect if batch normalisation follows.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, learn_norm: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        bound = math.sqrt(2 / inputs)
        self.direction = nn.Parameter(
            torch.empty(outputs, inputs, size, size).uniform_(-bound, bound)
        )
        norm = torch.full((outputs,), math.sqrt(size**2 / 6))
        self.magnitude = nn.Parameter(norm) if learn_norm else None
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.padding = size // 2

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the convolution of ``x``, padded with zeros."""
        factor = 1 / self.direction.flatten(1).norm(dim=1)
        if self.magnitude is not None:
            factor = self.magnitude * factor
        weight = self.direction * factor.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class RunningMoments(nn.Module):
    """Running averages of mean and variance of each channel: what batch normalisations keep.

    Args:
        channels: Number of channels.
        momentum: Weight of a batch in the running averages that evaluation uses.
        eps: Added to the variance.
    """

    mean: Float[Tensor, " channels"]
    variance: Float[Tensor, " channels"]

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-4) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))


class CentredBatchNorm(RunningMoments):
    """Batch normalisation with a learned mean and without a learned scale.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the normalised ``x``."""
        if self.training and whole_batch.is_shared():
            return self._normalised(x)
        return F.batch_norm(
            x, self.mean, self.variance, None, self.bias, self.training, self.momentum, self.eps
        )

    def _normalised(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return what torch's own would of the whole batch, of which ``x`` is a slice."""
        axes = [0, 2, 3]
        variance, mean = whole_batch.var_mean(x, axes)
        n = whole_batch.count(x, axes)
        self.mean.lerp_(mean.detach(), self.momentum)
        self.variance.lerp_(variance.detach() * n / (n - 1), self.momentum)
        scale = (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift.view(-1, 1, 1), x, scale.view(-1, 1, 1))


class ResidualBlock(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))`` with 3 x 3 convolutions.

    Args:
        features: Number of channels.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            CentredBatchNorm(features),
            nn.ReLU(inplace=True),
            WeightNormConv(features, features, size=3, learn_norm=False),
            CentredBatchNorm(features),
            nn.ReLU(inplace=True),
            WeightNormConv(features, features, size=3),
        )

    def forward(
        self, x: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features height width"]:
        """Return ``x`` and the residual."""
        residual: Tensor = self.residual(x)
        return x + residual


class ResidualNetwork(nn.Module):
    """A convolution and residual blocks, each with a skip connection to the output.

    Args:
        inputs: Number of input channels.
        features: Channels of the residual blocks.
        outputs: Number of output channels.
        blocks: Number of residual blocks.
    """

    def __init__(self, inputs: int, features: int, outputs: int, blocks: int) -> None:
        super().__init__()
        first = WeightNormConv(inputs, features, size=3, learn_norm=False)
        self.stages = nn.ModuleList([first, *(ResidualBlock(features) for _ in range(blocks))])
        self.skips = nn.ModuleList(WeightNormConv(features, features, size=1) for _ in self.stages)
        self.out = nn.Sequential(
            CentredBatchNorm(features),
            nn.ReLU(inplace=True),
            WeightNormConv(features, outputs, size=1, bias=True),
        )

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the outputs at each pixel."""
        skipped: list[Tensor] = []
        for stage, skip in zip(self.stages, self.skips, strict=True):
            x = stage(x)
            skipped.append(skip(x))
        total = skipped[0]
        for term in skipped[1:]:
            total = total + term
        outputs: Tensor = self.out(total)
        return outputs
