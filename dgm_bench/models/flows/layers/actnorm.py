"""Activation normalisation, and the convolutions of Glow's networks (Glow, section 3.1).

The paper is https://arxiv.org/abs/1807.03039.

The released code stores logarithms of scales divided by 3 (tfops.py, ``logscale_factor``), so that
they learn three times as fast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

_FACTOR = 3.0


class ActNorm(nn.Module):
    """``u = (x + b) exp(3 logs)`` for each channel (Glow, Table 1 and section 3.1).

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.logs = nn.Parameter(torch.zeros(channels))
        #: Whether the next batch sets the parameters.
        self.initialising = False

    @property
    def log_scale(self) -> Float[Tensor, " channels"]:
        """Logarithm of the scale of each channel."""
        return _FACTOR * self.logs

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        self.initialise_on(x)
        log_scale = self.log_scale
        scale = log_scale.exp()
        u = torch.addcmul(per_channel(self.bias * scale), x, per_channel(scale))
        return u, (x[0, 0].numel() * log_scale.sum()).expand(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        return u * per_channel((-self.log_scale).exp()) - per_channel(self.bias)

    @torch.no_grad()
    def initialise_on(self, x: Float[Tensor, "batch channels height width"]) -> None:
        """When initialising, set the parameters so that ``x`` gets mean 0 and variance 1."""
        if self.initialising:
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            self.bias.copy_(-mean)
            self.logs.copy_(-(variance.sqrt() + 1e-6).log() / _FACTOR)


class VectorActNorm(ActNorm):
    """:class:`ActNorm` of flat vectors, for each dimension.

    Args:
        dim: Number of dimensions.
    """

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        u, log_det = super().forward_and_log_det(x[:, :, None, None])
        return u.flatten(1), log_det

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return super().inverse(u[:, :, None, None]).flatten(1)


class EdgeConv(nn.Module):
    """A convolution with edge padding, its channels then shifted and scaled.

    The released code gives every 3 x 3 convolution one more input channel, which is 1 in the
    padding and 0 inside (tfops.py, ``add_edge_padding``). That channel's contribution is the same
    for all examples, so it is computed separately; the scale is multiplied into the weights.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Height and width of the kernel, odd.
        std: Standard deviation of the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, size: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(_normal_weights(std, outputs, inputs, size, size))
        self.edge = nn.Parameter(_normal_weights(std, outputs, 1, size, size)) if size > 1 else None

    def convolve(
        self,
        x: Float[Tensor, "batch inputs height width"],
        bias: Float[Tensor, " outputs"],
        log_scale: Float[Tensor, " outputs"],
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return ``(weight * x + bias) exp(log_scale)``."""
        scale = log_scale.exp()
        weight, bias = self.weight * scale.view(-1, 1, 1, 1), bias * scale
        if self.edge is None:
            return F.conv2d(x, weight, bias)
        edge = self.edge * scale.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, padding=edge.shape[-1] // 2) + edge_response(
            edge, bias, x.shape[2:]
        )


class ActNormConv(EdgeConv):
    """A convolution followed by actnorm, weights from N(0, 0.05^2) (tfops.py, ``conv2d``).

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Height and width of the kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, std=0.05)
        self.norm = ActNorm(outputs)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the normalised convolution of ``x``."""
        if self.norm.initialising:
            zeros = torch.zeros_like(self.norm.bias)
            self.norm.initialise_on(self.convolve(x, zeros, zeros))
        return self.convolve(x, self.norm.bias, self.norm.log_scale)


class ZeroConv(EdgeConv):
    """A 3 x 3 convolution that starts as zero, times ``exp(3 logs)`` (tfops.py, ``conv2d_zeros``).

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, size=3, std=0.0)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the scaled convolution of ``x``."""
        return self.convolve(x, self.bias, _FACTOR * self.logs)


class EdgeMap(nn.Module):
    """The output of ``ZeroConv`` for an image of zeros, which depends on the position alone.

    Args:
        outputs: Number of output channels.
        height: Height of the image.
        width: Width of the image.
    """

    def __init__(self, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.size = torch.Size([height, width])
        self.edge = nn.Parameter(torch.zeros(outputs, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))

    def forward(self) -> Float[Tensor, "1 outputs height width"]:
        """Return the map."""
        scale = (_FACTOR * self.logs).exp()
        return edge_response(self.edge * scale.view(-1, 1, 1, 1), self.bias * scale, self.size)


def edge_response(
    kernel: Float[Tensor, "outputs 1 rows columns"],
    bias: Float[Tensor, " outputs"],
    size: torch.Size,
) -> Float[Tensor, "1 outputs height width"]:
    """Return the response to a channel that is 1 in the padding and 0 inside, plus ``bias``."""
    padding = kernel.shape[-1] // 2
    inside = kernel.new_zeros(1, 1, *size)
    return F.conv2d(F.pad(inside, [padding] * 4, value=1.0), kernel, bias)


def per_channel(values: Float[Tensor, " channels"]) -> Float[Tensor, "channels 1 1"]:
    """Return one value for each channel, of a shape that broadcasts over images."""
    return values.view(-1, 1, 1)


def _normal_weights(std: float, *shape: int) -> Float[Tensor, "..."]:
    return torch.randn(shape) * std if std else torch.zeros(shape)
