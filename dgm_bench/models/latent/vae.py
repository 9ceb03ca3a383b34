"""Variational autoencoders (Kingma and Welling, 2013, https://arxiv.org/abs/1312.6114)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dgm_bench.annotations import Count
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.whole_batch import normal_


class GaussianVAE(nn.Module):
    """A fully connected VAE with Gaussian encoder and decoder (the paper's appendix C.2).

    Both networks have means and log standard deviations as outputs; the prior is standard normal.

    Kingma and Welling (2013), https://arxiv.org/abs/1312.6114, section 3 and appendix C.2.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables.
        hidden: Widths of the hidden layers of the encoder, and of the decoder.

    Example:
        >>> model = GaussianVAE((4,), latent=2, hidden=[8])
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> model.elbo(x, generator).shape
        torch.Size([5])
        >>> model.sample(3, generator).shape
        torch.Size([3, 4])
    """

    def __init__(
        self, event_shape: tuple[int, ...], latent: Count = 2, hidden: Sequence[Count] = (64, 64)
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = tuple(event_shape), latent
        dim = math.prod(event_shape)
        self.encoder = fully_connected([dim, *hidden, 2 * latent], nn.Tanh)
        self.decoder = fully_connected([latent, *hidden, 2 * dim], nn.Tanh)

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return one draw of the lower bound of ``log p(x)`` in nats (the paper's equation 10)."""
        mean, log_scale = self.encoder(x.flatten(1)).chunk(2, dim=1)
        noise = normal_(torch.empty_like(mean), generator)
        log_likelihood: Tensor = self.decode(mean + log_scale.exp() * noise).log_prob(x.flatten(1))
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale
        bound: Tensor = log_likelihood - kl.sum(1)
        return bound

    def decode(self, z: Float[Tensor, "batch {self.latent}"]) -> Distribution:
        """Return ``p(x | z)`` of flat examples."""
        mean, log_scale = self.decoder(z).chunk(2, dim=1)
        return Independent(Normal(mean, log_scale.exp(), validate_args=False), 1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples: latent variables from the prior, then one pass of the decoder."""
        like = next(self.parameters())
        z = normal_(like.new_empty(n, self.latent), generator)
        mean, log_scale = self.decoder(z).chunk(2, dim=1)
        noise = normal_(torch.empty_like(mean), generator)
        x: Tensor = mean + log_scale.exp() * noise
        return x.reshape(-1, *self.event_shape)
