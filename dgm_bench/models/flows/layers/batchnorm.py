"""Batch normalisation as an invertible layer (https://arxiv.org/abs/1705.07057, section 3.4)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models import whole_batch
from dgm_bench.models.precise import precise


class FlowBatchNorm(nn.Module):
    """``u = (x - m) / sqrt(v) * exp(log_gamma) + beta`` with ``v`` = variance + eps (appendix B).

    In training mode ``m`` and ``v`` are those of the minibatch; in evaluation mode those that
    :meth:`calibrate` stored. There is no running average: the released MAF code sets them from the
    whole training set before each evaluation.

    Args:
        dim: Number of dimensions.
        eps: Added to the variance.
    """

    mean: Float[Tensor, " dim"]
    variance: Float[Tensor, " dim"]

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.log_gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the minibatch's statistics count as constants."""
        variance, mean = self.variance, self.mean
        if self.training:
            variance, mean = whole_batch.var_mean(x, [0])
        log_scale = self.log_gamma - 0.5 * (variance + self.eps).log()
        return (x - mean) * log_scale.exp() + self.beta, log_scale.sum().expand(x.shape[0])

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, by the stored statistics in either mode."""
        log_scale = self.log_gamma - 0.5 * (self.variance + self.eps).log()
        return (u - self.beta) * (-log_scale).exp() + self.mean

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "n dim"], batch_size: int = 10_000) -> None:
        """Store the mean and the biased variance of all of ``x``, summed in double precision."""
        mean = torch.stack([precise(part).sum(0) for part in torch.split(x, batch_size)]).sum(
            0
        ) / len(x)
        squares = [(precise(part) - mean).square().sum(0) for part in torch.split(x, batch_size)]
        self.mean.copy_(mean)
        self.variance.copy_(torch.stack(squares).sum(0) / len(x))

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"{len(self.beta)}, eps={self.eps}"
