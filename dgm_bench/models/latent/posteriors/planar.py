"""The planar flow as a posterior (Rezende and Mohamed, 2015), its parameters amortised."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.planar import constrained_u
from dgm_bench.models.latent.posteriors.gaussian import Latents


class AmortisedPlanar(nn.Module):
    """Planar maps ``z' = z + û tanh(w.z + b)`` whose ``u``, ``w``, ``b`` depend on the example.

    ``û`` is ``u`` with its component along ``w`` changed such that ``w.û > -1`` (appendix A.1). The
    layers ``push``, ``direction`` and ``offset`` give ``u``, ``w`` and ``b``.

    Rezende and Mohamed (2015), https://arxiv.org/abs/1505.05770, section 4.1.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        flows: Number of maps.

    Example:
        >>> flow = AmortisedPlanar(features=8, latent=2, flows=2)
        >>> features, z = torch.randn(5, 8), torch.randn(5, 3, 2)
        >>> z, log_det = flow(z, features, torch.Generator().manual_seed(0))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    def __init__(self, features: int, latent: int, flows: Count = 16) -> None:
        super().__init__()
        self.shape = (flows, latent)
        self.push, self.direction = (nn.Linear(features, flows * latent) for _ in range(2))
        self.offset = nn.Linear(features, flows)

    def forward(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant (equation 12)."""
        u, w = (layer(features).unflatten(1, self.shape) for layer in (self.push, self.direction))
        u_hat, w_u_hat, margin = constrained_u(u, w, (u * w).sum(-1))
        log_det = z.new_zeros(z.shape[:2])
        for k, b in enumerate(self.offset(features).unbind(1)):
            h = torch.einsum("bsl,bl->bs", z, w[:, k]).add(b[:, None]).tanh()
            z = z + h[..., None] * u_hat[:, None, k]
            log_det = log_det + (margin[:, None, k] - w_u_hat[:, None, k] * h.square()).log()
        return z, log_det
