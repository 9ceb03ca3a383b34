"""A coupling flow as a posterior, the same for all examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.capabilities import HasInverse
from dgm_bench.models.flows.flow import pass_forward
from dgm_bench.models.flows.glow import normalised_blocks
from dgm_bench.models.latent.posteriors.gaussian import Latents


class SharedGlow(nn.Module):
    """Blocks of actnorm, a full matrix and a coupling, which do not depend on the example.

    The "Real NVP posterior" of Xu et al. (2019), https://arxiv.org/abs/1905.13452.

    Args:
        features: Number of features; not used, as the blocks depend on none.
        latent: Number of latent variables.
        layers: Number of blocks; 20 or 50 in the paper.
        hidden: Widths of the hidden layers of the couplings' networks.

    Example:
        >>> flow = SharedGlow(features=8, latent=2, layers=2, hidden=[6])
        >>> features, z = torch.randn(5, 8), torch.randn(5, 3, 2)
        >>> z, log_det = flow(z, features, torch.Generator().manual_seed(0))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    def __init__(
        self, features: int, latent: int, layers: Count = 20, hidden: Sequence[Count] = (64,)
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(normalised_blocks(latent, layers, hidden))

    def forward(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant."""
        blocks = cast(Sequence[HasInverse], tuple(self.blocks))
        moved, log_det = pass_forward(blocks, z.flatten(0, 1))
        return moved.view_as(z), log_det.view(z.shape[:2])
