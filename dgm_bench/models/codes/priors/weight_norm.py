"""Weight-normalised layers that are initialised on data, as those of PixelCNN++.

Salimans and Kingma (2016), https://arxiv.org/abs/1602.07868, with the initialisation of openai/
pixel-cnn (pixel_cnn_pp/nn.py): directions from N(0, 0.05^2), then lengths and biases such that each
output channel has mean 0 and a given deviation over a first batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.codes.priors.causal import convolve
from dgm_bench.models.codes.priors.code_prior import evaluating
from dgm_bench.models.elementwise import elu

#: Channels that vary less over the first batch are constant there, and keep their length.
LEAST_VARIANCE = 1e-4


def concat_elu(x: Float[Tensor, "*grid c"]) -> Float[Tensor, "*grid 2*c"]:
    """Return ELU of the channels and of their negatives (openai/pixel-cnn, nn.py)."""
    return elu(torch.cat([x, -x], -1))


class WeightNormed(nn.Module):
    """Weights ``length * direction / |direction|`` for each output channel, and a bias.

    Args:
        shape: Of the weights, outputs first.
        scale: Deviation of the outputs over the first batch; the length until then.
    """

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.direction = nn.Parameter(0.05 * torch.randn(shape))
        self.length = nn.Parameter(torch.full(shape[:1], scale))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        #: Whether the next batch sets lengths and biases.
        self.initialising = False

    @property
    def weight(self) -> Float[Tensor, "outputs ..."]:
        """The weights."""
        norms: Tensor = torch.linalg.vector_norm(self.direction.flatten(1), dim=1)
        weight: Tensor = self.direction * (self.length / norms).view(
            -1, *[1] * (self.direction.dim() - 1)
        )
        return weight

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*less outputs"]:
        """Return the output; while initialising, set lengths and biases before."""
        if self.initialising:
            self._initialise_on(x)
        return self.linear(x, self.weight, self.bias)

    def linear(
        self, x: Float[Tensor, "*batch inputs"], weight: Tensor, bias: Tensor
    ) -> Float[Tensor, "*less outputs"]:
        """Return the output with these weights."""
        return F.linear(x, weight, bias)

    @torch.no_grad()
    def _initialise_on(self, x: Float[Tensor, "*batch inputs"]) -> None:
        self.length.fill_(1)
        plain = self.linear(x, self.weight, torch.zeros_like(self.bias))
        variance, mean = torch.var_mean(plain.flatten(0, -2), dim=0, correction=0)
        fitted = self.scale * variance.clamp(min=LEAST_VARIANCE).rsqrt()
        varies = variance > LEAST_VARIANCE
        self.length.copy_(torch.where(varies, fitted, torch.full_like(fitted, self.scale)))
        self.bias.copy_(-mean * self.length)


class NormedLinear(WeightNormed):
    """A weight-normalised 1 x 1 convolution, for whole grids and single positions.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        scale: Deviation of the outputs over the first batch.
    """

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__((outputs, inputs), scale)


class ShiftedConv(WeightNormed):
    """A convolution over rows that are not below and, where its width is even, columns to the left.

    Odd widths are centred: with the row itself, these see what is to the right in it.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        kernel: Height and width.
        stride: Step between the positions of the output.
        scale: Deviation of the outputs over the first batch.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__((outputs, inputs, *kernel), scale)
        height, width = kernel
        self.padding = (0, 0, width // 2, (width - 1) // 2, height - 1, 0)
        self.stride = stride

    def linear(
        self, x: Float[Tensor, "n rows columns inputs"], weight: Tensor, bias: Tensor
    ) -> Float[Tensor, "n less_rows less_columns outputs"]:
        """Return the convolution with these weights."""
        return convolve(F.pad(x, self.padding), weight, bias, self.stride)


class ShiftedTransposedConv(WeightNormed):
    """The transposed :class:`ShiftedConv` of height 2 with stride 2: both sides are doubled.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        width: Of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__((outputs, inputs, 2, width))
        self.first = (width - 1) // 2

    def linear(
        self, x: Float[Tensor, "n rows columns inputs"], weight: Tensor, bias: Tensor
    ) -> Float[Tensor, "n more_rows more_columns outputs"]:
        """Return the transposed convolution with these weights."""
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), weight.transpose(0, 1), bias, stride=2)
        return y.permute(0, 2, 3, 1)[:, :, self.first : self.first + 2 * x.shape[2]]


@contextmanager
def initialising(module: nn.Module) -> Iterator[None]:
    """Let the next pass set lengths and biases of all layers, without dropout."""
    layers = [layer for layer in module.modules() if isinstance(layer, WeightNormed)]
    with evaluating(module):
        for layer in layers:
            layer.initialising = True
        try:
            yield
        finally:
            for layer in layers:
                layer.initialising = False
