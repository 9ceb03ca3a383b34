"""Priors of latent variable models, by name: fixed, learnt, or mixtures of posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Finite, NonNegative
from dgm_bench.errors import DeclarationError, require_choice
from dgm_bench.models.arguments import require_known
from dgm_bench.models.flows.flow import BaseDensity, Flow, StandardNormal
from dgm_bench.models.flows.glow import normalised_blocks
from dgm_bench.models.flows.made import ShiftMADE
from dgm_bench.models.flows.maf import MAF
from dgm_bench.models.flows.realnvp import RealNVP
from dgm_bench.models.normal import LOG_2PI
from dgm_bench.models.whole_batch import integers_, normal_

#: Largest number of component densities in memory at a time, for large mixtures.
MAX_DENSITIES = 2**23

#: From examples to mean and variance of their diagonal Gaussian posteriors.
PosteriorMoments = Callable[
    [Float[Tensor, "n *event"]], tuple[Float[Tensor, "n latent"], Float[Tensor, "n latent"]]
]


@runtime_checkable
class DensityByVariable(Protocol):
    """A density that is a product of one factor for each variable, given others."""

    def log_prob_by_variable(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """Return each variable's part of the log density, in nats."""
        ...


@dataclass(frozen=True)
class GaussianMixture:
    """Diagonal Gaussians of equal weight.

    Attributes:
        mean: Mean of each component.
        variance: Variance of each component.
    """

    mean: Float[Tensor, "components latent"]
    variance: Float[Tensor, "components latent"]

    def log_prob(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, " n"]:
        """Return the log density in nats, summed in float64, in the precision of ``z``."""
        rows = max(1, MAX_DENSITIES // len(self.mean))
        weights, constant = self._terms
        parts = [_log_sum(part.double(), weights, constant) for part in z.split(rows)]
        return torch.cat(parts).to(z.dtype)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} latent"]:
        """Return ``n`` draws."""
        index = torch.empty(n, dtype=torch.int64, device=self.mean.device)
        chosen = integers_(index, len(self.mean), generator)
        noise = normal_(self.mean.new_empty(n, self.mean.shape[1]), generator)
        return self.mean[chosen] + self.variance[chosen].sqrt() * noise

    @cached_property
    def _terms(self) -> tuple[Float[Tensor, "twice components"], Float[Tensor, " components"]]:
        """Return the coefficients of ``z^2`` and ``z`` in the log densities, and the constants.

        With the square expanded, one matrix product gives all densities; it is subject to
        cancellation and therefore in float64.
        """
        mean, variance = self.mean.double(), self.variance.double()
        weights = torch.cat([-0.5 / variance, mean / variance], 1).T
        normaliser = (mean.square() / variance + variance.log() + LOG_2PI).sum(1)
        return weights, -0.5 * normaliser - math.log(len(mean))


def _log_sum(
    z: Float[Tensor, "n latent"],
    weights: Float[Tensor, "2*latent components"],
    constant: Float[Tensor, " components"],
) -> Float[Tensor, " n"]:
    return torch.addmm(constant, torch.cat([z.square(), z], 1), weights).logsumexp(1)


# ----------------------------------------------------------------------------- learnt


class MixturePrior(nn.Module):
    """Diagonal Gaussians of equal weight, learnt (VampPrior paper, section 3: mixture prior).

    Tomczak and Welling (2017), https://arxiv.org/abs/1705.07120, section 3.

    Args:
        latent: Number of latent variables.
        components: Number of Gaussians.

    Example:
        >>> prior = MixturePrior(2, components=3)
        >>> prior.log_prob(prior.sample(4, torch.Generator().manual_seed(0))).shape
        torch.Size([4])
    """

    def __init__(self, latent: int, components: Count = 100) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(components, latent))
        self.log_variance = nn.Parameter(torch.zeros(components, latent))

    @property
    def mixture(self) -> GaussianMixture:
        """The mixture with the current parameters."""
        return GaussianMixture(self.mean, self.log_variance.exp())

    def log_prob(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, " n"]:
        """Return the log density in nats."""
        return self.mixture.log_prob(z)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} latent"]:
        """Return ``n`` draws."""
        return self.mixture.sample(n, generator)


