"""Convolutional right-hand sides of continuous flows on images, and traces of their Jacobians.

As in :mod:`dgm_bench.models.continuous.dynamics`: at a fixed time each layer is affine, so that a
tangent passes through the same convolutions, without their biases, times the derivatives of the
nonlinearity. Nothing is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models.continuous.activations import value_and_slope
from dgm_bench.models.elementwise import softplus

# Largest number of elements of one layer's tangents, for the memory of the exact trace.
MAX_TANGENT_ELEMENTS = 2**24


class ConcatConv(nn.Module):
    """A convolution with the time concatenated as the first channel, of constant value.

    All channels are padded with zeros, so that the time contributes less at the border (released
    FFJORD code, ``diffeq_layers/basic.py``, ``ConcatConv2d``).

    Args:
        inputs: Number of input channels without the time.
        outputs: Number of output channels.
        stride: 1 keeps the size, 2 halves it, -2 doubles it by a transposed convolution; the
            kernel is 3 wide, or 4 where the size changes (``odefunc.py``, ``ODEnet``).

    Raises:
        DeclarationError: Another stride.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        require_choice("stride", stride, (1, 2, -2))
        kind = nn.ConvTranspose2d if stride < 0 else nn.Conv2d
        self.conv = kind(1 + inputs, outputs, 3 if stride == 1 else 4, abs(stride), padding=1)
        self.transposed = stride < 0

    def linear(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs higher wider"]:
        """Return the part that is linear in ``x``, the same at any time."""
        return self._convolve(x, self._weights()[1])

    def constant(
        self, t: Float[Tensor, ""], height: int, width: int
    ) -> Float[Tensor, "1 outputs higher wider"]:
        """Return the contribution of the time, and the bias."""
        times = t.expand(1, 1, height, width)
        return self._convolve(times, self._weights()[0], self.conv.bias)

    def forward(
        self, t: Float[Tensor, ""], x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs higher wider"]:
        """Return the convolution of time and ``x``."""
        return self.linear(x) + self.constant(t, x.shape[2], x.shape[3])

    def _weights(self) -> tuple[Float[Tensor, "_ _ size size"], Float[Tensor, "_ _ size size"]]:
        """Return the weights of the time's channel and of the others."""
        axis = 0 if self.transposed else 1
        of_time, others = self.conv.weight.split([1, self.conv.in_channels - 1], axis)
        return of_time, others

    def _convolve(
        self,
        x: Float[Tensor, "batch inputs height width"],
        weight: Float[Tensor, "_ _ size size"],
        bias: Float[Tensor, " outputs"] | None = None,
    ) -> Float[Tensor, "batch {self.conv.out_channels} higher wider"]:
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, weight, bias, self.conv.stride, padding=1)


class LinearisedConv(NamedTuple):
    """A convolutional network's output at a point, and its Jacobian there.

    Attributes:
        value: The output, of shape ``(batch, channels, height, width)``.
        layers: The layers, first one first.
        slopes: Derivatives of the nonlinearity after each layer but the last.
    """

    value: Float[Tensor, "batch channels height width"]
    layers: tuple[ConcatConv, ...]
    slopes: list[Float[Tensor, "batch _channels _height _width"]]

    def jvp(
        self, v: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``J v``, in one pass through the layers."""
        for layer, slope in zip(self.layers[:-1], self.slopes, strict=True):
            v = layer.linear(v) * slope
        return self.layers[-1].linear(v)

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``Tr J`` from the tangents of all dimensions: for tests and tiny images."""
        batch, *shape = self.value.shape
        dim = self.value[0].numel()
        chunk = max(1, MAX_TANGENT_ELEMENTS // max(slope.numel() for slope in self.slopes))
        units = torch.eye(dim, dtype=self.value.dtype, device=self.value.device)
        parts = [self._diagonal(part.view(-1, *shape), batch) for part in units.split(chunk)]
        return torch.stack(parts).sum(0)

    def _diagonal(self, units: Float[Tensor, "k *shape"], batch: int) -> Float[Tensor, " batch"]:
        """Return the sum of the Jacobian's diagonal over the dimensions of some unit vectors."""
        k = len(units)
        v = units[:, None].expand(k, batch, *units.shape[1:]).flatten(0, 1)
        repeated = [slope.repeat(k, 1, 1, 1) for slope in self.slopes]
        tangent = self._replace(slopes=repeated).jvp(v)
        return (tangent * v).flatten(1).sum(1).view(k, batch).sum(0)


class ConvDynamics(nn.Module):
    """``f(t, z)``: convolutions with a softplus after each but the last.

    Args:
        channels: Channels of the image.
        filters: Channels of the hidden layers.
        strides: Stride of each layer, the last one too; all 1 if None.
    """

    def __init__(
        self,
        channels: int,
        filters: Sequence[int],
        strides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not filters:
            raise DeclarationError("filters", "no hidden layer", "give at least one width")
        widths = [channels, *filters, channels]
        strides = strides or [1] * (len(widths) - 1)
        pairs = zip(widths[:-1], widths[1:], strides, strict=True)
        self.layers = nn.ModuleList(ConcatConv(i, o, stride) for i, o, stride in pairs)

    def forward(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``dz/dt``."""
        *inner, last = self._convolutions
        for layer in inner:
            z = softplus(layer(t, z))
        dz: Tensor = last(t, z)
        return dz

    def linearise(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch channels height width"]
    ) -> LinearisedConv:
        """Return ``dz/dt`` and its Jacobian in ``z``."""
        *inner, last = self._convolutions
        slopes = []
        for layer in inner:
            before = layer(t, z)
            z, slope = value_and_slope(before, "softplus")
            slopes.append(slope)
        return LinearisedConv(last(t, z), self._convolutions, slopes)

    @property
    def _convolutions(self) -> tuple[ConcatConv, ...]:
        return cast(tuple[ConcatConv, ...], tuple(self.layers))
