"""Densities of data given latent variables that torch's distributions do not have, or not as fast.

Values are broadcast against logits: one example is compared with the logits of many draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from dgm_bench.models.elementwise import binary_log_likelihood


class BinaryPixels(Distribution):
    """Independent binary pixels.

    Args:
        logits: Logit of each pixel.
    """

    def __init__(self, logits: Float[Tensor, "*batch dim"]) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def log_prob(self, value: Float[Tensor, "*#batch dim"]) -> Float[Tensor, "*#batch"]:
        """Return the log probability of pixels, in nats."""
        return binary_log_likelihood(self.logits, value)

    @property
    def mean(self) -> Float[Tensor, "*batch dim"]:
        """The probability of each pixel."""
        return self.logits.sigmoid()


class PixelLevels(Distribution):
    """Independent pixels with one of ``L`` levels each; a pixel of level k has the value k/(L-1).

    Args:
        logits: Logits of each pixel's levels.
    """

    def __init__(self, logits: Float[Tensor, "*batch dim levels"]) -> None:
        self.logits, self.largest = logits, logits.shape[-1] - 1
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=False)

    def log_prob(self, value: Float[Tensor, "*#batch dim"]) -> Float[Tensor, "*#batch"]:
        """Return the log probability of pixels in [0, 1], in nats."""
        index = (value * self.largest).round().long().expand(self.logits.shape[:-1])
        logits = self.logits.flatten(0, -2)
        nats = F.cross_entropy(logits, index.reshape(-1), reduction="none")
        return -nats.view(index.shape).sum(-1)

    @property
    def mean(self) -> Float[Tensor, "*batch dim"]:
        """The mean of each pixel."""
        probs = self.logits.softmax(-1)
        value = torch.linspace(0, 1, self.largest + 1, dtype=probs.dtype, device=probs.device)
        return probs @ value
