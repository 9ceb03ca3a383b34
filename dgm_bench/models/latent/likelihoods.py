"""Densities of data given latent variables that torch's distributions do not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent


def bernoulli(logits: Float[Tensor, "n dim"]) -> Distribution:
    """Return independent binary pixels."""
    return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


class PixelLevels(Distribution):
    """Independent pixels with one of ``L`` levels each; a pixel of level k has the value k/(L-1).

    Args:
        logits: Logits of each pixel's levels.
    """

    def __init__(self, logits: Float[Tensor, "n dim levels"]) -> None:
        self.logits, self.largest = logits, logits.shape[-1] - 1
        super().__init__(logits.shape[:1], logits.shape[1:2], validate_args=False)

    def log_prob(self, value: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """Return the log probability of pixels in [0, 1], in nats."""
        index = (value * self.largest).round().long()
        nats = F.cross_entropy(self.logits.flatten(0, 1), index.flatten(), reduction="none")
        return -nats.view(index.shape).sum(-1)

    @property
    def mean(self) -> Float[Tensor, "n dim"]:
        """The mean of each pixel."""
        probs = self.logits.softmax(-1)
        value = torch.linspace(0, 1, self.largest + 1, dtype=probs.dtype, device=probs.device)
        return probs @ value
