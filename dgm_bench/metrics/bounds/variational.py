"""Bounds of the likelihood of latent variable models, on a split; sums are in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Num
from torch import Tensor

from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric, negative_in_unit
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasPosteriorDraws
from dgm_bench.records import Metric

#: Numbers decoded at a time: bounds the memory of the importance-weighted bound.
NUMBERS_AT_ONCE = 400_000


# ----------------------------------------------------------------------------- the ELBO


@metric("elbo", needs=HasPosteriorDraws, words="draws from a posterior")
def elbo_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the negative ELBO from one draw for each example, with its two parts.

    ``negative-elbo`` is the mean over batches of each batch's mean, as the Sylvester and FFJORD
    codes report it: a smaller last batch weighs as much as a full one. ``negative-elbo-exact`` is
    the mean over examples. Both are in the data set's unit; ``reconstruction`` and ``divergence``
    are in nats and add up to the exact mean.

    Raises:
        RunFailure: A bound is not finite.
    """
    data, split, batch_size = evaluation.data, evaluation.spec.split, evaluation.spec.batch_size
    fit, divergence, inputs = _one_draw(evaluation)
    require_finite(fit - divergence, "the bound", f"{split} examples")
    values, unit = negative_in_unit(data, fit - divergence, inputs), data.unit
    reported = torch.stack([part.mean() for part in values.split(batch_size)]).mean()
    one = "one draw an example; " + evaluation.protocol
    as_reported = f"mean over batches of {batch_size}, the last one weighing as much; {one}"
    first = mean_metric("negative-elbo", values, unit, split, as_reported)
    return [
        first.model_copy(update={"value": reported.item()}),
        mean_metric("negative-elbo-exact", values, unit, split, f"mean over examples; {one}"),
        mean_metric("reconstruction", -fit, "nats", split, f"-log p(x|z); {one}"),
        mean_metric("divergence", divergence, "nats", split, f"log q(z|x) - log p(z); {one}"),
    ]


@torch.no_grad()
def _one_draw(
    evaluation: Evaluation,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Num[Tensor, "n *event"]]:
    """Return ``log p(x|z)`` and ``log q(z|x) - log p(z)`` of a draw each, and the inputs."""
    model, generator = cast(HasPosteriorDraws, evaluation.model), evaluation.generator()

    def drawn(part: Num[Tensor, "batch *event"]) -> tuple[Tensor, Tensor, Tensor]:
        batch = evaluation.data.dequantised(part, generator)
        draws = model.draw(batch, 1, generator)
        divergence = (draws.log_posterior - draws.log_prior).squeeze(1).double()
        return draws.log_likelihood.squeeze(1).double(), divergence, batch

    parts = evaluation.examples.split(evaluation.spec.batch_size)
    fits, divergences, inputs = zip(*each(parts, drawn, generator), strict=True)
    return torch.cat(fits), torch.cat(divergences), torch.cat(inputs)


# ----------------------------------------------------------------------------- importance


@dataclass(frozen=True)
class Importance:
    """What importance sampling gives of each example.

    Attributes:
        log_marginal: Log of the mean weight, whose expectation is a bound of ``log p(x)``.
        error: Standard error of that log, by the delta method.
        effective: Effective sample size ``(sum w)^2 / sum w^2``, as a part of the samples.
    """

    log_marginal: Float[Tensor, " n"]
    error: Float[Tensor, " n"]
    effective: Float[Tensor, " n"]


@torch.no_grad()
def importance_bound(
    model: HasPosteriorDraws,
    x: Float[Tensor, "n *event"],
    samples: int,
    generator: torch.Generator,
    draws_at_once: int | None = None,
) -> Importance:
    """Return the importance-weighted bound of each example (Burda et al., 2016, equation 8).

    Memory does not grow with ``samples``: only two log sums of weights are kept for an example.

    Args:
        model: In evaluation mode.
        x: Examples as the model sees them.
        samples: Draws from the posterior of each example.
        generator: Source of the draws.
        draws_at_once: Draws that go through the decoder together; None for as many as have
            :data:`NUMBERS_AT_ONCE`.
    """
    if draws_at_once is None:
        draws_at_once = max(1, NUMBERS_AT_ONCE // x[0].numel())
    at_once = draws_at_once
    parts = each(
        x.split(max(1, at_once // samples)),
        lambda group: _log_sums(model, group, samples, generator, at_once),
        generator,
    )
    first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    log_samples = math.log(samples)
    # log of E[w^2] / E[w]^2, at least 0 but for rounding
    spread = (second - 2 * first + log_samples).clamp(min=0)
    error = (torch.expm1(spread) / max(samples - 1, 1)).sqrt()
    return Importance(first - log_samples, error, (-spread).exp())


def _log_sums(
    model: HasPosteriorDraws,
    x: Float[Tensor, "n *event"],
    samples: int,
    generator: torch.Generator,
    draws_at_once: int,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the logs of the sums of weights and of squared weights."""
    first = second = x.new_full((len(x),), -math.inf, dtype=torch.float64)
    at_once = max(1, draws_at_once // len(x))
    for start in range(0, samples, at_once):
        ask_within()
        weight = model.draw(x, min(at_once, samples - start), generator).log_weight.double()
        first = torch.logaddexp(first, weight.logsumexp(1))
        second = torch.logaddexp(second, (2 * weight).logsumexp(1))
    return first, second


def require_samples(evaluation: Evaluation) -> int:
    """Return how many draws the importance-weighted bound is to have.

    Raises:
        DeclarationError: It is not said.
    """
    if evaluation.spec.importance_samples is None:
        remedy = "set evaluation.importance_samples"
        raise DeclarationError("the evaluation", "has no number of samples", remedy)
    return evaluation.spec.importance_samples


def check_samples(evaluation: Evaluation) -> None:
    """Refuse what :func:`require_samples` does."""
    require_samples(evaluation)


@metric("importance", needs=HasPosteriorDraws, words="draws from a posterior", check=check_samples)
def importance_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the importance-weighted negative log-likelihood, its Monte Carlo error and the ESS.

    ``importance-nll`` has its standard error over test points; ``importance-error`` is the
    standard error of that mean from the finite number of draws alone, in nats.
    ``effective-samples`` is the mean effective sample size as a part of the draws.

    Raises:
        DeclarationError: As :func:`require_samples`.
        RunFailure: A bound is not finite.
    """
    data, spec, generator = evaluation.data, evaluation.spec, evaluation.generator()
    samples = require_samples(evaluation)
    x = data.dequantised(evaluation.examples[: spec.importance_examples], generator)
    found = importance_bound(cast(HasPosteriorDraws, evaluation.model), x, samples, generator)
    require_finite(found.log_marginal, "the bound", f"{spec.split} examples")
    how = f"{samples:,} importance samples for each of {len(x):,} examples; {evaluation.protocol}"
    values = negative_in_unit(data, found.log_marginal, x)
    of_mean = found.error.square().sum().sqrt().item() / len(x)
    error = mean_metric("importance-error", values, "nats", spec.split, f"delta method; {how}")
    effective = mean_metric("effective-samples", found.effective, "share", spec.split, how)
    return [
        mean_metric("importance-nll", values, data.unit, spec.split, how),
        error.model_copy(update={"value": of_mean, "se": None}),
        effective.model_copy(update={"direction": "higher"}),
    ]
