"""The variational autoencoder with residual networks of the IAF, VLAE and Real NVP prior papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.latent.gated_vae import PosteriorArgs, PriorArgs, require_solver
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.models.latent.likelihoods import BinaryPixels
from dgm_bench.models.latent.posteriors import build_posterior
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior
from dgm_bench.models.latent.priors import DensityByVariable, build_prior
from dgm_bench.models.networks.residual import ResidualDecoder, ResidualEncoder


class ResNetVAE(LatentVariableModel):
    """Residual blocks with weight normalisation and ELU, for binary images.

    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016),
    https://arxiv.org/abs/1606.04934, section 6.1; the same with an autoregressive prior in Chen et
    al. (2017), https://arxiv.org/abs/1611.02731, section 4.1 and appendix A, and with a coupling
    flow as the prior in Xu et al. (2019), https://arxiv.org/abs/1905.13452.

    Args:
        event_shape: Channels, height and width.
        latent: Number of latent variables; 64 in Chen et al., 40 in Xu et al.
        channels: Channels of each residual block of the encoder; the decoder mirrors it.
        strides: Stride of each, 1 or 2.
        hidden: Width of the fully connected layer of both networks.
        posterior: Name of the posterior; see :mod:`dgm_bench.models.latent.posteriors`.
        posterior_args: Arguments of the posterior's flow.
        prior: Name of the prior; see :mod:`dgm_bench.models.latent.priors`.
        prior_args: Arguments of the prior.

    Raises:
        DeclarationError: Examples are no images, there is not one stride for each block, or the
            posterior or prior is not known or not served.

    Example:
        >>> model = ResNetVAE((1, 7, 7), latent=4, channels=[4, 8], strides=[2, 2], hidden=8)
        >>> x, generator = torch.ones(5, 1, 7, 7), torch.Generator().manual_seed(0)
        >>> model.elbo(x, generator).shape
        torch.Size([5])
        >>> model.sample(3, generator).shape
        torch.Size([3, 1, 7, 7])
    """

    initial_examples: int | None = 256

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 64,
        channels: Sequence[Count] = (16, 16, 32, 32, 32),
        strides: Sequence[Count] = (2, 1, 2, 1, 2),
        hidden: Count = 450,
        posterior: str = "no-flow",
        posterior_args: PosteriorArgs = None,
        prior: str = "standard",
        prior_args: PriorArgs = None,
    ) -> None:
        require_solver(self, posterior)
        _require_blocks(event_shape, channels, strides)
        image = cast(tuple[int, int, int], tuple(event_shape))
        super().__init__(
            event_shape,
            latent,
            ResidualEncoder(image, channels, strides, hidden),
            build_posterior(posterior, hidden, latent, posterior_args or {}),
            build_prior(prior, latent, prior_args or {}, event_shape),
            ResidualDecoder(latent, image, channels, strides, hidden),
        )

    def likelihood(self, outputs: Float[Tensor, "n *outputs"]) -> Distribution:
        """Return independent binary pixels with these logits."""
        return BinaryPixels(outputs)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n *event"]) -> None:
        """Set the lengths and biases of weight normalisation, and actnorms, from examples."""
        starting = [module for module in self.modules() if hasattr(module, "initialising")]
        for module in starting:
            module.initialising = True  # type: ignore[assignment]
        noise = torch.Generator(x.device).manual_seed(0)
        z, _ = cast(GaussianPosterior, self.posterior)(self.encode(x), 1, noise)
        self.density.log_prob(z.squeeze(1))
        self.decoder(z.squeeze(1))
        for module in starting:
            module.initialising = False  # type: ignore[assignment]

    def draw_by_variable(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch {self.latent}"]]:
        """Return ``log p(x|z)`` of a draw, and what each variable adds to its divergence, in nats.

        The sum over the variables is ``log q(z|x) - log p(z)`` (IAF paper, appendix C.8).

        Raises:
            DeclarationError: Posterior or prior is not a product of one factor for each variable.
        """
        prior = self.require_factors()
        features = self.encode(x)
        with torch.autocast(x.device.type, enabled=False):
            posterior = cast(GaussianPosterior, self.posterior)
            z, log_q = posterior.draw_by_variable(features, generator)
            divergence = log_q - prior.log_prob_by_variable(z)
        log_likelihood: Tensor = self.decode(z).log_prob(x.flatten(1))
        return log_likelihood, divergence

    def require_factors(self) -> DensityByVariable:
        """Return the prior, where both it and the posterior have a factor for each variable.

        Raises:
            DeclarationError: One of them has not.
        """
        remedy = "use posterior 'no-flow' or 'iaf' with prior 'standard' or 'maf-shift'"
        cast(GaussianPosterior, self.posterior).require_factors(remedy)
        if not isinstance(self.prior, DensityByVariable):
            thing = f"prior {type(self.prior).__name__}"
            raise DeclarationError(thing, "has no factor for each variable", remedy)
        return self.prior


def _require_blocks(
    event_shape: Sequence[int], channels: Sequence[int], strides: Sequence[int]
) -> None:
    if len(event_shape) != 3:
        reason = f"examples of shape {tuple(event_shape)} are no images"
        raise DeclarationError("resnet_vae:ResNetVAE", reason, "use gated_vae:DenseVAE")
    if not channels or len(channels) != len(strides):
        reason = f"{len(channels)} blocks have {len(strides)} strides"
        raise DeclarationError("strides", reason, "give one for each entry of channels")
    if max(strides) > 2:
        raise DeclarationError("strides", f"{max(strides)} is more than 2", "use 1 or 2")
