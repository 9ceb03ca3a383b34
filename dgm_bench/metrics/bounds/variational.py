"""Bounds of the likelihood of latent variable models, on a split; sums are in float64."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, RunFailure
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.models.capabilities import HasPosteriorDraws
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec

#: Numbers decoded at a time: bounds the memory of the importance-weighted bound.
NUMBERS_AT_ONCE = 400_000


# ----------------------------------------------------------------------------- the ELBO


@torch.no_grad()
def elbo_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the negative ELBO from one draw for each example, with its two parts.

    ``negative-elbo`` is the mean over batches of each batch's mean, as the Sylvester and FFJORD
    codes report it: a smaller last batch weighs as much as a full one. ``negative-elbo-exact`` is
    the mean over examples. Both are in the data set's unit; ``reconstruction`` and ``divergence``
    are in nats and add up to the exact mean.

    Raises:
        RunFailure: A bound is not finite.
    """
    x = data.splits[spec.split]
    fits, divergences, inputs = [], [], []
    for part in x.split(spec.batch_size):
        batch = data.dequantise(part, generator) if data.dequantise else part
        draws = cast(HasPosteriorDraws, model).draw(batch, 1, generator)
        fits.append(draws.log_likelihood.squeeze(1).double())
        divergences.append((draws.log_posterior - draws.log_prior).squeeze(1).double())
        inputs.append(batch)
    fit, divergence = torch.cat(fits), torch.cat(divergences)
    _require_finite(fit - divergence, spec.split)
    values = _in_unit(data, fit - divergence, torch.cat(inputs))
    unit, batch_size = data.unit, spec.batch_size
    reported = torch.stack([part.mean() for part in values.split(batch_size)]).mean()
    one = "one draw an example; " + protocol
    as_reported = f"mean over batches of {batch_size}, the last one weighing as much; {one}"
    first = mean_metric("negative-elbo", values, unit, spec.split, as_reported)
    return [
        first.model_copy(update={"value": reported.item()}),
        mean_metric("negative-elbo-exact", values, unit, spec.split, f"mean over examples; {one}"),
        mean_metric("reconstruction", -fit, "nats", spec.split, f"-log p(x|z); {one}"),
        mean_metric("divergence", divergence, "nats", spec.split, f"log q(z|x) - log p(z); {one}"),
    ]


# ----------------------------------------------------------------------------- importance


class Importance(NamedTuple):
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
    parts = [
        _log_sums(model, group, samples, generator, draws_at_once)
        for group in x.split(max(1, draws_at_once // samples))
    ]
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
        weight = model.draw(x, min(at_once, samples - start), generator).log_weight.double()
        first = torch.logaddexp(first, weight.logsumexp(1))
        second = torch.logaddexp(second, (2 * weight).logsumexp(1))
    return first, second


def importance_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the importance-weighted negative log-likelihood, its Monte Carlo error and the ESS.

    ``importance-nll`` has its standard error over test points; ``importance-error`` is the
    standard error of that mean from the finite number of draws alone, in nats.
    ``effective-samples`` is the mean effective sample size as a part of the draws.

    Raises:
        DeclarationError: As :func:`require_samples`.
        RunFailure: A bound is not finite.
    """
    samples = require_samples(spec)
    x = data.splits[spec.split][: spec.importance_examples]
    x = data.dequantise(x, generator) if data.dequantise else x
    found = importance_bound(cast(HasPosteriorDraws, model), x, samples, generator)
    _require_finite(found.log_marginal, spec.split)
    how = f"{samples:,} importance samples for each of {len(x):,} examples; {protocol}"
    values = _in_unit(data, found.log_marginal, x)
    of_mean = found.error.square().sum().sqrt().item() / len(x)
    error = mean_metric("importance-error", values, "nats", spec.split, f"delta method; {how}")
    effective = mean_metric("effective-samples", found.effective, "share", spec.split, how)
    return [
        mean_metric("importance-nll", values, data.unit, spec.split, how),
        error.model_copy(update={"value": of_mean, "se": None}),
        effective.model_copy(update={"direction": "higher"}),
    ]


def require_samples(spec: EvaluationSpec) -> int:
    """Return how many draws the importance-weighted bound is to have.

    Raises:
        DeclarationError: It is not said.
    """
    if spec.importance_samples is None:
        remedy = "set evaluation.importance_samples"
        raise DeclarationError("metric 'importance'", "has no number of samples", remedy)
    return spec.importance_samples


# ----------------------------------------------------------------------------- small things


def _in_unit(data: Dataset, nats: Float[Tensor, " n"], inputs: Tensor) -> Float[Tensor, " n"]:
    """Return negative log-likelihoods in the data set's unit."""
    return -nats if data.to_unit is None else data.to_unit(nats, inputs)


def _require_finite(nats: Float[Tensor, " n"], split: str) -> None:
    broken = int((~torch.isfinite(nats)).sum())
    if broken:
        reason = f"the bound of {broken} of {len(nats)} {split} examples is not finite"
        raise RunFailure("diverged", reason, "lower the learning rate (--set optimizer.lr=...)")
