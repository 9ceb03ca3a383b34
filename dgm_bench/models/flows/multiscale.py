"""Layers that flows on images share: logit, squeezing and factoring out (Real NVP, section 3.6).

The paper is https://arxiv.org/abs/1605.08803.

Every layer has ``forward_and_log_det`` and ``inverse``. Between ``ToImage`` and ``Flatten`` the
examples are images of shape (channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import HasInverse
from dgm_bench.models.flows.flow import pass_back, pass_forward

#: Channels, height and width.
ImageShape = tuple[int, int, int]


def image_shape_of(event_shape: Sequence[int], image_shape: Sequence[int] | None) -> ImageShape:
    """Return (channels, height, width) of one example.

    Args:
        event_shape: Shape of one example as the data set gives it.
        image_shape: The same numbers arranged as an image, for examples that come flat.

    Raises:
        DeclarationError: If that is not an image of as many numbers.
    """
    shape = tuple(event_shape if image_shape is None else image_shape)
    if len(shape) != 3 or math.prod(shape) != math.prod(event_shape):
        raise DeclarationError(
            f"image_shape {list(shape)}",
            f"an example has shape {list(event_shape)}",
            "give [channels, height, width] of one example",
        )
    return shape


def halvings(shape: ImageShape) -> int:
    """Return how many times both height and width can be halved."""
    _, height, width = shape
    times = 0
    while height % 2 == 0 and width % 2 == 0:
        height, width, times = height // 2, width // 2, times + 1
    return times


def squeezed(shape: ImageShape) -> ImageShape:
    """Return the shape of an image of ``shape`` after ``Squeeze``."""
    channels, height, width = shape
    return 4 * channels, height // 2, width // 2


def halved(shape: ImageShape) -> ImageShape:
    """Return ``shape`` with half of its channels: the others are factored out."""
    channels, height, width = shape
    return channels // 2, height, width


class Reshaping(nn.Module):
    """Base of the layers between vectors and images.

    Args:
        shape: Channels, height and width.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return str(self.shape)


class ToImage(Reshaping):
    """Vectors to images: the first layer of a flow on images."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[
        Float[Tensor, "batch {self.shape[0]} {self.shape[1]} {self.shape[2]}"],
        Float[Tensor, " batch"],
    ]:
        """Return ``(u, log|det du/dx|)``; the log-determinant is 0."""
        return x.reshape(-1, *self.shape), x.new_zeros(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels*height*width"]:
        """Return ``x``."""
        return u.flatten(1)


class Flatten(Reshaping):
    """Images to vectors: the last layer of a flow on images."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels*height*width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the log-determinant is 0."""
        return x.flatten(1), x.new_zeros(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        return u.reshape(-1, *self.shape)


class Logit(nn.Module):
    """``y = logit(s)``, ``s = alpha + (1 - 2 alpha) x``, x in [0, 1) (Real NVP, section 4.1).

    Args:
        alpha: Least distance of ``s`` from 0 and from 1.

    Raises:
        DeclarationError: If ``alpha`` is not in [0, 1/2).
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise DeclarationError(
                f"alpha {alpha}", "alpha + (1 - 2 alpha) x does not grow", "use 0 <= alpha < 0.5"
            )
        self.alpha = alpha

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return ``(y, log|det dy/dx|)``."""
        s = self.alpha + (1 - 2 * self.alpha) * x
        # 1 - s from 1 - x, which is exact: log1p(-s) would lose all digits where s is nearly 1.
        log_s, log_rest = s.log(), (self.alpha + (1 - 2 * self.alpha) * (1 - x)).log()
        dim = x[0].numel()
        log_det = dim * math.log(1 - 2 * self.alpha) - (log_s + log_rest).flatten(1).sum(1)
        return log_s - log_rest, log_det

    def inverse(self, u: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """Return ``x``."""
        return (u.sigmoid() - self.alpha) / (1 - 2 * self.alpha)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"alpha={self.alpha}"


class Squeeze(nn.Module):
    """Each 2 x 2 square of a channel becomes four channels (Real NVP, section 3.6).

    Channel ``4 c + 2 i + j`` holds row ``i``, column ``j`` of the squares of channel ``c``.
    """

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch 4*channels height//2 width//2"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the log-determinant is 0."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels//4 2*height 2*width"]:
        """Return ``x``."""
        return F.pixel_shuffle(u, 2)


class Chain(nn.Module):
    """Layers one after the other, as one layer.

    Args:
        layers: The layers in the order in which data passes.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @property
    def transforms(self) -> tuple[HasInverse, ...]:
        """The layers, typed as invertible maps."""
        return cast(tuple[HasInverse, ...], tuple(self.layers))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch *changed"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        return pass_forward(self.transforms, x)

    def inverse(self, u: Float[Tensor, "batch *changed"]) -> Float[Tensor, "batch *shape"]:
        """Return ``x``."""
        return pass_back(self.transforms, u)


@runtime_checkable
class ConditionalLayer(Protocol):
    """A layer that depends on a second image."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *shape"], context: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        ...

    def inverse(
        self, u: Float[Tensor, "batch *shape"], context: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch *shape"]:
        """Return ``x``."""
        ...


class FactorOut(nn.Module):
    """Factors out half of the channels; the other half goes on (Real NVP, section 3.6).

    The first half of the channels passes ``inner``, which ends in vectors; the result is those
    vectors followed by the half that was factored out. ``inner`` may end in another ``FactorOut``.

    Args:
        shape: Channels, height and width of the input.
        inner: Layers for the half that goes on; the last one returns vectors.
        prior: Layer for the factored out half, given the half that goes on: the learned prior of
            Glow, as a layer so that the base stays a standard normal. None for the identity.

    Raises:
        DeclarationError: If the number of channels is odd.
    """

    def __init__(
        self, shape: ImageShape, inner: Sequence[nn.Module], prior: nn.Module | None = None
    ) -> None:
        super().__init__()
        if shape[0] % 2:
            raise DeclarationError(
                f"factoring out of {shape[0]} channels", "the number is odd", "squeeze first"
            )
        self.shape = halved(shape)
        self.inner = Chain(inner)
        self.prior = prior

    @property
    def conditional(self) -> ConditionalLayer | None:
        """The prior, typed as a conditional layer."""
        return cast(ConditionalLayer | None, self.prior)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels*height*width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        continuing, factored_out = x.chunk(2, 1)
        u, log_det = self.inner.forward_and_log_det(continuing)
        if self.conditional is not None:
            factored_out, change = self.conditional.forward_and_log_det(factored_out, continuing)
            log_det = log_det + change
        return torch.cat([u, factored_out.flatten(1)], dim=1), log_det

    def inverse(
        self, u: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        inner_u, factored_out_u = u.chunk(2, 1)
        continuing, factored_out = (
            self.inner.inverse(inner_u),
            factored_out_u.reshape(-1, *self.shape),
        )
        if self.conditional is not None:
            factored_out = self.conditional.inverse(factored_out, continuing)
        return torch.cat([continuing, factored_out], dim=1)
