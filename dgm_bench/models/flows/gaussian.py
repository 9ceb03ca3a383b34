"""A full-covariance Gaussian: the first row of the MAF paper's Table 1."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DataError
from dgm_bench.models.normal import LOG_2PI
from dgm_bench.models.whole_batch import normal_


class Gaussian(nn.Module):
    """N(mean, L L^T), fitted by maximum likelihood in :meth:`calibrate`: nothing is trained.

    Papamakarios, Pavlakou and Murray (2017), https://arxiv.org/abs/1705.07057, Table 1.

    Args:
        event_shape: Shape of one example.

    Example:
        >>> model = Gaussian((3,))
        >>> model.log_prob(torch.zeros(1, 3))  # -3/2 log(2 pi), before it is fitted
        tensor([-2.7568])
        >>> model.calibrate(torch.randn(100, 3))
        >>> model.sample(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3])
    """

    mean: Float[Tensor, " dim"]
    factor: Float[Tensor, "dim dim"]

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        dim = math.prod(event_shape)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("factor", torch.eye(dim))

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "n *event"], batch_size: int = 10_000) -> None:
        """Set mean and covariance to those of ``x``, summed and factored in double precision.

        Raises:
            DataError: The covariance is singular.
        """
        parts = torch.split(x.flatten(1), batch_size)
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(x)
        covariance = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
        for part in parts:
            centred = part.double() - mean
            covariance.addmm_(centred.T, centred, alpha=1 / len(x))
        factor, info = torch.linalg.cholesky_ex(covariance)
        if info.item():
            raise DataError(
                f"dimension {info.item() - 1}",
                f"makes the covariance of {len(x)} examples singular",
                "give more examples than dimensions, and no constant or repeated dimension",
            )
        self.mean.copy_(mean)
        self.factor.copy_(factor)

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        centred = (x.flatten(1) - self.mean).T
        white = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        log_det = self.factor.diagonal().log().sum()
        constant = 0.5 * len(self.mean) * LOG_2PI
        log_prob: Tensor = -0.5 * white.square().sum(0) - log_det - constant
        return log_prob

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples."""
        noise = normal_(self.mean.new_empty(n, len(self.mean)), generator)
        return (self.mean + noise @ self.factor.T).reshape(-1, *self.event_shape)
