"""Whether a model's log-likelihood is exact: that of its own samples, in two dimensions.

A log density, integrated over boxes, must give the fractions of samples that fall into them, and
1 over all. A lower bound is compared with the log-likelihood by quadrature
over two latent variables.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.quadrature import POINTS_AT_ONCE, log_marginal
from dgm_bench.models.capabilities import HasDecoder, HasElbo
from dgm_bench.models.flows.flow import BaseDensity

SAMPLES = 20_000
BOXES = 6  # a side
CELLS = 40  # a side of each box
TAIL = 0.002  # part of the samples beyond each side of the region of the quadrature
ERRORS = 4.0  # standard errors within which numbers agree
NODES = 400  # a side of the grid over latent variables
REACH = 5.0  # of that grid, in standard deviations of the prior
DRAWS = 300  # of a bound, for each point
NEGLIGIBLE = 1e-4  # nats; far more than the prior beyond the grid makes


class Agreement(NamedTuple):
    """How a density compares with samples.

    Attributes:
        mass: Its integral, which is 1 for a normalised density.
        worst: Largest disagreement with the samples, in standard errors.
    """

    mass: float
    worst: float

    @property
    def exact(self) -> bool:
        """Whether the density is normalised and that of the samples."""
        return abs(self.mass - 1) < 0.01 and self.worst < ERRORS


class Bound(NamedTuple):
    """How far a lower bound is from the log-likelihood, on average, in nats.

    Attributes:
        gap: The difference.
        se: Its standard error.
        quadrature: How much a quadrature half as fine differs: its error is smaller still.
    """

    gap: float
    se: float
    quadrature: float

    @property
    def tight(self) -> bool:
        """Whether the bound is the log-likelihood as far as one can tell."""
        return abs(self.gap) < ERRORS * self.se + self.quadrature + NEGLIGIBLE


@runtime_checkable
class LatentBound(HasElbo, HasDecoder, Protocol):
    """A lower bound, and what it takes to know the log-likelihood."""


@torch.no_grad()
def by_quadrature(model: BaseDensity, generator: torch.Generator) -> Agreement:
    """Compare ``log_prob`` with samples on boxes that hold nearly all of them.

    The mass is the integral over the boxes with the fraction of samples outside them.
    """
    x = model.sample(SAMPLES, generator)
    low, high = x.double().quantile(TAIL, dim=0), x.double().quantile(1 - TAIL, dim=0)
    n = BOXES * CELLS
    middle = (torch.arange(n, dtype=low.dtype, device=x.device) + 0.5) / n
    points = low + (high - low) * torch.cartesian_prod(middle, middle)
    parts = points.to(x.dtype).split(POINTS_AT_ONCE)
    density = each(parts, lambda part: model.log_prob(part).double().exp())
    cells = torch.cat(list(density)).view(BOXES, CELLS, BOXES, CELLS)
    mass = cells.sum((1, 3)) * float((high - low).prod()) / n**2
    place = ((x - low) / (high - low) * BOXES).floor().long()
    inside = ((place >= 0) & (place < BOXES)).all(1)
    row, column = place[inside].unbind(1)
    boxes = row * BOXES + column
    fraction = torch.bincount(boxes, minlength=BOXES**2).view(BOXES, BOXES) / SAMPLES
    error = (mass * (1 - mass)).clamp(min=1 / SAMPLES).div(SAMPLES).sqrt()
    outside = (~inside).double().mean()
    return Agreement(float(mass.sum() + outside), float(((fraction - mass) / error).abs().max()))


@torch.no_grad()
def of_bound(model: LatentBound, x: Float[Tensor, "n 2"], generator: torch.Generator) -> Bound:
    """Compare the bound with ``log p(x)``, an integral over two latent variables."""
    fine, coarse = (log_marginal(model, x, nodes, REACH) for nodes in (NODES, NODES // 2))
    bounds = list(each(range(DRAWS), lambda _: model.elbo(x, generator).double(), generator))
    gaps = fine - torch.stack(bounds).mean(0)
    se = float(gaps.std()) / math.sqrt(len(x))
    return Bound(float(gaps.mean()), se, abs(float((fine - coarse).mean())))
