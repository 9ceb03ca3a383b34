"""Mixtures of discretised logistics over the levels of a pixel's channels (PixelCNN++, 2.1, 2.2).

https://arxiv.org/abs/1701.05517. Levels 0 to ``levels - 1`` are scaled to [-1, 1]; a level has the
probability of the interval around it (equation 2), the lowest that of all below, the highest that
of all above. Means of later channels depend linearly on the channels before (equation 3), and all
channels of a pixel are of one component.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dgm_bench.models.elementwise import log_sigmoid
from dgm_bench.models.networks.discrete_relaxations import gumbel_noise

#: Smallest logarithm of a scale (openai/pixel-cnn, nn.py), and the largest, where all is flat.
LEAST_LOG_SCALE, LARGEST_LOG_SCALE = -7.0, 20.0


def parameters_of(channels: int, components: int) -> int:
    """Return how many numbers a pixel's mixture has: 100 of ten components of three channels."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def scaled(x: Num[Tensor, "*shape"], levels: int, dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return levels as numbers in [-1, 1]."""
    return x.to(dtype) * (2 / (levels - 1)) - 1


@dataclass(frozen=True)
class LogisticMixture:
    """The mixtures of pixels.

    Attributes:
        logits: Of the components.
        means: Of each channel, before it is shifted by the channels before.
        log_scales: Of each channel.
        coefficients: Of channel 1 on 0, of 2 on 0 and 1, and so on, in (-1, 1).
    """

    logits: Float[Tensor, "*grid components"]
    means: Float[Tensor, "*grid channels components"]
    log_scales: Float[Tensor, "*grid channels components"]
    coefficients: Float[Tensor, "*grid pairs components"]

    @classmethod
    def of(cls, outputs: Float[Tensor, "*grid numbers"], channels: int) -> LogisticMixture:
        """Return the mixtures that a network's outputs stand for."""
        pairs = channels * (channels - 1) // 2
        parts = outputs.unflatten(-1, (1 + 2 * channels + pairs, -1))
        logits, means, log_scales, coefficients = parts.split([1, channels, channels, pairs], -2)
        log_scales = log_scales.clamp(LEAST_LOG_SCALE, LARGEST_LOG_SCALE)
        return cls(logits.squeeze(-2), means, log_scales, coefficients.tanh())

    def shift(self, x: Float[Tensor, "*grid before"]) -> Float[Tensor, "*grid components"]:
        """Return what the first channels add to the mean of the next (equation 3)."""
        before = x.shape[-1]
        first = before * (before - 1) // 2
        return (self.coefficients[..., first : first + before, :] * x[..., None]).sum(-2)

    def log_prob(self, x: Num[Tensor, "*grid channels"], levels: int) -> Float[Tensor, "*grid"]:
        """Return the log probability of each pixel's levels, in nats.

        Within, ``log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - exp(b - a))`` with the logistic
        function ``s``: exact also where both are close to 0 or 1.
        """
        value = scaled(x, levels, self.means.dtype)
        shifts = [self.shift(value[..., :c]) for c in range(value.shape[-1])]
        centred = value[..., None] - (self.means + torch.stack(shifts, -2))
        inverse = (-self.log_scales).exp()
        above = log_sigmoid(inverse * (centred + 1 / (levels - 1)))
        below = log_sigmoid(-inverse * (centred - 1 / (levels - 1)))
        between = (-torch.expm1(inverse * (-2 / (levels - 1)))).log()
        x = x[..., None]
        within = torch.where(
            x == 0, above, torch.where(x == levels - 1, below, above + below + between)
        )
        return (self.logits.log_softmax(-1) + within.sum(-2)).logsumexp(-1)

    def draw(self, levels: int, generator: torch.Generator) -> Int[Tensor, "*grid channels"]:
        """Return levels: a component, then channel after channel.

        Args:
            levels: Number of levels.
            generator: Source of the noise.
        """
        component = (self.logits + gumbel_noise(self.logits, generator)).argmax(-1)[..., None, None]
        means, log_scales = (
            self._picked(self.means, component),
            self._picked(self.log_scales, component),
        )
        uniform = torch.empty_like(means).uniform_(generator=generator)
        noise = log_scales.exp() * torch.logit(uniform, eps=torch.finfo(means.dtype).tiny)
        drawn: list[Tensor] = []
        for channel in range(means.shape[-1]):
            before = (
                scaled(torch.stack(drawn, -1), levels, means.dtype) if drawn else means[..., :0]
            )
            shift = self._picked(self.shift(before)[..., None, :], component)[..., 0]
            value = means[..., channel] + shift + noise[..., channel]
            drawn.append(((value + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long())
        return torch.stack(drawn, -1)

    def _picked(
        self, values: Float[Tensor, "*grid some components"], component: Int[Tensor, "*grid 1 1"]
    ) -> Float[Tensor, "*grid some"]:
        return values.gather(-1, component.expand(*values.shape[:-1], 1)).squeeze(-1)
