"""The logit-Laplace distribution of pixels (DALL-E, https://arxiv.org/abs/2102.12092, A.3)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

#: The paper's epsilon: pixels are modelled in ``[EPSILON, 1 - EPSILON]``.
EPSILON = 0.1


def into_support(pixels: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``phi``: pixels in [0, 1] mapped into the open interval, the density's support."""
    return (1 - 2 * EPSILON) * pixels + EPSILON


def out_of_support(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the inverse of ``phi``, clamped to [0, 1]."""
    return ((x - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1)


def log_density(
    x: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"], log_scale: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return the log density at ``x`` in (0, 1), in nats: a Laplace variable through ``sigmoid``.

    ``f(x) = exp(-|logit(x) - mean| / b) / (2 b x (1 - x))`` with ``b = exp(log_scale)``.
    """
    distance = (torch.logit(x) - mean).abs() * (-log_scale).exp()
    return -(distance + log_scale + math.log(2) + x.log() + (-x).log1p())
