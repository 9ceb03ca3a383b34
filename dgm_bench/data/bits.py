"""Bits per dimension of 8-bit images, in the conventions of the MAF and the FFJORD paper.

A density over dequantised images bounds the probability of the discrete images: ``levels`` grey
levels plus noise U[0, 1), divided by ``levels``. MAF: https://arxiv.org/abs/1705.07057, FFJORD:
https://arxiv.org/abs/1810.01367.

Example:
    >>> bits_from_pixel_density(torch.zeros(1), dim=4).item()  # the uniform density: log2 256
    8.0
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

LEVELS = 256


def to_logits(pixels: Float[Tensor, "*shape"], lam: float) -> Float[Tensor, "*shape"]:
    """Return ``logit(lam + (1 - 2 lam) pixels)`` (MAF paper, section 4.3)."""
    return torch.logit(lam + (1 - 2 * lam) * pixels)


def from_logits(logits: Float[Tensor, "*shape"], lam: float) -> Float[Tensor, "*shape"]:
    """Return the pixels that :func:`to_logits` mapped to ``logits``, within [0, 1]."""
    return ((torch.sigmoid(logits) - lam) / (1 - 2 * lam)).clamp(0, 1)


def bits_from_logit_density(
    log_prob: Float[Tensor, " n"],
    logits: Float[Tensor, "n *event"],
    lam: float,
    levels: int = LEVELS,
) -> Float[Tensor, " n"]:
    """Return each image's bits per dimension, given its log density in logit space.

    MAF paper, appendix E: with ``z = sigmoid(logits)``, the log density of the image is
    ``log_prob + D ln(1 - 2 lam) - sum(ln z + ln(1 - z))``.

    Args:
        log_prob: Log density in nats.
        logits: The model's inputs.
        lam: The lambda of their preprocessing.
        levels: Grey levels of the discrete images.
    """
    y = logits.double().flatten(1)
    change = math.log(1 - 2 * lam) - logsigmoid(y) - logsigmoid(-y)
    return bits_from_pixel_density(log_prob.double() + change.sum(1), y.shape[1], levels)


def bits_from_pixel_density(
    log_prob: Float[Tensor, " n"], dim: int, levels: int = LEVELS
) -> Float[Tensor, " n"]:
    """Return each image's bits per dimension, given its log density over pixels in [0, 1).

    Released FFJORD code (train_cnf.py): ``-(log_prob / D - ln levels) / ln 2``.
    """
    return (math.log(levels) - log_prob.double() / dim) / math.log(2)
