"""Invertible linear layers on flat vectors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int
from torch import Tensor, nn


class FullLinear(nn.Module):
    """``u = W x`` with any square ``W``, which starts as the identity.

    The released FFJORD code (``lib/layers/glow.py``) has it on tables in the place of Glow's
    invertible 1 x 1 convolution (https://arxiv.org/abs/1807.03039, section 3.2). The
    log-determinant is computed in double precision.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        log_det = torch.linalg.slogdet(self.weight.double()).logabsdet.to(x.dtype)
        return F.linear(x, self.weight), log_det.expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        x: Tensor = torch.linalg.solve(self.weight, u.T).T
        return x


class LULinear(nn.Module):
    """``u = L U x + b``: ``L`` with unit diagonal, ``U`` with a positive one (NSF, section 4.1).

    It starts as the identity. One matrix holds both factors: ``L`` below its diagonal, ``U`` above
    it, and on it ``raw`` with ``softplus(raw) + 1e-3`` the diagonal of ``U``. The layer is that of
    neural spline flows, https://arxiv.org/abs/1906.04032.

    Args:
        dim: Number of dimensions.
    """

    MIN_DIAGONAL = 1e-3

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(math.log(math.expm1(1 - self.MIN_DIAGONAL)) * torch.eye(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        lower, upper, diagonal = self._factors()
        u = F.linear(F.linear(x, upper), lower, self.bias)
        return u, diagonal.log().sum().expand(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        lower, upper, _ = self._factors()
        solve = torch.linalg.solve_triangular
        y = solve(lower, (u - self.bias).T, upper=False, unitriangular=True)
        x: Tensor = solve(upper, y, upper=True).T
        return x

    def _factors(
        self,
    ) -> tuple[Float[Tensor, "dim dim"], Float[Tensor, "dim dim"], Float[Tensor, " dim"]]:
        """Return ``L``, ``U`` and the diagonal of ``U``."""
        diagonal = F.softplus(self.factors.diagonal()) + self.MIN_DIAGONAL
        eye = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        return self.factors.tril(-1) + eye, self.factors.triu(1) + diagonal.diag(), diagonal


class Permutation(nn.Module):
    """A fixed random permutation of the dimensions, drawn at initialisation.

    Args:
        dim: Number of dimensions.
    """

    order: Int[Tensor, " dim"]
    undone: Int[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        order = torch.randperm(dim)
        self.register_buffer("order", order)
        self.register_buffer("undone", order.argsort())

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, 0)``."""
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``."""
        return u.index_select(1, self.undone)
