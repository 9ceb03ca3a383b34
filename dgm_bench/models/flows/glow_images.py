"""Glow for images (https://arxiv.org/abs/1807.03039), as openai/glow trains it on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.actnorm import ActNorm, ActNormConv, EdgeMap, ZeroConv
from dgm_bench.models.flows.multiscale import (
    FactorOut,
    Flatten,
    ImageShape,
    Squeeze,
    ToImage,
    halved,
    halvings,
    image_shape_of,
    squeezed,
)


class Centre(nn.Module):
    """``u = x - 1/2``: pixels in [0, 1) around zero (released code, model.py, ``preprocess``)."""

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the log-determinant is 0."""
        return x - 0.5, x.new_zeros(x.shape[0])

    def inverse(self, u: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """Return ``x``."""
        return u + 0.5


class InvertibleConv(nn.Module):
    """``u = W x`` at every pixel, ``W`` a random rotation at first (Glow, section 3.2).

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels)))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``u`` alone."""
        return F.conv2d(x, self.weight[:, :, None, None])

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)`` (Glow, Table 1)."""
        log_det = x[0, 0].numel() * log_abs_det(self.weight)
        return self(x), log_det.expand(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        inverse = torch.linalg.inv(self.weight.double()).to(u.dtype)
        return F.conv2d(u, inverse[:, :, None, None])


class AffineCoupling(nn.Module):
    """The second half of the channels: ``(x + t) sigmoid(s + 2)``, ``s, t`` from the first half.

    Glow, section 3.3; sigmoid, shift before scale, and the network of 3 x 3, 1 x 1 and 3 x 3
    convolutions with actnorm: released code, model.py, ``revnet2d_step`` and ``f``.

    Args:
        channels: Number of channels, even.
        width: Channels of both hidden layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            ActNormConv(channels // 2, width, size=3),
            nn.ReLU(inplace=True),
            ActNormConv(width, width, size=1),
            nn.ReLU(inplace=True),
            ZeroConv(width, channels),
        )

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        kept, transformed = x.chunk(2, 1)
        shift, log_scale = self._shift_and_log_scale(kept)
        transformed = (transformed + shift) * log_scale.exp()
        return torch.cat([kept, transformed], dim=1), log_scale.sum((1, 2, 3))

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        kept, transformed = u.chunk(2, 1)
        shift, log_scale = self._shift_and_log_scale(kept)
        return torch.cat([kept, transformed * (-log_scale).exp() - shift], dim=1)

    def _shift_and_log_scale(
        self, kept: Float[Tensor, "batch half height width"]
    ) -> tuple[Float[Tensor, "batch half height width"], Float[Tensor, "batch half height width"]]:
        shift, unbounded = self.network(kept).chunk(2, 1)
        return shift, F.logsigmoid(unbounded + 2)


