"""A normalising flow: invertible layers over a simple base density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.models.capabilities import HasInverse, HasLogProb, HasSample
from dgm_bench.models.flows.layers.batchnorm import FlowBatchNorm
from dgm_bench.models.normal import LOG_2PI, standard_normal_log_density
from dgm_bench.models.whole_batch import normal_


@runtime_checkable
class BaseDensity(HasLogProb, HasSample, Protocol):
    """The base density of a flow: it has a log density and can be sampled."""


class StandardNormal(nn.Module):
    """N(0, I), the usual base.

    As prior of latent variables: Kingma and Welling (2013), https://arxiv.org/abs/1312.6114.

    Args:
        dim: Number of dimensions.

    Example:
        >>> StandardNormal(2).log_prob(torch.zeros(1, 2))  # -log(2 pi)
        tensor([-1.8379])
    """

    origin: Float[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Holds the device and the precision that samples are to have.
        self.register_buffer("origin", torch.zeros(dim), persistent=False)

    def log_prob(self, u: Float[Tensor, "batch {len(self.origin)}"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        return standard_normal_log_density(u)

    def log_prob_by_variable(
        self, u: Float[Tensor, "batch {len(self.origin)}"]
    ) -> Float[Tensor, "batch {len(self.origin)}"]:
        """Return each variable's part of the log density, in nats."""
        return -0.5 * (u.square() + LOG_2PI)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} {len(self.origin)}"]:
        """Return ``n`` draws."""
        return normal_(self.origin.new_empty(n, len(self.origin)), generator)


def pass_forward(
    layers: Sequence[HasInverse], x: Float[Tensor, "batch *shape"]
) -> tuple[Float[Tensor, "batch *changed"], Float[Tensor, " batch"]]:
    """Return ``(u, log|det du/dx|)`` of layers one after the other."""
    log_det = x.new_zeros(x.shape[0])
    for layer in layers:
        x, change = layer.forward_and_log_det(x)
        log_det = log_det + change
    return x, log_det


def pass_back(
    layers: Sequence[HasInverse], u: Float[Tensor, "batch *changed"]
) -> Float[Tensor, "batch *shape"]:
    """Return the ``x`` that the layers, one after the other, map to ``u``."""
    for layer in reversed(layers):
        u = layer.inverse(u)
    return u


class Flow(nn.Module):
    """Invertible layers, from data to noise, over a base density.

    Each layer has ``forward_and_log_det`` and ``inverse`` on flat vectors, the base ``log_prob``
    and ``sample``. Examples of any shape are flattened first, and results get that shape again.

    Args:
        event_shape: Shape of one example.
        layers: The layers in the order in which data passes.
        base: Base density, of the outputs of the last layer; a standard normal if None.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Sequence[nn.Module],
        base: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.layers = nn.ModuleList(layers)
        self.base = StandardNormal(math.prod(event_shape)) if base is None else base

    @property
    def density(self) -> BaseDensity:
        """The base, typed as a density."""
        return cast(BaseDensity, self.base)

    @property
    def transforms(self) -> tuple[HasInverse, ...]:
        """The layers, typed as invertible maps."""
        return cast(tuple[HasInverse, ...], tuple(self.layers))

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats, by the change of variables."""
        u, log_det = pass_forward(self.transforms, x.flatten(1))
        return self.density.log_prob(u) + log_det

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``: from data to noise."""
        u, log_det = pass_forward(self.transforms, x.flatten(1))
        return u.reshape(-1, *self.event_shape), log_det

    def inverse(self, u: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return ``x`` from noise ``u``."""
        return pass_back(self.transforms, u.flatten(1)).reshape(-1, *self.event_shape)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} *event"]:
        """Return ``n`` examples; all noise is drawn from ``generator``."""
        u = self.density.sample(n, generator)
        return self.inverse(u.reshape(-1, *self.event_shape))

    @torch.no_grad()
    def calibrate(self, x: Num[Tensor, "n *event"], batch_size: int = 10_000) -> None:
        """Set the batch normalisations from all of ``x``, layer by layer.

        Takes one pass over ``x`` and the memory of one more copy of it; without any of them, ``x``
        is not looked at and may be bytes.
        """
        norms = {
            i: layer for i, layer in enumerate(self.layers) if isinstance(layer, FlowBatchNorm)
        }
        if not norms:
            return
        hidden = x.flatten(1).clone()
        mode = self.training
        self.eval()
        for start, end in pairwise([0, *norms]):
            self._pass_in_place(hidden, start, end, batch_size)
            norms[end].calibrate(hidden, batch_size)
        self.train(mode)

    def _pass_in_place(
        self, hidden: Float[Tensor, "n dim"], start: int, end: int, batch_size: int
    ) -> None:
        """Replace ``hidden`` by the outputs of layers ``start`` to ``end``."""
        for part in torch.split(hidden, batch_size):
            ask_within()
            h = part
            for layer in self.transforms[start:end]:
                h, _ = layer.forward_and_log_det(h)
            part.copy_(h)
