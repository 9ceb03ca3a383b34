"""A model as CONTRIBUTING describes one: the density of independent Gaussians, learnt."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.flows.flow import Flow


class Scale(nn.Module):
    """``u = (x - shift) / exp(log_scale)``.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.randn(dim))
        self.log_scale = nn.Parameter(0.1 * torch.randn(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        u = (x - self.shift) * (-self.log_scale).exp()
        return u, -self.log_scale.sum().expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return self.shift + u * self.log_scale.exp()


class Affine(Flow):
    """Independent Gaussians.

    Args:
        event_shape: Shape of one example.
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape, [Scale(math.prod(event_shape))])
