"""Latent variable models: an encoder, a posterior, a prior and a decoder (variational inference).

The bound of one draw ``z ~ q(z|x)`` is ``log p(x|z) + log p(z) - log q(z|x)``; its mean is the
ELBO (Kingma and Welling, https://arxiv.org/abs/1312.6114, equation 2). As in the
Sylvester and FFJORD codes no term is integrated in closed form, so that any posterior can be
combined with any prior.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import Draws
from dgm_bench.models.flows.flow import BaseDensity
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior
from dgm_bench.models.latent.priors import AggregatedPosterior, PosteriorDependentPrior

#: Latent variables decoded together without gradients: larger batches of maps are slower.
DECODED_AT_ONCE = 100


@runtime_checkable
class Posterior(Protocol):
    """``q(z|x)``, given the encoder's features of ``x``."""

    def __call__(
        self, features: Float[Tensor, "batch features"], samples: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch {samples} latent"], Float[Tensor, "batch {samples}"]]:
        """Return draws and the log density of each in nats."""
        ...


class LatentVariableModel(nn.Module):
    """Encoder, posterior, prior and decoder.

    Under autocast encoder and decoder compute in lower precision; densities never do.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables.
        encoder: From examples to features.
        posterior: From features to draws; see :class:`Posterior`.
        prior: Has ``log_prob`` and ``sample`` on flat latent variables.
        decoder: From flat latent variables to the logits or parameters of :meth:`likelihood`.

    Raises:
        DeclarationError: The prior is a mixture of posteriors that are not Gaussian.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: int,
        encoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        decoder: nn.Module,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent = tuple(event_shape), latent
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.decoder = decoder
        if isinstance(prior, PosteriorDependentPrior):
            self.require_gaussian(f"prior {type(prior).__name__}")

    def likelihood(self, outputs: Float[Tensor, "n *outputs"]) -> Distribution:
        """Return ``p(x|z)`` over flat examples from the decoder's outputs."""
        raise NotImplementedError

    def draw(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Draws:
        """Return ``samples`` draws for each example, which is encoded once."""
        features = self.encode(x)
        with torch.autocast(x.device.type, enabled=False):
            z, log_posterior = cast(Posterior, self.posterior)(features, samples, generator)
            log_prior = self.density.log_prob(z.flatten(0, 1)).view(z.shape[:2])
        outputs = self._decoded(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        log_likelihood: Tensor = self.likelihood(outputs).log_prob(x.flatten(1)[:, None])
        return Draws(z, log_likelihood, log_prior, log_posterior)

    def encode(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch features"]:
        """Return the features of examples, in their own precision."""
        features: Tensor = self.encoder(x)
        return features.to(x.dtype)

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return one draw of the evidence lower bound of each example in nats."""
        return self.draw(x, 1, generator).log_weight.squeeze(1)

    def decode(self, z: Float[Tensor, "n {self.latent}"]) -> Distribution:
        """Return ``p(x|z)`` of flat examples."""
        return self.likelihood(self._decoded(z))

    def _decoded(self, z: Float[Tensor, "n {self.latent}"]) -> Float[Tensor, "n *outputs"]:
        """Return the decoder's outputs; without gradients, its inner maps stay in the cache."""
        if torch.is_grad_enabled() or len(z) <= DECODED_AT_ONCE:
            outputs: Tensor = self.decoder(z)
            return outputs.to(z.dtype)
        return torch.cat([self.decoder(part).to(z.dtype) for part in z.split(DECODED_AT_ONCE)])

    @property
    def density(self) -> BaseDensity:
        """The prior, typed as a density."""
        if isinstance(self.prior, PosteriorDependentPrior):
            return self.prior.with_posterior(self.posterior_moments)
        return cast(BaseDensity, self.prior)

    def posterior_moments(
        self, x: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "n latent"], Float[Tensor, "n latent"]]:
        """Return mean and variance of ``q(z|x)`` where it is a diagonal Gaussian.

        Raises:
            DeclarationError: It is not a Gaussian.
        """
        features = self.encode(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.require_gaussian("the density of a posterior").moments(features)

    def calibrate(self, x: Float[Tensor, "n *event"], batch_size: int = 1_000) -> None:
        """Set an aggregated posterior prior from the training set."""
        if isinstance(self.prior, AggregatedPosterior):
            self.prior.calibrate(x, self.posterior_moments, batch_size)

    def require_gaussian(self, thing: str) -> GaussianPosterior:
        """Return the posterior, for ``thing`` that needs a diagonal Gaussian.

        Raises:
            DeclarationError: It is not a Gaussian.
        """
        posterior = self.posterior
        if not isinstance(posterior, GaussianPosterior) or posterior.flow is not None:
            raise DeclarationError(thing, "needs a Gaussian posterior", "use posterior 'no-flow'")
        return posterior

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return the means of ``p(x|z)`` for ``n`` draws ``z`` from the prior."""
        means: Tensor = self.decode(self.density.sample(n, generator)).mean
        return means.reshape(-1, *self.event_shape)
