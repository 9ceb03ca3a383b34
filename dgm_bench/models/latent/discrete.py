"""Variational autoencoders with Bernoulli or categorical latent variables.

The models of Jang, Gu and Poole (https://arxiv.org/abs/1611.01144, section 4.2) and of Maddison,
Mnih and Teh (https://arxiv.org/abs/1611.00712, section 5) with one stochastic layer. Their
objectives are in ``train/discrete_objectives.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models import whole_batch
from dgm_bench.models.capabilities import Draws
from dgm_bench.models.elementwise import binary_log_likelihood
from dgm_bench.models.networks.discrete_relaxations import gumbel_max
from dgm_bench.models.networks.perceptron import fully_connected
from dgm_bench.models.whole_batch import uniform_

DECAY = 0.9  # of the running means of layer centring and of the learning signal


class Centring(nn.Module):
    """Subtracts a running mean from the input of a layer (Maddison et al., appendix C).

    Args:
        size: Width of the layer's input.
    """

    mean: Float[Tensor, " size"]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Return the centred input; in training the mean is updated afterwards."""
        centred = x - self.mean
        if self.training:
            now = whole_batch.mean(x.detach().reshape(-1, x.shape[-1]), [0])
            self.mean.lerp_(now, 1 - DECAY)
        return centred


