"""Losses of models with discrete latent variables: one for each estimator of their gradient."""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, NonNegative, Positive, Steps
from dgm_bench.errors import DeclarationError, require_choice, require_positive
from dgm_bench.models.latent.discrete import DiscreteVAE, SignalBaseline, log_prob
from dgm_bench.models.latent.structured_prediction import StructuredPrediction
from dgm_bench.models.networks.discrete_relaxations import (
    concrete_log_density,
    gumbel_max,
    log_gumbel_softmax,
    surrogate_values,
)
from dgm_bench.train.losses import Batch, Loss, Objective

PredictionEstimator = Literal["sf", "st", "gumbel", "st-gumbel"]
Estimator = Literal["sf", "st", "gumbel", "st-gumbel", "concrete", "vimco"]
PREDICTION_ESTIMATORS, ESTIMATORS = get_args(PredictionEstimator), get_args(Estimator)


def negative_discrete_elbo(
    estimator: Estimator,
    temperature: Positive = 1.0,
    rate: NonNegative = 0.0,
    every: Steps = 1,
    floor: NonNegative = 0.0,
    prior_temperature: Positive = 0.5,
    samples: Count = 1,
) -> Objective:
    """Return a loss whose gradient is an estimate of the negative bound's, in nats per example.

    ``sf``: score function with NVIL's baseline and variance normalisation: the gradient of the
    encoder, with that of its divergence, is divided by the running standard deviation of the
    learning signal where that is above 1. ``st``: straight through the probabilities.
    ``gumbel`` and ``st-gumbel``: Jang et al.'s. These four have the divergence in closed form. For
    ``st-gumbel`` and ``st`` values are one-hot and the temperature is that of the gradient only;
    with ``st`` its fall is slope annealing. ``concrete``: Maddison et al.'s bound of the relaxed
    model (equation 20). ``vimco``: Mnih and Rezende (2016). The last two have bounds of
    ``samples`` samples. In evaluation mode all are the negative bound of the discrete model, from
    one sample.

    Args:
        estimator: One of these six.
        temperature: Of the relaxation, at the first step.
        rate: The temperature is ``max(floor, temperature * exp(-rate * step))``.
        every: The step in that formula changes once in so many steps.
        floor: The lowest temperature.
        prior_temperature: Of the relaxed prior of ``concrete``.
        samples: Of the bounds of ``concrete`` and ``vimco``.

    Raises:
        DeclarationError: The estimator is not known, or does not fit the number of samples; a
            temperature or ``every`` is not positive.
    """
    require_choice("estimator", estimator, ESTIMATORS)
    _require_samples(estimator, samples)
    require_positive(temperature=temperature, prior_temperature=prior_temperature, every=every)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        vae = cast(DiscreteVAE, model)
        if not vae.training:
            return Loss(-vae.elbo(x, generator).mean())
        now = _annealed(temperature, rate, every, floor, step)
        if estimator == "concrete":
            return Loss(_concrete(vae, x, now, prior_temperature, samples, generator))
        if estimator == "vimco":
            return Loss(_vimco(vae, x, samples, generator))
        return Loss(_closed_form(vae, x, estimator, now, generator))

    return objective


def negative_prediction(
    estimator: PredictionEstimator,
    temperature: Positive = 1.0,
    rate: NonNegative = 0.0,
    every: Steps = 1,
    floor: NonNegative = 0.0,
) -> Objective:
    """Return a loss whose gradient is an estimate of that of ``-E log p(lower|h)``, in nats.

    One sample for each example (Jang et al., section 4.1, m = 1). In evaluation mode it is that of
    the discrete network.

    Args:
        estimator: ``sf``, with NVIL's baseline and variance normalisation, ``st``, ``gumbel`` or
            ``st-gumbel``, as for :func:`negative_discrete_elbo`; so are all other arguments.
        temperature: Of the relaxation, at the first step.
        rate: The temperature is ``max(floor, temperature * exp(-rate * step))``.
        every: The step in that formula changes once in so many steps.
        floor: The lowest temperature.

    Raises:
        DeclarationError: The estimator is not known; the temperature or ``every`` is not positive.
    """
    require_choice("estimator", estimator, PREDICTION_ESTIMATORS)
    require_positive(temperature=temperature, every=every)

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        network = cast(StructuredPrediction, model)
        if not network.training:
            return Loss(-network.log_likelihoods(x, 1, generator).mean())
        if estimator == "sf":
            return Loss(_predicted_by_score(network, x, generator))
        now = _annealed(temperature, rate, every, floor, step)
        fit, _ = network.predict(
            x, 1, lambda logits: surrogate_values(logits, estimator, now, generator)
        )
        return Loss(-fit.mean())

    return objective


