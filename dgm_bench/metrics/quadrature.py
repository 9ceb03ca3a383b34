"""The log-likelihood of models with two latent variables, by quadrature over these."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each
from dgm_bench.models.capabilities import HasDecoder
from dgm_bench.models.elementwise import softplus
from dgm_bench.models.flows.flow import StandardNormal
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.models.latent.likelihoods import BinaryPixels

#: Latent variables that are decoded together.
POINTS_AT_ONCE = 20_000
#: Numbers that densities are taken of together: bounds the memory.
NUMBERS_AT_ONCE = 20_000_000


@torch.no_grad()
def log_marginal(
    model: HasDecoder, x: Float[Tensor, "n *event"], nodes: int, reach: float
) -> Float[Tensor, " n"]:
    """Return ``log p(x)`` in nats, by the midpoint rule over two latent variables, in float64.

    Args:
        model: With a standard normal prior.
        x: Examples.
        nodes: Points of the grid along each side.
        reach: Half the length of each side, in standard deviations of the prior.
    """
    flat, spacing = x.flatten(1), 2 * reach / nodes
    axis = (torch.arange(nodes, dtype=x.dtype, device=x.device) + 0.5) * spacing - reach
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    constant = 2 * math.log(spacing) - math.log(2 * math.pi)

    def joint(z: Float[Tensor, "m 2"]) -> Float[Tensor, " n"]:
        nats = log_density_of_pairs(model.decode(z), flat) - 0.5 * z.square().sum(1)
        return nats.logsumexp(1).double()

    for part in each(torch.cartesian_prod(axis, axis).split(POINTS_AT_ONCE), joint):
        total = torch.logaddexp(total, part)
    return total + constant


def log_density_of_pairs(given: Distribution, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n m"]:
    """Return the log density of every example under every one of ``m`` distributions."""
    if isinstance(given, BinaryPixels):
        # one matrix product in place of n x m x dim logarithms
        products: Tensor = x @ given.logits.T
        return products - softplus(given.logits).sum(1)
    rows = max(1, NUMBERS_AT_ONCE // (given.batch_shape[0] * x.shape[1]))
    return torch.cat(list(each(x.split(rows), lambda part: given.log_prob(part[:, None]))))


def require_standard_prior(model: nn.Module, thing: str) -> None:
    """Refuse a prior that the quadrature over latent variables does not know.

    Args:
        model: Any; those that are no :class:`LatentVariableModel` have no other prior.
        thing: What needs it, in words.

    Raises:
        DeclarationError: The prior is not the standard normal.
    """
    if isinstance(model, LatentVariableModel) and not isinstance(model.prior, StandardNormal):
        reason = f"needs a standard normal prior, not {type(model.prior).__name__}"
        raise DeclarationError(thing, reason, "use prior 'standard'")
