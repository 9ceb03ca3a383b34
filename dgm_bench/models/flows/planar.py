"""Planar flows (Rezende and Mohamed, 2015, https://arxiv.org/abs/1505.05770)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.monotone_inverse import invert_monotone


class Planar(nn.Module):
    """``x = z + û tanh(w.z + b)``, from noise ``z`` to data ``x`` (planar flows, equation 10).

    ``û`` is ``u`` with its component along ``w`` changed such that ``w.û > -1``, so that the map is
    invertible (appendix A.1). From ``z`` to ``x`` it is explicit; its inverse solves one equation
    in one unknown: ``s + (w.û) tanh(s) = w.x + b`` with ``s = w.z + b``, increasing in ``s``.

    The parameters ``push``, ``direction`` and ``offset`` are the paper's ``u``, ``w`` and ``b``.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.push = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.direction = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.offset = nn.Parameter(torch.zeros(()))

    def constrained(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Return ``û``, ``w.û`` and, without cancellation, ``1 + w.û > 0``."""
        return constrained_u(self.push, self.direction, self.push @ self.direction)

    def generate(
        self, z: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(x, log|det dx/dz|)``, in one pass (equations 10 to 12)."""
        u_hat, w_u_hat, margin = self.constrained()
        h = (z @ self.direction + self.offset).tanh()
        return z + h[:, None] * u_hat, (margin - w_u_hat * h.square()).log()

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x`` from noise ``u``, in one pass."""
        return self.generate(u)[0]

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(z, log|det dz/dx|)``, by root finding; gradients are those of the solution."""
        u_hat, w_u_hat, margin = self.constrained()
        target = x @ self.direction + self.offset
        s = _solve(target.detach(), w_u_hat.detach(), margin.detach())
        # One more Newton step keeps the value and adds the gradient of the implicit function.
        h = s.tanh()
        slope = margin.detach() - w_u_hat.detach() * h.square()
        h = (s + (target - s - w_u_hat * h) / slope).tanh()
        return x - h[:, None] * u_hat, -(margin - w_u_hat * h.square()).log()


def constrained_u(
    u: Float[Tensor, "*batch dim"],
    w: Float[Tensor, "*batch dim"],
    w_u: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return ``û``, ``w.û`` and, without cancellation, ``1 + w.û > 0`` (planar flows, A.1).

    Args:
        u: ``u``.
        w: ``w``.
        w_u: ``w.u``.
    """
    margin = F.softplus(w_u)
    w_u_hat = margin - 1
    unit = w / w.square().sum(-1, keepdim=True)
    return u + (w_u_hat - w_u)[..., None] * unit, w_u_hat, margin


class PlanarFlow(Flow):
    """Planar maps from a standard normal to data.

    One pass gives a sample and its density, as variational inference needs it. The density of
    given data takes the root of one equation per layer and example.

    Rezende and Mohamed (2015), https://arxiv.org/abs/1505.05770, section 4.1.

    Args:
        event_shape: Shape of one example.
        layers: Number of maps.

    Example:
        >>> model = PlanarFlow((2,), layers=3)
        >>> x, log_prob = model.sample_with_log_prob(4, torch.Generator().manual_seed(0))
        >>> torch.allclose(model.log_prob(x), log_prob, atol=1e-3)
        True
    """

    def __init__(self, event_shape: tuple[int, ...], layers: Count = 10) -> None:
        dim = math.prod(event_shape)
        super().__init__(event_shape, [Planar(dim) for _ in range(layers)])

    def sample_with_log_prob(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "{n} *event"], Float[Tensor, " {n}"]]:
        """Return ``n`` examples and the log density of each in nats, with gradients."""
        x = self.density.sample(n, generator)
        log_prob = self.density.log_prob(x)
        for layer in reversed(cast(tuple[Planar, ...], tuple(self.layers))):
            x, log_det = layer.generate(x)
            log_prob = log_prob - log_det
        return x.reshape(-1, *self.event_shape), log_prob


def _solve(
    target: Float[Tensor, " batch"], w_u_hat: Float[Tensor, ""], margin: Float[Tensor, ""]
) -> Float[Tensor, " batch"]:
    """Return ``s`` with ``s + w_u_hat * tanh(s) = target``; ``margin`` is ``1 + w_u_hat``."""

    def function(
        s: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        h = s.tanh()
        return s + w_u_hat * h, margin - w_u_hat * h.square()

    reach = w_u_hat.abs() + 1
    return invert_monotone(function, target, target - reach, target + reach)