def _annealed(temperature: float, rate: float, every: int, floor: float, step: int) -> float:
    """Return the temperature of a step."""
    return max(floor, temperature * math.exp(-rate * (step - step % every)))


def _predicted_by_score(
    network: StructuredPrediction, x: Float[Tensor, "batch *event"], generator: torch.Generator
) -> Float[Tensor, ""]:
    fit, log_p = network.predict(x, 1, lambda logits: gumbel_max(logits.detach(), generator))
    upper, _ = network.halves(x)
    signal, scale, prediction_loss = baseline_of(network)(upper, fit.detach())
    return _no_value(prediction_loss - (signal / scale * log_p).mean()) - fit.mean()


def _require_samples(estimator: str, samples: int) -> None:
    least, several = 2 if estimator == "vimco" else 1, estimator in ("concrete", "vimco")
    if samples < least or (samples > 1 and not several):
        reason = f"does not take {samples} samples"
        remedy = f"use {least} or more" if several else "use 1, or estimator concrete or vimco"
        raise DeclarationError(f"estimator {estimator!r}", reason, remedy)


def baseline_of(vae: DiscreteVAE | StructuredPrediction) -> SignalBaseline:
    """Return the baseline that the score function needs.

    Raises:
        DeclarationError: The model has none.
    """
    if vae.baseline is None:
        raise DeclarationError("estimator 'sf'", "needs a baseline", "give baseline_hidden")
    return vae.baseline


def _closed_form(
    vae: DiscreteVAE,
    x: Float[Tensor, "batch *event"],
    estimator: str,
    temperature: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    logits = vae.posterior_logits(x)
    if estimator != "sf":
        z = surrogate_values(logits[:, None], estimator, temperature, generator)
        return (vae.divergence(logits) - vae.log_likelihood(x, z)[:, 0]).mean()
    z = gumbel_max(logits.detach()[:, None], generator)
    fit = vae.log_likelihood(x, z)
    signal, scale, prediction_loss = baseline_of(vae)(x.flatten(1), fit.detach())
    logits = logits / scale + (logits - logits / scale).detach()
    score = (signal * log_prob(logits[:, None], z)).mean()
    return (vae.divergence(logits) - fit[:, 0]).mean() + _no_value(prediction_loss - score)


def _concrete(
    vae: DiscreteVAE,
    x: Float[Tensor, "batch *event"],
    temperature: float,
    prior_temperature: float,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    logits = vae.posterior_logits(x)[:, None].expand(-1, samples, -1, -1)
    log_z = log_gumbel_softmax(logits, temperature, generator)
    log_posterior = concrete_log_density(log_z, logits, temperature).sum(-1)
    log_prior = concrete_log_density(
        log_z, vae.prior_logits.expand_as(logits), prior_temperature
    ).sum(-1)
    weights = vae.log_likelihood(x, log_z.exp()) + log_prior - log_posterior
    return math.log(samples) - weights.logsumexp(1).mean()


def _vimco(
    vae: DiscreteVAE, x: Float[Tensor, "batch *event"], samples: int, generator: torch.Generator
) -> Float[Tensor, ""]:
    logits = vae.posterior_logits(x)[:, None]
    z = gumbel_max(logits.detach().expand(-1, samples, -1, -1), generator)
    log_q = log_prob(logits, z)
    weights = vae.log_likelihood(x, z) + vae.log_prior(z) - log_q
    bound = weights.logsumexp(1) - math.log(samples)
    score = (leave_one_out_signal(weights.detach()) * log_q).sum(1)
    return -bound.mean() - _no_value(score.mean())


def leave_one_out_signal(
    weights: Float[Tensor, "batch samples"],
) -> Float[Tensor, "batch samples"]:
    """Return the bound less what it would be with each log weight like the mean of the others.

    VIMCO's learning signals (Mnih and Rezende, 2016, equations 9 and 10).
    """
    samples = weights.shape[1]
    others = (weights.sum(1, keepdim=True) - weights) / (samples - 1)
    replaced = weights[:, None].expand(-1, samples, -1).clone()
    replaced.diagonal(dim1=1, dim2=2).copy_(others)
    return weights.logsumexp(1, keepdim=True) - replaced.logsumexp(2)


def _no_value(term: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return zero with the gradient of ``term``: the loss that is shown stays the bound."""
    return term - term.detach()
