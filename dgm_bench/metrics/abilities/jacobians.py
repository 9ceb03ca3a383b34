"""Whether a model's architecture restricts the Jacobians of its maps.

A map's Jacobians at many inputs are points in the space of all matrices of their shape. If they lie
in a proper linear subspace, the architecture confines them to it: triangular matrices, identity
plus rank one, or a single matrix. If they span the whole space, the Jacobian is free-form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.models.capabilities import AdversarialGame, HasDecoder, HasInverse
from dgm_bench.models.continuous.flow import ContinuousFlow
from dgm_bench.models.flows.flow import Flow

Map = Callable[[Float[Tensor, "n inputs"]], Float[Tensor, "n outputs"]]
#: Singular values below this part of the largest are rounding.
ROUNDING = 1e-11


class Span(NamedTuple):
    """How much of the space of matrices the Jacobians of a map span."""

    rank: int
    entries: int

    @property
    def free(self) -> bool:
        """Whether they span all of it."""
        return self.rank == self.entries


def jacobians(function: Map, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs inputs"]:
    """Return the Jacobian at each input; ``function`` treats examples one by one."""
    x = x.detach().requires_grad_()
    columns = function(x).sum(0)
    rows = []
    for column in columns:
        ask_within()
        rows.append(torch.autograd.grad(column, x, retain_graph=True, allow_unused=True)[0])
    return torch.stack([torch.zeros_like(x) if row is None else row for row in rows], dim=1)


def span(function: Map, x: Float[Tensor, "n inputs"]) -> Span:
    """Return the dimension of the linear span of the Jacobians at ``x``."""
    family = jacobians(function, x).flatten(1)
    values = torch.linalg.svdvals(family)
    return Span(int((values > ROUNDING * values[0]).sum()), family.shape[1])


def elementary_maps(model: nn.Module) -> list[tuple[Map, int | None]]:
    """Return the maps that a model composes, with their number of inputs where it is not D.

    A flow's are its layers, a continuous one's its dynamics (at half time); a decoder or a
    generator is one map, from latent variables to the mean of the data.
    """
    if isinstance(model, HasDecoder):
        return [(lambda z: model.decode(z).mean, model.latent)]
    if isinstance(model, AdversarialGame):
        return [(lambda z: model.generator(z, None).flatten(1), model.latent)]
    if isinstance(model, Flow):
        return [(_of_layer(layer), None) for layer in model.layers]
    return []


def _of_layer(layer: nn.Module) -> Map:
    if isinstance(layer, ContinuousFlow):
        network, half = layer.network, layer.span.mean()
        return lambda z: network(half, z)
    return lambda x: cast(HasInverse, layer).forward_and_log_det(x)[0]


@torch.no_grad()
def roughen(model: nn.Module, generator: torch.Generator) -> None:
    """Move all parameters off their initial values, as many layers begin as the identity."""
    for p in model.parameters():
        width = p.shape[-1] if p.dim() > 1 else 1
        p.add_(torch.empty_like(p).normal_(generator=generator) * 0.5 / width**0.5)
