"""Adversarial variational Bayes (https://arxiv.org/abs/1701.04722).

The posterior ``q(z|x)`` is implicit: a network maps an example and noise to ``z``, and its density
is not known. A discriminator is trained to tell its draws from those of a contrast ``r(z|x)``; at
its optimum its log-odds are ``log q(z|x) - log r(z|x)`` (proposition 1), the term of the ELBO that
cannot be evaluated. The contrast is the prior, or a Gaussian with the posterior's mean and variance
(adaptive contrast).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import StandardNormal
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel, Posterior
from dgm_bench.models.latent.likelihoods import BinaryPixels
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior, Latents
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.normal import gaussian_log_density
from dgm_bench.models.whole_batch import normal_

Likelihood = Literal["bernoulli", "gaussian"]
#: From examples concatenated with latent variables to log-odds.
Discriminator = Callable[[Float[Tensor, "n inputs"]], Float[Tensor, "n 1"]]
#: Smallest standard deviation of a contrast: the posterior may collapse to a point.
MIN_SCALE = 1e-4


class Decoder(nn.Module):
    """A fully connected network from latent variables to the parameters of ``p(x|z)``.

    Args:
        latent: Number of latent variables.
        hidden: Widths of the hidden layers.
        dim: Dimensions of an example.
        likelihood: ``bernoulli`` has logits; ``gaussian`` has means, and standard deviations that
            are learnt and do not depend on ``z``.
    """

    def __init__(
        self, latent: int, hidden: Sequence[int], dim: int, likelihood: Likelihood
    ) -> None:
        super().__init__()
        self.network = fully_connected([latent, *hidden, dim], nn.SiLU)
        self.log_scale = nn.Parameter(torch.zeros(dim)) if likelihood == "gaussian" else None

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n outputs"]:
        """Return logits, or means followed by log standard deviations."""
        outputs: Tensor = self.network(z)
        if self.log_scale is None:
            return outputs
        return torch.cat([outputs, self.log_scale.expand_as(outputs)], 1)

    def likelihood(self, outputs: Float[Tensor, "*n outputs"]) -> Distribution:
        """Return ``p(x|z)`` over flat examples."""
        if self.log_scale is None:
            return BinaryPixels(outputs)
        mean, log_scale = outputs.chunk(2, -1)
        return Independent(Normal(mean, log_scale.exp(), validate_args=False), 1)


class ImplicitPosterior(nn.Module):
    """An implicit posterior: a network of features and normal noise, of unknown density.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        noise: Number of noise variables.
        hidden: Width of its hidden layer.
    """

    def __init__(self, features: int, latent: int, noise: int, hidden: int) -> None:
        super().__init__()
        self.noise = noise
        self.network = fully_connected([features + noise, hidden, latent], nn.SiLU)

    def forward(
        self, features: Float[Tensor, "batch features"], samples: int, generator: torch.Generator
    ) -> Float[Tensor, "batch {samples} latent"]:
        """Return draws (the paper's figure 2)."""
        noise = normal_(features.new_empty(len(features), samples, self.noise), generator)
        repeated = features[:, None].expand(-1, samples, -1)
        z: Tensor = self.network(torch.cat([repeated, noise], -1))
        return z


@dataclass(frozen=True)
class Contrast:
    """A diagonal Gaussian ``r(z|x)`` for each example, which the discriminator compares with.

    Attributes:
        location: Its mean.
        scale: Its standard deviation.
    """

    location: Float[Tensor, "batch latent"]
    scale: Float[Tensor, "batch latent"]

    def standardise(self, z: Latents) -> Latents:
        """Return ``z`` standardised: standard normal for draws from the contrast."""
        return (z - self.location[:, None]) / self.scale[:, None]

    def log_prob(self, z: Latents) -> Float[Tensor, "batch samples"]:
        """Return ``log r(z|x)`` in nats."""
        return gaussian_log_density(self.standardise(z)) - self.scale.log().sum(1)[:, None]


class AVB(nn.Module):
    """Encoder, posterior, decoder and discriminator, all fully connected; a standard normal prior.

    Mescheder, Nowozin and Geiger (2017), https://arxiv.org/abs/1701.04722, sections 3 and 4.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables.
        hidden: Widths of the hidden layers of the encoder, and of the decoder.
        likelihood: ``bernoulli`` for binary examples, ``gaussian`` for others.
        posterior: ``implicit``, or ``gaussian``: a diagonal Gaussian, whose density is known but
            not used.
        noise: Noise variables of the implicit posterior.
        discriminator_hidden: Widths of the hidden layers of the discriminator.
        contrast_draws: Number of draws for the moments of the adaptive contrast; None for the
            prior as contrast.

    Example:
        >>> model = AVB((4,), latent=2, hidden=[8])
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> z, log_posterior = model.draw_posterior(x, 3, generator)
        >>> z.shape, log_posterior  # the density of the draws is not known
        (torch.Size([5, 3, 2]), None)
        >>> model.log_ratio(x, z, model.contrast(x, generator)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 2,
        hidden: Sequence[Count] = (64, 64),
        likelihood: Likelihood = "bernoulli",
        posterior: Literal["implicit", "gaussian"] = "implicit",
        noise: Count = 4,
        discriminator_hidden: Sequence[Count] = (128, 128),
        contrast_draws: Count | None = None,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = tuple(event_shape), latent
        self.contrast_draws = contrast_draws
        dim, features = math.prod(event_shape), hidden[-1]
        self.encoder = _encoder(dim, hidden)
        self.posterior: nn.Module = (
            ImplicitPosterior(features, latent, noise, features)
            if posterior == "implicit"
            else GaussianPosterior(features, latent)
        )
        self.decoder = Decoder(latent, hidden, dim, likelihood)
        #: From flat examples concatenated with standardised latent variables to log-odds.
        self.discriminator = fully_connected([dim + latent, *discriminator_hidden, 1], nn.SiLU)

    @property
    def has_density(self) -> bool:
        """Whether the density of the posterior is known; training does not use it."""
        return not isinstance(self.posterior, ImplicitPosterior)

    def draw_posterior(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> tuple[
        Float[Tensor, "batch {samples} {self.latent}"], Float[Tensor, "batch {samples}"] | None
    ]:
        """Return draws from ``q(z|x)``, and the log density of each in nats where it is known."""
        features = self.encoder(x.flatten(1))
        if not self.has_density:
            return self.posterior(features, samples, generator), None
        return cast(Posterior, self.posterior)(features, samples, generator)

    def decode(self, z: Float[Tensor, "n {self.latent}"]) -> Distribution:
        """Return ``p(x|z)`` of flat examples."""
        outputs: Tensor = self.decoder(z)
        return self.decoder.likelihood(outputs)

    def log_prior(self, z: Latents) -> Float[Tensor, "batch samples"]:
        """Return ``log p(z)`` in nats."""
        return gaussian_log_density(z)

    @torch.no_grad()
    def contrast(self, x: Float[Tensor, "batch *event"], generator: torch.Generator) -> Contrast:
        """Return the prior, or Gaussians with estimates of the posterior's moments.

        No gradient passes through it, as the ELBO does not depend on the contrast.
        """
        if self.contrast_draws is None:
            like = x.new_zeros(len(x), self.latent)
            return Contrast(like, torch.ones_like(like))
        z, _ = self.draw_posterior(x, self.contrast_draws, generator)
        return Contrast(z.mean(1), z.std(1).clamp(min=MIN_SCALE))

    def log_odds(
        self,
        x: Float[Tensor, "batch *event"],
        standardised: Latents,
        discriminator: Discriminator | None = None,
    ) -> Float[Tensor, "batch samples"]:
        """Return the log-odds that latent variables are the posterior's, not the contrast's.

        Args:
            x: Examples.
            standardised: Latent variables as :meth:`Contrast.standardise` gives them.
            discriminator: In the place of the model's own.
        """
        repeated = x.flatten(1)[:, None].expand(-1, standardised.shape[1], -1)
        pairs = torch.cat([repeated, standardised], -1)
        log_odds: Tensor = (discriminator or self.discriminator)(pairs.flatten(0, 1))
        return log_odds.view(standardised.shape[:2])

    def log_ratio(
        self,
        x: Float[Tensor, "batch *event"],
        z: Latents,
        contrast: Contrast,
        discriminator: Discriminator | None = None,
    ) -> Float[Tensor, "batch samples"]:
        """Return the estimate of ``log q(z|x) - log p(z)`` in nats."""
        odds = self.log_odds(x, contrast.standardise(z), discriminator)
        return odds + contrast.log_prob(z) - self.log_prior(z)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return the means of ``p(x|z)`` for ``n`` draws ``z`` from the prior."""
        z = normal_(next(self.parameters()).new_empty(n, self.latent), generator)
        means: Tensor = self.decode(z).mean
        return means.reshape(-1, *self.event_shape)


class VAE(LatentVariableModel):
    """The encoder, the Gaussian posterior and the decoder of :class:`AVB`, with no discriminator.

    Kingma and Welling (2013), https://arxiv.org/abs/1312.6114; what Mescheder et al. (2017),
    https://arxiv.org/abs/1701.04722, compare with.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables.
        hidden: Widths of the hidden layers of the encoder, and of the decoder.
        likelihood: ``bernoulli`` for binary examples, ``gaussian`` for others.

    Example:
        >>> model = VAE((4,), latent=2, hidden=[8])
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> model.elbo(x, generator).shape
        torch.Size([5])
        >>> model.sample(3, generator).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 2,
        hidden: Sequence[Count] = (64, 64),
        likelihood: Likelihood = "bernoulli",
    ) -> None:
        dim = math.prod(event_shape)
        super().__init__(
            event_shape,
            latent,
            nn.Sequential(nn.Flatten(), _encoder(dim, hidden)),
            GaussianPosterior(hidden[-1], latent),
            StandardNormal(latent),
            Decoder(latent, hidden, dim, likelihood),
        )

    def likelihood(self, outputs: Float[Tensor, "n *outputs"]) -> Distribution:
        """Return ``p(x|z)`` over flat examples."""
        return cast(Decoder, self.decoder).likelihood(outputs)


def _encoder(dim: int, hidden: Sequence[int]) -> nn.Sequential:
    """Return a network to features, with a nonlinearity after its last layer."""
    return nn.Sequential(fully_connected([dim, *hidden], nn.SiLU), nn.SiLU())
