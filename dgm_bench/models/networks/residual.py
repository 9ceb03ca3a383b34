"""Residual encoders and decoders with weight normalisation (the ResNet VAE of Kingma et al., 2016).

Inverse autoregressive flow is https://arxiv.org/abs/1606.04934, weight normalisation with its start
from data Salimans and Kingma (2016), https://arxiv.org/abs/1602.07868, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

Size = tuple[int, int]

#: Standard deviation of the initial directions (weight normalisation, section 3).
DIRECTION_STD = 0.05
KERNEL = 3


class WeightNormLayer(nn.Module):
    """A layer whose weights of each output are a direction times a learnt length.

    Where :attr:`initialising` is set, a batch sets lengths and biases so that each output has mean
    0 and variance 1 over it.

    Args:
        outputs: Number of outputs.
        shape: Of the weights of one of them.
    """

    def __init__(self, outputs: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.direction = nn.Parameter(DIRECTION_STD * torch.randn(outputs, *shape))
        self.magnitude = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        #: Whether the next batch sets the parameters.
        self.initialising = False

    def weight(self) -> Float[Tensor, "outputs *shape"]:
        """Return the weights."""
        factor: Tensor = self.magnitude / self.direction.flatten(1).norm(dim=1)
        weight: Tensor = self.direction * factor.view(-1, *[1] * (self.direction.ndim - 1))
        return weight

    def linear(self, x: Float[Tensor, "batch *inputs"]) -> Float[Tensor, "batch outputs *size"]:
        """Return what the layer does but for its bias."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch *inputs"]) -> Float[Tensor, "batch outputs *size"]:
        """Return the outputs."""
        if self.initialising:
            self._initialise_on(x)
        y = self.linear(x)
        return y + self.bias.view(-1, *[1] * (y.ndim - 2))

    @torch.no_grad()
    def _initialise_on(self, x: Float[Tensor, "batch *inputs"]) -> None:
        y = self.linear(x).transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(y, dim=1, correction=0)
        scale = 1 / (variance.sqrt() + 1e-6)
        self.magnitude.mul_(scale)
        self.bias.copy_(-mean * scale)


class Dense(WeightNormLayer):
    """A fully connected layer.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, [inputs])

    def linear(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return the product with the weights."""
        return F.linear(x, self.weight())


class Conv(WeightNormLayer):
    """A 3 x 3 convolution, padded with zeros; with stride 2 it halves the size, rounded up.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(outputs, [inputs, KERNEL, KERNEL])
        self.stride = stride

    def linear(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the convolution."""
        return F.conv2d(x, self.weight(), stride=self.stride, padding=KERNEL // 2)


class Deconv(WeightNormLayer):
    """The transpose of a :class:`Conv`.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        stride: Of the convolution.
        size: Height and width of the outputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, size: Size) -> None:
        super().__init__(outputs, [inputs, KERNEL, KERNEL])
        self.stride = stride
        #: Rows and columns that no input reaches: of an odd size there are none.
        self.extra = [(side - 1) % stride for side in size]

    def linear(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the transposed convolution."""
        weight = self.weight().transpose(0, 1)
        return F.conv_transpose2d(
            x, weight, stride=self.stride, padding=KERNEL // 2, output_padding=self.extra
        )


class Residual(nn.Module):
    """``s(x) + g(elu(f(x)))``, where ``s`` is the identity if both sides have one shape.

    Args:
        first: Layer ``f``.
        second: Layer ``g``.
        skip: Layer ``s``, or None for the identity.
    """

    def __init__(self, first: nn.Module, second: nn.Module, skip: nn.Module | None) -> None:
        super().__init__()
        self.first, self.second, self.skip = first, second, skip

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the sum."""
        residual: Tensor = self.second(F.elu(self.first(x)))
        return residual + (x if self.skip is None else self.skip(x))


def halved(size: Size, strides: Sequence[int]) -> list[Size]:
    """Return height and width before and after each of the convolutions."""
    sizes = [size]
    for stride in strides:
        height, width = sizes[-1]
        sizes.append((-(-height // stride), -(-width // stride)))
    return sizes


class ResidualEncoder(nn.Sequential):
    """Residual blocks, each with an ELU after it, and a fully connected layer with one.

    Args:
        image: Channels, height and width of an image.
        channels: Channels of each block.
        strides: Stride of the first convolution of each.
        hidden: Width of the fully connected layer: the number of features.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        channels: Sequence[int],
        strides: Sequence[int],
        hidden: int,
    ) -> None:
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise([image[0], *channels]), strides, strict=True):
            same = inputs == outputs and stride == 1
            skip = None if same else Conv(inputs, outputs, stride)
            layers += [Residual(Conv(inputs, outputs, stride), Conv(outputs, outputs), skip)]
            layers += [nn.ELU()]
        height, width = halved(image[1:], strides)[-1]
        dense = Dense(channels[-1] * height * width, hidden)
        super().__init__(*layers, nn.Flatten(), dense, nn.ELU())


class ResidualDecoder(nn.Sequential):
    """The mirror image of a :class:`ResidualEncoder`, from latent variables to flat logits.

    Args:
        latent: Number of latent variables.
        image: As for the encoder, like all others.
        channels: Channels of each block of the encoder.
        strides: Its strides.
        hidden: Width of the first fully connected layer.
    """

    def __init__(
        self,
        latent: int,
        image: tuple[int, int, int],
        channels: Sequence[int],
        strides: Sequence[int],
        hidden: int,
    ) -> None:
        sizes = halved(image[1:], strides)
        layers: list[nn.Module] = []
        steps = zip(pairwise([image[0], *channels]), strides, sizes, strict=False)
        for (outputs, inputs), stride, size in reversed(list(steps)):
            same = inputs == outputs and stride == 1
            skip = None if same else Deconv(inputs, outputs, stride, size)
            first, second = Conv(inputs, inputs), Deconv(inputs, outputs, stride, size)
            layers += [nn.ELU(), Residual(first, second, skip)]
        start = (channels[-1], *sizes[-1])
        width = channels[-1] * sizes[-1][0] * sizes[-1][1]
        dense = [Dense(latent, hidden), nn.ELU(), Dense(hidden, width)]
        super().__init__(*dense, nn.Unflatten(1, start), *layers, nn.Flatten())
