"""Generative adversarial networks (Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
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
        >>> x.shape, model.discriminate(x).shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self, event_shape: tuple[int, ...], latent: Count = 2, hidden: Sequence[Count] = (64, 64)
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = tuple(event_shape), latent
        dim = math.prod(event_shape)
        self.generator = fully_connected([latent, *hidden, dim], nn.ReLU)
        #: From flat examples to log-odds of being data.
        self.discriminator = fully_connected([dim, *hidden, 1], partial(nn.LeakyReLU, 0.2))

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {self.latent}"]:
        """Return standard normal noise for ``n`` examples."""
        return normal_(next(self.parameters()).new_empty(n, self.latent), generator)

    def generate(self, z: Float[Tensor, "batch {self.latent}"]) -> Float[Tensor, "batch *event"]:
        """Return the examples that the generator maps noise ``z`` to."""
        x: Tensor = self.generator(z)
        return x.reshape(-1, *self.event_shape)

    def discriminate(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return log-odds that each example is data, not generated."""
        logits: Tensor = self.discriminator(x.flatten(1))
        return logits.squeeze(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples."""
        return self.generate(self.draw_noise(n, generator))
