"""Log densities of normal distributions with independent components, in nats."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def standard_normal_log_density(u: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Return the log density of N(0, I)."""
    return -0.5 * (u.square().sum(-1) + u.shape[-1] * LOG_2PI)


def gaussian_log_density(
    noise: Float[Tensor, "*batch dim"], log_variance: Float[Tensor, "*#batch dim"] | float = 0.0
) -> Float[Tensor, "*batch"]:
    """Return the log density of ``mean + sqrt(variance) * noise`` under N(mean, variance).

    For a variance of 1 it differs from :func:`standard_normal_log_density` by rounding alone, which
    decides what a trained model's weights are to the last bit; both orders of sums are therefore
    kept.
    """
    return -0.5 * (log_variance + noise.square() + LOG_2PI).sum(-1)