class SignalBaseline(nn.Module):
    """Predicts the learning signal of a score-function estimator (NVIL: Mnih and Gregor, 2014).

    A running mean plus a network of the example, whose targets are scaled by a running standard
    deviation, 1 at least (https://arxiv.org/abs/1402.0030, section 3.2).

    Args:
        dim: Dimensions of an example.
        hidden: Widths of the network's hidden layers; without any, the running mean is all.
    """

    moments: Tensor

    def __init__(self, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.network = fully_connected([dim, *hidden, 1], nn.Tanh) if hidden else None
        self.register_buffer("moments", torch.zeros(3))  # decayed sums of 1, signal, its square

    def forward(
        self, x: Float[Tensor, "batch dim"], signal: Float[Tensor, "batch samples"]
    ) -> tuple[Float[Tensor, "batch samples"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the signal less its prediction without gradient, its scale and the network's loss.

        The running moments are those of earlier batches, and are updated afterwards.
        """
        weight, first, second = (self.moments / self.moments[0].clamp_min(1e-12)).unbind()
        scale = (second - first.square()).clamp_min(1).sqrt()
        error = (signal - first) / scale
        error = error if self.network is None else error - self.network(x)
        first_two = whole_batch.mean(signal), whole_batch.mean(signal.square())
        batch = torch.stack([torch.ones_like(weight), *first_two])
        self.moments = torch.lerp(self.moments, batch, 1 - DECAY)
        return scale * error.detach(), scale, 0.5 * error.square().mean()


class DiscreteVAE(nn.Module):
    """One layer of discrete latent variables under Bernoulli pixels, with a uniform prior.

    Jang, Gu and Poole (2016), https://arxiv.org/abs/1611.01144, section 4.2; Maddison, Mnih and Teh
    (2016), https://arxiv.org/abs/1611.00712, section 5.

    Args:
        event_shape: Shape of one example, with values 0 and 1.
        variables: Number of latent variables.
        classes: Classes of each. With 2, a variable enters the decoder as a scalar, otherwise as a
            one-hot vector.
        encoder_hidden: Widths of the encoder's hidden layers, of tanh; without any it is linear.
        decoder_hidden: Widths of the decoder's hidden layers.
        centred: Whether binary variables are in {-1, 1} and not {0, 1}, layers subtract running
            means of their inputs, and the decoder's bias starts at the pixels' log-odds in the
            training data, as in Maddison et al., appendix C.
        baseline_hidden: Widths of the network that predicts the learning signal of score-function
            estimators, empty for their running mean alone; None where these are not used.

    Example:
        >>> model = DiscreteVAE((4,), variables=2, classes=10, decoder_hidden=[8])
        >>> model.elbo(torch.ones(5, 4), torch.Generator().manual_seed(0)).shape
        torch.Size([5])
        >>> model.log_prior(torch.eye(10)[[3, 7]])  # -2 log 10
        tensor(-4.6052)
    """

    initial_examples: int | None = None

    def __init__(
        self,
        event_shape: tuple[int, ...],
        variables: Count = 20,
        classes: Count = 10,
        encoder_hidden: Sequence[Count] = (),
        decoder_hidden: Sequence[Count] = (200,),
        centred: bool = False,
        baseline_hidden: Sequence[Count] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape, self.dim = tuple(event_shape), math.prod(event_shape)
        self.variables, self.classes, self.centred = variables, classes, centred
        self.latent = variables * (1 if classes == 2 else classes)
        self.encoder = _network([self.dim, *encoder_hidden, self.latent], centred)
        self.decoder = _network([self.latent, *decoder_hidden, self.dim], centred)
        self.baseline = (
            SignalBaseline(self.dim, baseline_hidden) if baseline_hidden is not None else None
        )

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n *event"]) -> None:
        """Set the decoder's bias from training examples, where the model is centred."""
        if self.centred:
            mean = x.flatten(1).mean(0).clamp(1e-3, 1 - 1e-3)
            cast(nn.Linear, self.decoder[-1]).bias.copy_(mean.logit())

    def posterior_logits(
        self, x: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch variables classes"]:
        """Return the log probabilities of the classes given each example."""
        raw: Tensor = self.encoder(x.flatten(1)).unflatten(1, (self.variables, -1))
        return (F.pad(raw, (1, 0)) if self.classes == 2 else raw).log_softmax(-1)

    def decoder_input(
        self, z: Float[Tensor, "*batch variables classes"]
    ) -> Float[Tensor, "*batch {self.latent}"]:
        """Return the decoder's input for one-hot or relaxed values."""
        if self.classes > 2:
            return z.flatten(-2)
        return 2 * z[..., 1] - 1 if self.centred else z[..., 1]

    def log_likelihood(
        self, x: Float[Tensor, "batch *event"], z: Float[Tensor, "batch samples variables classes"]
    ) -> Float[Tensor, "batch samples"]:
        """Return ``log p(x | z)`` in nats, of one-hot or relaxed values."""
        logits = self.decoder(self.decoder_input(z))
        return binary_log_likelihood(logits, x.flatten(1)[:, None])

    @property
    def prior_logits(self) -> Float[Tensor, "variables classes"]:
        """The prior's log probabilities of the classes, up to a constant."""
        return next(self.parameters()).new_zeros(self.variables, self.classes)

    def log_prior(self, z: Float[Tensor, "*batch variables classes"]) -> Float[Tensor, "*batch"]:
        """Return the prior's log probability of one-hot values, in nats."""
        return z.new_full(z.shape[:-2], -self.variables * math.log(self.classes))

    def divergence(
        self, logits: Float[Tensor, "batch variables classes"]
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(z|x) | p(z)) in nats, exact, of normalised logits."""
        negative_entropy: Tensor = (logits.exp() * logits).sum((1, 2))
        return negative_entropy + self.variables * math.log(self.classes)

    def elbo(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return one draw of the bound of the discrete model in nats, with exact divergence."""
        logits = self.posterior_logits(x)
        z = gumbel_max(logits[:, None], generator)
        bound: Tensor = self.log_likelihood(x, z)[:, 0] - self.divergence(logits)
        return bound

    def draw(
        self, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
    ) -> Draws:
        """Return discrete draws from q(z|x) with their three log probabilities."""
        logits = self.posterior_logits(x)[:, None]
        z = gumbel_max(logits.expand(-1, samples, -1, -1), generator)
        log_posterior = log_prob(logits, z)
        log_likelihood = self.log_likelihood(x, z)
        return Draws(self.decoder_input(z), log_likelihood, self.log_prior(z), log_posterior)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples with values 0 and 1."""
        z = gumbel_max(self.prior_logits.expand(n, -1, -1), generator)
        logits = self.decoder(self.decoder_input(z))
        ones = uniform_(torch.empty_like(logits), generator) < logits.sigmoid()
        x: Tensor = ones.to(logits.dtype).reshape(-1, *self.event_shape)
        return x


class LearntPriorDiscreteVAE(DiscreteVAE):
    """A :class:`DiscreteVAE` whose prior has a learnt probability of each class of each variable.

    Texts of Jang, Gu and Poole (2016), https://arxiv.org/abs/1611.01144, section 4, differ in one
    word: the divergence is that from a uniform, or from a learned, categorical prior.

    Args:
        event_shape: As for the :class:`DiscreteVAE`, like all others.
        variables: Number of latent variables.
        classes: Classes of each.
        encoder_hidden: Widths of the encoder's hidden layers.
        decoder_hidden: Widths of the decoder's hidden layers.
        centred: Whether values and layers are centred.
        baseline_hidden: Widths of the network that predicts the learning signal, or None.

    Example:
        >>> model = LearntPriorDiscreteVAE((4,), variables=2, classes=10, decoder_hidden=[8])
        >>> model.log_prior(torch.eye(10)[[3, 7]]).requires_grad
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        variables: Count = 20,
        classes: Count = 10,
        encoder_hidden: Sequence[Count] = (),
        decoder_hidden: Sequence[Count] = (200,),
        centred: bool = False,
        baseline_hidden: Sequence[Count] | None = None,
    ) -> None:
        super().__init__(
            event_shape,
            variables,
            classes,
            encoder_hidden,
            decoder_hidden,
            centred,
            baseline_hidden,
        )
        self.raw_prior = nn.Parameter(torch.zeros(variables, classes))

    @property
    def prior_logits(self) -> Float[Tensor, "variables classes"]:
        """The prior's log probabilities of the classes."""
        return self.raw_prior.log_softmax(-1)

    def log_prior(self, z: Float[Tensor, "*batch variables classes"]) -> Float[Tensor, "*batch"]:
        """Return the prior's log probability of one-hot values, in nats."""
        log_prior: Tensor = (z * self.prior_logits).sum((-2, -1))
        return log_prior

    def divergence(
        self, logits: Float[Tensor, "batch variables classes"]
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(z|x) | p(z)) in nats, exact, of normalised logits."""
        divergence: Tensor = (logits.exp() * (logits - self.prior_logits)).sum((1, 2))
        return divergence


def log_prob(
    logits: Float[Tensor, "batch #samples variables classes"],
    z: Float[Tensor, "batch samples variables classes"],
) -> Float[Tensor, "batch samples"]:
    """Return the log probability of one-hot values under normalised logits, in nats."""
    log_prob: Tensor = (z * logits).sum((-2, -1))
    return log_prob


def _network(sizes: Sequence[int], centred: bool) -> nn.Sequential:
    network = fully_connected(sizes, nn.Tanh)
    if not centred:
        return network
    layers: list[nn.Module] = []
    for module in network:
        layers += [Centring(module.in_features)] if isinstance(module, nn.Linear) else []
        layers += [module]
    return nn.Sequential(*layers)
