"""Variational autoencoders with several stochastic layers (importance-weighted autoencoders)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import Draws
from dgm_bench.models.elementwise import binary_log_likelihood
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.normal import gaussian_log_density, standard_normal_log_density
from dgm_bench.models.whole_batch import normal_

#: Pixel means are kept this far from 0 and 1 where the decoder's bias starts at their log-odds
#: (released code, ``datasets.py``).
MARGIN = 1e-3


class GaussianLayer(nn.Module):
    """A diagonal Gaussian whose mean and log standard deviation are linear in tanh features.

    Burda, Grosse and Salakhutdinov (2015), https://arxiv.org/abs/1509.00519, section 5; the
    standard deviation is an exponential as in the released code (``iwae.py``).

    Args:
        inputs: Number of inputs.
        hidden: Widths of the tanh layers.
        outputs: Number of variables.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(fully_connected([inputs, *hidden], nn.Tanh), nn.Tanh())
        self.mean = nn.Linear(hidden[-1], outputs)
        self.log_scale = nn.Linear(hidden[-1], outputs)

    def forward(
        self, x: Float[Tensor, "*batch inputs"]
    ) -> tuple[Float[Tensor, "*batch outputs"], Float[Tensor, "*batch outputs"]]:
        """Return the mean and the logarithm of the standard deviation."""
        features = self.features(x)
        return self.mean(features), self.log_scale(features)

    def draw(
        self, x: Float[Tensor, "batch #samples inputs"], samples: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch {samples} outputs"], Float[Tensor, "batch {samples}"]]:
        """Return draws given ``x``, and the log density of each in nats."""
        mean, log_scale = self(x)
        noise = normal_(mean.new_empty(len(x), samples, mean.shape[-1]), generator)
        return mean + log_scale.exp() * noise, gaussian_log_density(noise, 2 * log_scale)

    def log_prob(
        self, h: Float[Tensor, "*batch outputs"], x: Float[Tensor, "*batch inputs"]
    ) -> Float[Tensor, "*batch"]:
        """Return the log density of ``h`` given ``x`` in nats."""
        mean, log_scale = self(x)
        return gaussian_log_density((h - mean) / log_scale.exp(), 2 * log_scale)


class HierarchicalVAE(nn.Module):
    """One stochastic layer or more, of Gaussian variables, below a standard normal prior.

    The model is ``p(h_L) p(h_{L-1}|h_L) ... p(x|h_1)`` with binary pixels, the posterior
    ``q(h_1|x) q(h_2|h_1) ...`` (equations 1 and 3 of the paper). Glorot's initial weights and zero
    biases; the pixels' bias starts at their log-odds in the training data (released code,
    ``iwae.py`` and ``datasets.py``).

    Burda, Grosse and Salakhutdinov (2015), https://arxiv.org/abs/1509.00519, section 5.

    Args:
        event_shape: Shape of one example, with values 0 and 1.
        latents: Variables of each stochastic layer, from the pixels up; (50,) or (100, 50) in the
            paper.
        hidden: Widths of the tanh layers that join each stochastic layer to what is below it, in
            both directions; two of 200 beside the pixels, two of 100 above, in the paper.

    Raises:
        DeclarationError: There is not one entry of ``hidden`` for each stochastic layer.

    Example:
        >>> model = HierarchicalVAE((4,), latents=[3, 2], hidden=[[8, 8], [6]])
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> model.draw(x, 7, generator).log_weight.shape
        torch.Size([5, 7])
        >>> model.sample(3, generator).shape
        torch.Size([3, 4])
    """

    initial_examples: int | None = None

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latents: Sequence[Count] = (50,),
        hidden: Sequence[Sequence[Count]] = ((200, 200),),
    ) -> None:
        super().__init__()
        if not latents or len(hidden) != len(latents) or not all(hidden):
            reason = f"{len(latents)} stochastic layers have {len(hidden)} entries of hidden widths"
            raise DeclarationError("latents", reason, "give some widths for each, and a layer")
        self.event_shape, self.latents = tuple(event_shape), tuple(latents)
        self.latent = sum(latents)
        dims = [math.prod(event_shape), *latents]
        joints = list(zip(dims[:-1], hidden, latents, strict=True))
        self.encoders = nn.ModuleList(GaussianLayer(*joint) for joint in joints)
        self.decoders = nn.ModuleList(
            GaussianLayer(above, tuple(widths)[::-1], below) for below, widths, above in joints[1:]
        )
        self.decoder = fully_connected([dims[1], *tuple(hidden[0])[::-1], dims[0]], nn.Tanh)
        self.apply(_glorot)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n *event"]) -> None:
        """Set the bias of the pixels from training examples."""
        mean = x.flatten(1).mean(0).clamp(MARGIN, 1 - MARGIN)
        cast(nn.Linear, self.decoder[-1]).bias.copy_(mean.logit())

    def draw(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Draws:
        """Return draws with their three log densities; ``z`` has all layers, from the pixels up."""
        pixels = x.flatten(1)[:, None]
        layers, log_q = [pixels], x.new_zeros(len(x), samples)
        for encoder in self.encoders:
            h, log_density = cast(GaussianLayer, encoder).draw(layers[-1], samples, generator)
            layers, log_q = [*layers, h], log_q + log_density
        log_prior = standard_normal_log_density(layers[-1])
        for decoder, below, above in zip(self.decoders, layers[1:-1], layers[2:], strict=True):
            log_prior = log_prior + cast(GaussianLayer, decoder).log_prob(below, above)
        logits = self.decoder(layers[1])
        log_likelihood = binary_log_likelihood(logits, pixels)
        return Draws(torch.cat(layers[1:], -1), log_likelihood, log_prior, log_q)

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return one draw of the evidence lower bound of each example in nats."""
        return self.draw(x, 1, generator).log_weight.squeeze(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return the means of the pixels for ``n`` draws of the latent variables."""
        like = next(self.parameters())
        h = normal_(like.new_empty(n, 1, self.latents[-1]), generator)
        for decoder in reversed(self.decoders):
            h, _ = cast(GaussianLayer, decoder).draw(h, 1, generator)
        means: Tensor = self.decoder(h.squeeze(1)).sigmoid()
        return means.reshape(-1, *self.event_shape)


def _glorot(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
