"""ELBO surgery: where the divergence of posteriors from the prior comes from.

With ``q(z) = mean_n q(z|x_n)``, the aggregated posterior of the examples, the mean divergence is
``mean_n KL(q(z|x_n) | p(z)) = I + KL(q(z) | p(z))``, where ``I = log N - E H(q(n|z))`` is the
mutual information of an example's index and its latent variables, at most ``log N``. Only the
second term knows the prior (Hoffman and Johnson, 2016, section 2).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.registry import metric
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.models.latent.priors import GaussianMixture
from dgm_bench.models.normal import gaussian_log_density
from dgm_bench.records import Metric

#: Draws from the aggregated posterior, for each of the two terms that need its density.
DRAWS = 5_000
#: Draws from the posterior of every example, for each of the other terms.
PER_EXAMPLE = 2
#: Examples that go through the model at a time.
BATCH = 500


class Estimate(NamedTuple):
    """A mean in nats and its standard error, which is Monte Carlo error alone."""

    mean: float
    se: float


class Surgery(NamedTuple):
    """The terms of the negative ELBO of ``n`` examples, each from draws of its own.

    Attributes:
        negative_elbo: The mean of ``-log p(x|z) - log p(z) + log q(z|x)``.
        reconstruction: The mean of ``-log p(x|z)``.
        divergence: The mean of ``log q(z|x) - log p(z)``.
        mutual_information: The mean of ``log q(z|x_n) - log q(z)``.
        marginal_kl: The mean of ``log q(z) - log p(z)``.
        n: Number of examples.
    """

    negative_elbo: Estimate
    reconstruction: Estimate
    divergence: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate
    n: int

    @property
    def residual(self) -> Estimate:
        """What the three parts of the negative ELBO add up to beyond it: zero but for error."""
        parts = (self.reconstruction, self.mutual_information, self.marginal_kl)
        difference = sum(part.mean for part in parts) - self.negative_elbo.mean
        errors = [part.se for part in (*parts, self.negative_elbo)]
        return Estimate(difference, math.hypot(*errors))


@torch.no_grad()
def surgery(
    model: LatentVariableModel,
    x: Float[Tensor, "n *event"],
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Surgery:
    """Return the terms of the negative ELBO, each from independent draws.

    The density of the aggregated posterior is exact: a sum over all examples, in float64.

    Args:
        model: In evaluation mode; its posterior is a diagonal Gaussian.
        x: The examples that the aggregated posterior is of.
        generator: Source of the draws.
        draws: From the aggregated posterior, for mutual information and marginal divergence each.

    Raises:
        DeclarationError: The posterior is no Gaussian.
    """
    parts = each(x.split(BATCH), model.posterior_moments)
    aggregated = GaussianMixture(*(torch.cat(part) for part in zip(*parts, strict=True)))
    bound, fit, divergence = (_for_every_example(model, x, i, generator) for i in range(3))
    z, own = _draw(aggregated, draws, generator)
    information = own - aggregated.log_prob(z)
    z, _ = _draw(aggregated, draws, generator)
    densities = each(z.split(BATCH), lambda part: model.density.log_prob(part.to(x.dtype)))
    prior = torch.cat(list(densities))
    marginal = aggregated.log_prob(z) - prior.double()
    return Surgery(bound, fit, divergence, _simple(information), _simple(marginal), len(x))


def _for_every_example(
    model: LatentVariableModel, x: Float[Tensor, "n *event"], term: int, generator: torch.Generator
) -> Estimate:
    """Estimate negative ELBO (0), reconstruction (1) or divergence (2) from draws for each example.

    As every example is there equally often, only the spread of its own draws is error.
    """

    def values(part: Float[Tensor, "batch *event"]) -> Tensor:
        drawn = model.draw(part, PER_EXAMPLE, generator)
        fit, prior = drawn.log_likelihood.double(), drawn.log_prior.double()
        posterior = drawn.log_posterior.double()
        return (posterior - prior - fit, -fit, posterior - prior)[term]

    every = torch.cat(list(each(x.split(BATCH), values, generator)))
    se = (every.var(1).sum() / PER_EXAMPLE).sqrt() / len(every)
    return Estimate(every.mean().item(), se.item())


def _draw(
    aggregated: GaussianMixture, draws: int, generator: torch.Generator
) -> tuple[Float[Tensor, "{draws} latent"], Float[Tensor, "{draws}"]]:
    """Return draws in float64, and the log density of each in the posterior it came from."""
    mean, variance = aggregated.mean.double(), aggregated.variance.double()
    index = torch.randint(len(mean), (draws,), generator=generator, device=mean.device)
    noise = mean.new_empty(draws, mean.shape[1]).normal_(generator=generator)
    own = gaussian_log_density(noise, variance[index].log())
    return mean[index] + variance[index].sqrt() * noise, own


def _simple(values: Float[Tensor, " draws"]) -> Estimate:
    return Estimate(values.mean().item(), (values.std() / math.sqrt(len(values))).item())


# ----------------------------------------------------------------------------- metrics


def _require_gaussian(evaluation: Evaluation) -> None:
    cast(LatentVariableModel, evaluation.model).require_gaussian("metric 'surgery'")


@metric(
    "surgery",
    needs=LatentVariableModel,
    words="latent variables with a Gaussian posterior",
    check=_require_gaussian,
)
def surgery_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the parts of the negative ELBO on the training set, and on the evaluated split.

    On the training set they are ``reconstruction-train``, ``mutual-information``,
    ``marginal-kl``, ``average-kl`` (the sum of the last two, estimated by itself),
    ``negative-elbo-train``, ``surgery-residual`` (the three parts minus the negative ELBO) and
    ``log-examples`` (the largest mutual information there can be). On the evaluated split the two
    divergences are ``mutual-information-test`` and ``marginal-kl-test``, for the split ``test``:
    the aggregated posterior is then that of this split. All are in nats; standard errors are
    Monte Carlo errors, not those over examples.

    Raises:
        DeclarationError: The posterior is no Gaussian.
        RunFailure: A term is not finite.
    """
    split, generator = evaluation.spec.split, evaluation.generator()
    found = _measured(evaluation, "train", generator)
    seen = _Words("train", found.n, evaluation.protocol)
    metrics = [
        seen.metric("reconstruction-train", found.reconstruction),
        seen.metric("mutual-information", found.mutual_information),
        seen.metric("marginal-kl", found.marginal_kl),
        seen.metric("average-kl", found.divergence),
        seen.metric("negative-elbo-train", found.negative_elbo),
        seen.metric("surgery-residual", found.residual),
        seen.metric("log-examples", Estimate(math.log(found.n), 0.0)),
    ]
    if split == "train":
        return metrics
    other = _measured(evaluation, split, generator)
    words = _Words(split, other.n, evaluation.protocol)
    return [
        *metrics,
        words.metric(f"mutual-information-{split}", other.mutual_information),
        words.metric(f"marginal-kl-{split}", other.marginal_kl),
    ]


def _measured(evaluation: Evaluation, split: str, generator: torch.Generator) -> Surgery:
    x = evaluation.data.dequantised(evaluation.data.splits[split], generator)
    found = surgery(cast(LatentVariableModel, evaluation.model), x, generator)
    terms = [term.mean for term in found if isinstance(term, Estimate)]
    require_finite(torch.tensor(terms), "the mean", f"terms of the negative ELBO on {split}")
    return found


class _Words(NamedTuple):
    """What the metrics of one split have in common."""

    split: str
    n: int
    protocol: str

    def metric(self, name: str, found: Estimate) -> Metric:
        how = (
            f"{PER_EXAMPLE} draws an example, or {DRAWS:,} from the aggregated posterior of all "
            f"{self.n:,}; independent draws for each term; ± is Monte Carlo error"
        )
        return Metric(
            name=name,
            value=found.mean,
            se=found.se,
            n=self.n,
            unit="nats",
            direction="lower",
            split=self.split,
            protocol=f"{how}; {self.protocol}",
        )
