"""Structured prediction: stochastic networks from one half of an example to the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.elementwise import binary_log_likelihood
from dgm_bench.models.latent.discrete import SignalBaseline, log_prob
from dgm_bench.models.networks.discrete_relaxations import gumbel_max

#: From log probabilities of the classes to one-hot or relaxed values.
Draw = Callable[
    [Float[Tensor, "batch samples variables classes"]],
    Float[Tensor, "batch samples variables classes"],
]


class StructuredPrediction(nn.Module):
    """Two layers of discrete variables between the upper half of an example and its lower half.

    ``p(lower|upper)`` is the mean of ``p(lower|h_2)`` over ``p(h_2|h_1) p(h_1|upper)``; the layers
    are linear in what is before them. Halves are those of the flattened example.

    Jang, Gu and Poole (2016), https://arxiv.org/abs/1611.01144, section 4.1.

    Args:
        event_shape: Shape of one example, with values 0 and 1 and an even number of them.
        variables: Variables of each layer; 200, or 20 of 10 classes, in the paper.
        classes: Classes of each. With 2, a variable enters the next layer as a scalar, otherwise as
            a one-hot vector.
        baseline_hidden: Widths of the network that predicts the learning signal of score-function
            estimators, empty for their running mean alone; None where these are not used.

    Example:
        >>> model = StructuredPrediction((4,), variables=3, classes=2)
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> model.log_likelihoods(x, 7, generator).shape
        torch.Size([5, 7])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        variables: Count = 200,
        classes: Count = 2,
        baseline_hidden: Sequence[Count] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape, self.half_dim = tuple(event_shape), math.prod(event_shape) // 2
        self.variables, self.classes = variables, classes
        width = variables * (1 if classes == 2 else classes)
        self.first, self.second = nn.Linear(self.half_dim, width), nn.Linear(width, width)
        self.pixels = nn.Linear(width, self.half_dim)
        self.baseline = (
            SignalBaseline(self.half_dim, baseline_hidden) if baseline_hidden is not None else None
        )

    def halves(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch {self.half_dim}"], Float[Tensor, "batch {self.half_dim}"]]:
        """Return the upper half, which is given, and the lower one, which is predicted."""
        upper, lower = x.flatten(1).split(self.half_dim, dim=1)
        return upper, lower

    def predict(
        self, x: Float[Tensor, "batch *event"], samples: int, draw: Draw
    ) -> tuple[Float[Tensor, "batch {samples}"], Float[Tensor, "batch {samples}"]]:
        """Return ``log p(lower|h_2)`` and ``log p(h_1, h_2|upper)``, both in nats.

        Args:
            x: Examples.
            samples: Draws for each.
            draw: What gives each layer its values; it sees log probabilities.
        """
        upper, lower = self.halves(x)
        of_first = self._log_probs(self.first(upper))[:, None].expand(-1, samples, -1, -1)
        first = draw(of_first)
        of_second = self._log_probs(self.second(self._inputs(first)))
        second = draw(of_second)
        logits = self.pixels(self._inputs(second))
        log_likelihood = binary_log_likelihood(logits, lower[:, None])
        return log_likelihood, log_prob(of_first, first) + log_prob(of_second, second)

    def log_likelihoods(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Float[Tensor, "batch {samples}"]:
        """Return ``log p(lower|h_2)`` in nats for draws of the discrete network."""
        return self.predict(x, samples, lambda logits: gumbel_max(logits, generator))[0]

    def _log_probs(
        self, raw: Float[Tensor, "*batch width"]
    ) -> Float[Tensor, "*batch {self.variables} {self.classes}"]:
        raw = raw.unflatten(-1, (self.variables, -1))
        return (F.pad(raw, (1, 0)) if self.classes == 2 else raw).log_softmax(-1)

    def _inputs(
        self, z: Float[Tensor, "*batch variables classes"]
    ) -> Float[Tensor, "*batch width"]:
        return z[..., 1] if self.classes == 2 else z.flatten(-2)