# ----------------------------------------------------------------------------- of posteriors


@runtime_checkable
class PosteriorDependentPrior(Protocol):
    """A prior that is a function of the model's posterior, which has to be Gaussian."""

    def with_posterior(self, posterior_moments: PosteriorMoments) -> BaseDensity:
        """Return the prior for these posteriors."""
        ...


class VampPrior(nn.Module):
    """``p(z) = mean_k q(z|u_k)`` with learnt pseudo-inputs (VampPrior paper, equation 9).

    Tomczak and Welling (2017), https://arxiv.org/abs/1705.07120, equation 9.

    Args:
        latent: Number of latent variables; not used, the posteriors have it.
        event_shape: Shape of an example, and so of a pseudo-input.
        components: Number of pseudo-inputs; 500 in the paper.
        init_mean: Mean of the normal distribution of their initial values.
        init_std: Its standard deviation.

    Example:
        >>> prior = VampPrior(2, (4,), components=3)
        >>> encode = lambda x: (x[:, :2], torch.ones(len(x), 2))  # to mean and variance
        >>> prior.with_posterior(encode).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        latent: int,
        event_shape: tuple[int, ...],
        components: Count = 500,
        init_mean: Finite = 0.05,
        init_std: NonNegative = 0.01,
    ) -> None:
        super().__init__()
        self.unclipped = nn.Parameter(init_mean + init_std * torch.randn(components, *event_shape))

    @property
    def pseudo_inputs(self) -> Float[Tensor, "components *event"]:
        """The pseudo-inputs, clipped to [0, 1] (VampPrior code, ``models/Model.py``)."""
        return F.hardtanh(self.unclipped, 0.0, 1.0)

    def with_posterior(self, posterior_moments: PosteriorMoments) -> GaussianMixture:
        """Return the mixture of the posteriors of the pseudo-inputs, with gradients."""
        return GaussianMixture(*posterior_moments(self.pseudo_inputs))


class AggregatedPosterior(nn.Module):
    """``p(z) = mean_n q(z|x_n)`` over the training set in evaluation, standard normal in training.

    It is the prior of the highest ELBO on the training set (Hoffman and Johnson, 2016, section 3).
    :meth:`calibrate` sets its components; before that too it is the standard normal.

    Tomczak and Welling (2017), https://arxiv.org/abs/1705.07120, section 3.

    Args:
        latent: Number of latent variables.

    Example:
        >>> prior = AggregatedPosterior(2).eval()
        >>> encode = lambda x: (x, torch.ones_like(x))  # to mean and variance
        >>> prior.calibrate(torch.zeros(10, 2), encode, batch_size=5)
        >>> prior.with_posterior(encode).log_prob(torch.zeros(1, 2))  # -log(2 pi)
        tensor([-1.8379])
    """

    mean: Float[Tensor, "n latent"]
    variance: Float[Tensor, "n latent"]

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.standard = StandardNormal(latent)
        # Not persistent: they follow from the weights and the data.
        self.register_buffer("mean", torch.empty(0, latent), persistent=False)
        self.register_buffer("variance", torch.empty(0, latent), persistent=False)
        self._mixture: GaussianMixture | None = None

    @torch.no_grad()
    def calibrate(
        self, x: Float[Tensor, "n *event"], posterior_moments: PosteriorMoments, batch_size: int
    ) -> None:
        """Store the means and variances of the posteriors of ``x``."""
        parts = [posterior_moments(part) for part in x.split(batch_size)]
        self.mean, self.variance = (torch.cat(part) for part in zip(*parts, strict=True))

    def with_posterior(self, posterior_moments: PosteriorMoments) -> BaseDensity:
        """Return the mixture of the stored posteriors, or the standard normal."""
        if self.training or not len(self.mean):
            return self.standard
        # Its terms are large: recomputed only when the buffers are replaced, as by ``to``.
        if self._mixture is None or self._mixture.mean is not self.mean:
            self._mixture = GaussianMixture(self.mean, self.variance)
        return self._mixture


# ----------------------------------------------------------------------------- by name


class ShiftFlow(Flow):
    """Autoregressive maps that only shift, under a standard normal (VLAE, appendix A).

    Its density is a product of one normal factor for each variable.

    Chen et al. (2017), https://arxiv.org/abs/1611.02731, section 3.2 and appendix A.

    Args:
        latent: Number of latent variables.
        layers: Number of maps, whose order is reversed from each to the next; 4 in the paper.
        hidden: Widths of the hidden layers of each; the paper's have 3 layers and 640 units.

    Example:
        >>> prior = ShiftFlow(2, layers=2, hidden=[8])
        >>> prior.log_prob_by_variable(torch.zeros(4, 2)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self, latent: int, layers: Count = 4, hidden: Sequence[Count] = (640, 640)
    ) -> None:
        maps = [ShiftMADE(latent, hidden, reverse=i % 2 == 1) for i in range(layers)]
        super().__init__((latent,), maps)

    def log_prob_by_variable(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """Return each variable's part of the log density, in nats."""
        noise, _ = self.forward_and_log_det(z)
        return cast(StandardNormal, self.base).log_prob_by_variable(noise)


class CouplingFlow(Flow):
    """Blocks of actnorm, a full matrix and a coupling, under a standard normal.

    The "Real NVP prior" of Xu et al. (2019), https://arxiv.org/abs/1905.13452.

    Args:
        latent: Number of latent variables.
        layers: Number of blocks; 20 or 50 in the paper.
        hidden: Widths of the hidden layers of the couplings' networks.

    Example:
        >>> prior = CouplingFlow(2, layers=3, hidden=[8])
        >>> prior.log_prob(prior.sample(4, torch.Generator().manual_seed(0))).shape
        torch.Size([4])
    """

    def __init__(self, latent: int, layers: Count = 20, hidden: Sequence[Count] = (64,)) -> None:
        super().__init__((latent,), normalised_blocks(latent, layers, hidden))


def _real_nvp(latent: int, layers: Count = 6, hidden: Sequence[Count] = (128,)) -> RealNVP:
    return RealNVP((latent,), layers, hidden, batch_norm=False)


def _maf(latent: int, layers: Count = 4, hidden: Sequence[Count] = (640, 640)) -> MAF:
    return MAF((latent,), layers, hidden, batch_norm=False)


#: Constructors of priors from the number of latent variables; "vamp" takes the event shape too.
PRIORS: Mapping[str, Callable[..., nn.Module]] = {
    "standard": StandardNormal,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "real-nvp": _real_nvp,
    "maf": _maf,
    "maf-shift": ShiftFlow,
    "glow": CouplingFlow,
    "aggregated": AggregatedPosterior,
}


def build_prior(
    name: str, latent: int, args: Mapping[str, Any], event_shape: tuple[int, ...] | None = None
) -> nn.Module:
    """Return a prior.

    Args:
        name: One of :data:`PRIORS`.
        latent: Number of latent variables.
        args: Arguments of the prior.
        event_shape: Shape of an example, for the prior that has pseudo-inputs.

    Raises:
        DeclarationError: There is none of that name, it has no such argument, or it needs the
            examples' shape.
    """
    require_choice("prior", name, PRIORS)
    vamp = PRIORS[name] is VampPrior
    require_known(f"prior {name!r}", PRIORS[name], args, given=2 if vamp else 1)
    if not vamp:
        return PRIORS[name](latent, **args)
    if event_shape is None:
        raise DeclarationError("prior 'vamp'", "needs the examples' shape", "use 'mixture'")
    return VampPrior(latent, event_shape, **args)
