"""Generative adversarial networks (Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.whole_batch import normal_


class GAN(nn.Module):
    """A fully connected generator and discriminator.

    Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661, section 3.

    Args:
        event_shape: Shape of one example.
        latent: Number of noise variables.
        hidden: Widths of the hidden layers of the generator, and of the discriminator.

    Example:
        >>> model = GAN((4,), latent=2, hidden=[8])
        >>> x = model.sample(5, torch.Generator().manual_seed(0))
        >>> x.shape, model.discriminator(x).shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    #: Neither player is told of classes.
    classes: int | None = None

    def __init__(
        self, event_shape: tuple[int, ...], latent: Count = 2, hidden: Sequence[Count] = (64, 64)
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = tuple(event_shape), latent
        dim = math.prod(event_shape)
        layers = fully_connected([latent, *hidden, dim], nn.ReLU)
        self.generator = _Generator(*layers, nn.Unflatten(1, self.event_shape))
        #: From examples to log-odds of being data.
        self.discriminator = _Discriminator(
            *fully_connected([dim, *hidden, 1], partial(nn.LeakyReLU, 0.2))
        )

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {self.latent}"]:
        """Return standard normal noise for ``n`` examples."""
        return normal_(next(self.parameters()).new_empty(n, self.latent), generator)

    def examples_and_classes(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], None]:
        """Return the examples as they are: there are no classes."""
        return x, None

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples."""
        x: Tensor = self.generator(self.draw_noise(n, generator))
        return x


class _Generator(nn.Sequential):
    """From noise to examples."""

    def forward(
        self, z: Float[Tensor, "batch latent"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        x: Tensor = super().forward(z)  # type: ignore[no-untyped-call]
        return x


class _Discriminator(nn.Sequential):
    """From examples to log-odds."""

    def forward(
        self, x: Float[Tensor, "batch *event"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        logits: Tensor = super().forward(x.flatten(1))  # type: ignore[no-untyped-call]
        return logits.squeeze(1)
