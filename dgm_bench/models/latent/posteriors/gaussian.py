"""The diagonal Gaussian posterior, alone or as the base of a flow."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.elementwise import softplus
from dgm_bench.models.normal import LOG_2PI, gaussian_log_density
from dgm_bench.models.whole_batch import normal_

Latents = Float[Tensor, "batch samples latent"]


@runtime_checkable
class AmortisedFlow(Protocol):
    """An invertible map of latent variables whose parameters may depend on the example."""

    def __call__(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and ``log|det dz'/dz|``."""
        ...


@runtime_checkable
class FactorisedFlow(Protocol):
    """An amortised flow whose log-determinant is a sum of one term for each variable."""

    def transform_by_variable(
        self, z: Latents, features: Float[Tensor, "batch features"]
    ) -> tuple[Latents, Latents]:
        """Return the transformed latent variables and the terms of ``log|det dz'/dz|``."""
        ...


class GaussianPosterior(nn.Module):
    """``q(z|x)``: a diagonal Gaussian whose mean and variance are linear in the features.

    The variance is a softplus (Sylvester code, ``models/VAE.py``). A flow, if there is one,
    transforms the draws.

    Kingma and Welling (2013), https://arxiv.org/abs/1312.6114, section 3; with a flow: Rezende and
    Mohamed (2015), https://arxiv.org/abs/1505.05770, equation 13.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        variance_bounds: Least and greatest variance; the code has (0.01, 7) for Frey Faces.
        flow: An :class:`AmortisedFlow`, or None.

    Example:
        >>> posterior = GaussianPosterior(features=8, latent=2)
        >>> z, log_q = posterior(torch.randn(5, 8), 3, torch.Generator().manual_seed(0))
        >>> z.shape, log_q.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        features: int,
        latent: int,
        variance_bounds: tuple[float, float] | None = None,
        flow: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.raw_variance = nn.Linear(features, latent), nn.Linear(features, latent)
        self.variance_bounds, self.flow = variance_bounds, flow

    def moments(
        self, features: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and variance of the Gaussian of each example."""
        variance = softplus(self.raw_variance(features))
        if self.variance_bounds is not None:
            variance = F.hardtanh(variance, *self.variance_bounds)
        return self.mean(features), variance

    def forward(
        self, features: Float[Tensor, "batch features"], samples: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch {samples} latent"], Float[Tensor, "batch {samples}"]]:
        """Return draws and their log density in nats (normalizing flows for VI, equation 13)."""
        mean, variance = (part[:, None] for part in self.moments(features))
        noise = normal_(mean.new_empty(len(features), samples, mean.shape[-1]), generator)
        z = mean + variance.sqrt() * noise
        log_q = gaussian_log_density(noise, variance.log())
        if self.flow is None:
            return z, log_q
        z, log_det = cast(AmortisedFlow, self.flow)(z, features, generator)
        return z, log_q - log_det

    def draw_by_variable(
        self, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return a draw for each example, and each variable's part of its log density in nats.

        Raises:
            DeclarationError: There is a flow without a term for each variable.
        """
        self.require_factors("use posterior 'no-flow' or 'iaf'")
        mean, variance = self.moments(features)
        noise = normal_(mean.new_empty(len(features), 1, mean.shape[-1]), generator)
        z = mean[:, None] + variance[:, None].sqrt() * noise
        log_q = -0.5 * (noise.square() + variance[:, None].log() + LOG_2PI)
        if self.flow is not None:
            z, terms = cast(FactorisedFlow, self.flow).transform_by_variable(z, features)
            log_q = log_q - terms
        return z.squeeze(1), log_q.squeeze(1)

    def require_factors(self, remedy: str) -> None:
        """Refuse a flow whose log-determinant has no term for each variable.

        Raises:
            DeclarationError: The flow is such a one.
        """
        if self.flow is not None and not isinstance(self.flow, FactorisedFlow):
            thing = f"posterior {type(self.flow).__name__}"
            raise DeclarationError(thing, "has no factor for each variable", remedy)