class Step(nn.Module):
    """One step of flow: actnorm, invertible convolution, coupling (Glow, Figure 2a).

    Args:
        channels: Number of channels, even.
        width: Channels of the coupling's hidden layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.mixing = InvertibleConv(channels)
        self.coupling = AffineCoupling(channels, width)


class Level(nn.Module):
    """Steps of flow at one resolution (Glow, Figure 2b).

    Args:
        channels: Number of channels, even.
        depth: Number of steps.
        width: Channels of the couplings' hidden layers.
    """

    def __init__(self, channels: int, depth: int, width: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Step(channels, width) for _ in range(depth))

    @property
    def ordered(self) -> list[Step]:
        """The steps in the order in which data passes."""
        return [cast(Step, step) for step in self.steps]

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        # One factorisation of all matrices: alone, each is far too small to fill a GPU.
        weights = torch.stack([step.mixing.weight for step in self.ordered])
        log_det = x[0, 0].numel() * log_abs_det(weights).sum()
        for step in self.ordered:
            x, normed = step.norm.forward_and_log_det(x)
            x, coupled = step.coupling.forward_and_log_det(step.mixing(x))
            log_det = log_det + normed + coupled
        return x, log_det

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        for step in reversed(self.ordered):
            u = step.norm.inverse(step.mixing.inverse(step.coupling.inverse(u)))
        return u


class SplitPrior(nn.Module):
    """The factored out half is normal given the other half (model.py, ``split2d_prior``).

    Args:
        channels: Channels of either half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = ZeroConv(channels, 2 * channels)

    def forward_and_log_det(
        self,
        x: Float[Tensor, "batch channels height width"],
        context: Float[Tensor, "batch channels height width"],
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return the standardised ``x`` and the log-determinant."""
        mean, log_scale = self._mean_and_log_scale(context)
        return (x - mean) * (-log_scale).exp(), -log_scale.sum((1, 2, 3))

    def inverse(
        self,
        u: Float[Tensor, "batch channels height width"],
        context: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        mean, log_scale = self._mean_and_log_scale(context)
        return u * log_scale.exp() + mean

    def _mean_and_log_scale(
        self, context: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], ...]:
        parameters: Tensor = self.network(context)
        return parameters.chunk(2, 1)


class TopPrior(nn.Module):
    """The learned normal of the last level, as a layer (model.py, ``prior`` with ``learntop``).

    The released code convolves an image of zeros, so its weights for that image have no effect
    and are left out here: 9 (2 channels)^2 numbers.

    Args:
        shape: Channels, height and width.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        channels, height, width = shape
        self.network = EdgeMap(2 * channels, height, width)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return the standardised ``x`` and the log-determinant."""
        mean, log_scale = self._mean_and_log_scale()
        return (x - mean) * (-log_scale).exp(), -log_scale.sum().expand(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        mean, log_scale = self._mean_and_log_scale()
        return u * log_scale.exp() + mean

    def _mean_and_log_scale(self) -> tuple[Float[Tensor, "1 channels height width"], ...]:
        parameters: Tensor = self.network()
        return parameters.chunk(2, 1)


class Glow(Flow):
    """Glow with affine couplings and invertible 1 x 1 convolutions, for pixels in [0, 1).

    The defaults are those of CIFAR-10 (openai/glow README and train.py).

    Kingma and Dhariwal (2018), https://arxiv.org/abs/1807.03039, section 3.

    Args:
        event_shape: Shape of one example.
        levels: Number of levels, at most; an odd height or width is not squeezed further.
        depth: Steps of flow at each level.
        width: Channels of the couplings' hidden layers.
        image_shape: [channels, height, width], if examples come flat.

    Raises:
        DeclarationError: If the image cannot be squeezed even once.

    Example:
        >>> model = Glow((3, 8, 8), levels=2, depth=1, width=4)
        >>> images = torch.rand(16, 3, 8, 8)
        >>> model.initialise(images)
        >>> model.log_prob(images).shape
        torch.Size([16])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        levels: Count = 3,
        depth: Count = 32,
        width: Count = 512,
        image_shape: Sequence[Count] | None = None,
    ) -> None:
        shape = image_shape_of(event_shape, image_shape)
        levels = min(levels, halvings(shape))
        if levels < 1:
            raise DeclarationError(
                f"Glow on images of {shape[1]} x {shape[2]}",
                "it begins by halving height and width",
                "use images of even height and width, and at least one level",
            )
        super().__init__(
            event_shape, [ToImage(shape), Centre(), *_levels(shape, levels, depth, width)]
        )

    #: The released code's ``n_batch_init``.
    initial_examples: int | None = 256

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "batch *event"]) -> None:
        """Set every actnorm such that its outputs for ``x`` have mean 0 and variance 1.

        Glow, section 3.1; the released code does so with 256 training images.
        """
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        for norm in norms:
            norm.initialising = True
        try:
            self.log_prob(x)
        finally:
            for norm in norms:
                norm.initialising = False


def log_abs_det(
    weight: Float[Tensor, "*stack channels channels"],
) -> Float[Tensor, "*stack"]:
    """Return ``log|det W|``, in double precision as the released code has it."""
    log_det: Tensor = torch.linalg.slogdet(weight.double()).logabsdet
    return log_det.to(weight.dtype)


def _levels(shape: ImageShape, levels: int, depth: int, width: int) -> list[nn.Module]:
    """Return the layers for images of ``shape``, which end in vectors (Glow, Figure 2b)."""
    shape = squeezed(shape)
    layers: list[nn.Module] = [Squeeze(), Level(shape[0], depth, width)]
    if levels == 1:
        return [*layers, TopPrior(shape), Flatten(shape)]
    continuing = halved(shape)
    inner = _levels(continuing, levels - 1, depth, width)
    return [*layers, FactorOut(shape, inner, SplitPrior(continuing[0]))]
