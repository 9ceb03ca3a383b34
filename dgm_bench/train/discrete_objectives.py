"""Losses of models with discrete latent variables: one for each estimator of their gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, NonNegative, Positive, Steps
from dgm_bench.errors import DeclarationError, require_choice, require_positive
from dgm_bench.models.latent.discrete import DiscreteVAE, SignalBaseline, log_prob
from dgm_bench.models.latent.structured_prediction import Draw, StructuredPrediction
from dgm_bench.models.networks.discrete_relaxations import (
    concrete_log_density,
    gumbel_max,
    log_gumbel_softmax,
    surrogate_values,
)
from dgm_bench.train.losses import Batch, Loss, Objective

PredictionEstimator = Literal["sf", "darn", "muprop", "st", "gumbel", "st-gumbel"]
Estimator = Literal["sf", "darn", "muprop", "st", "gumbel", "st-gumbel", "concrete", "vimco"]
PREDICTION_ESTIMATORS, ESTIMATORS = get_args(PredictionEstimator), get_args(Estimator)
#: Those with variance normalisation, whose running deviation a model's baseline keeps.
NORMALISED = ("sf", "darn", "muprop")

#: From what gives latent variables their values to a function of these, in nats.
FitOf = Callable[[Draw], Float[Tensor, "batch 1"]]


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
    learning signal where that is above 1. ``darn``: that of Gregor et al., see
    :func:`half_estimator`, divided likewise by the deviation of the log-likelihood. ``muprop``: Gu
    et al.'s, see :class:`MeanFieldExpansion`, with baseline and normalisation as ``sf``, whose
    learning signal is what the expansion leaves. ``st``: straight through the probabilities.
    ``gumbel`` and ``st-gumbel``: Jang et al.'s. These six have the divergence in closed form. For
    ``st-gumbel`` and ``st`` values are one-hot and the temperature is that of the gradient only;
    with ``st`` its fall is slope annealing. ``concrete``: Maddison et al.'s bound of the relaxed
    model (equation 20). ``vimco``: Mnih and Rezende (2016). The last two have bounds of
    ``samples`` samples. In evaluation mode all are the negative bound of the discrete model, from
    one sample.

    Args:
        estimator: One of these eight.
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
        if estimator in ("darn", "muprop"):
            return Loss(_expanded(vae, x, estimator, generator))
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
        estimator: ``sf``, with NVIL's baseline and variance normalisation, ``darn``, ``muprop``,
            ``st``, ``gumbel`` or ``st-gumbel``, as for :func:`negative_discrete_elbo`; so are all
            other arguments.
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
        if estimator == "darn":
            return Loss(_predicted_by_darn(network, x, generator))
        if estimator == "muprop":
            return Loss(_predicted_by_muprop(network, x, generator))
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
    signal, scale, prediction_loss = baseline_of(network, "sf")(upper, fit.detach())
    return _no_value(prediction_loss - (signal / scale * log_p).mean()) - fit.mean()


def _predicted_by_darn(
    network: StructuredPrediction, x: Float[Tensor, "batch *event"], generator: torch.Generator
) -> Float[Tensor, ""]:
    values = []

    def draw(logits: Tensor) -> Tensor:
        values.append(surrogate_values(logits, "darn", 1.0, generator))
        return values[-1]

    fit, _ = network.predict(x, 1, draw)
    upper, _ = network.halves(x)
    _, scale, prediction_loss = baseline_of(network, "darn")(upper, fit.detach())
    # The gradient of every latent layer comes through the values of the last one.
    _divide_gradient(values[-1], scale)
    return _no_value(prediction_loss) - fit.mean()


def _predicted_by_muprop(
    network: StructuredPrediction, x: Float[Tensor, "batch *event"], generator: torch.Generator
) -> Float[Tensor, ""]:
    found = expand_around_means(lambda draw: network.predict(x, 1, draw)[0], generator)
    upper, _ = network.halves(x)
    signal, scale, prediction_loss = baseline_of(network, "muprop")(upper, found.residuals)
    return _no_value(prediction_loss - found.score(signal) / scale) - found.fit.mean()


def _divide_gradient(x: Tensor, scale: Float[Tensor, ""]) -> None:
    """Let the gradient of ``x``, and so of all that it was computed from, be divided."""
    x.register_hook(lambda gradient: gradient / scale)


def _require_samples(estimator: str, samples: int) -> None:
    least, several = 2 if estimator == "vimco" else 1, estimator in ("concrete", "vimco")
    if samples < least or (samples > 1 and not several):
        reason = f"does not take {samples} samples"
        remedy = f"use {least} or more" if several else "use 1, or estimator concrete or vimco"
        raise DeclarationError(f"estimator {estimator!r}", reason, remedy)


def baseline_of(vae: DiscreteVAE | StructuredPrediction, estimator: str) -> SignalBaseline:
    """Return the baseline that an estimator with variance normalisation needs.

    Raises:
        DeclarationError: The model has none.
    """
    if vae.baseline is None:
        thing = f"estimator {estimator!r}"
        raise DeclarationError(thing, "needs a baseline", "give baseline_hidden")
    return vae.baseline


@dataclass(frozen=True)
class MeanFieldExpansion:
    """A draw of all latent layers, and a Taylor expansion around means that are not drawn.

    MuProp has as baseline of each layer the first-order expansion of ``f`` around the values of a
    mean-field network, which are propagated instead of draws, and adds the exact gradient of that
    baseline's mean (Gu et al., 2016, https://arxiv.org/abs/1511.05176, equation 3, algorithm 1).

    Attributes:
        fit: ``f`` of the draw.
        residuals: ``f`` less its expansion in the values of each layer, without gradient.
        log_p: Log probability of each layer's values given the layer before, in nats.
        linear: The expansion's slope times the mean of each layer given the layer before; the
            slope is without gradient.
    """

    fit: Float[Tensor, "batch 1"]
    residuals: Float[Tensor, "batch layers"]
    log_p: Float[Tensor, "batch layers"]
    linear: Float[Tensor, "batch layers"]

    def score(self, signal: Float[Tensor, "batch layers"]) -> Float[Tensor, ""]:
        """Return what has the estimate of the gradient of the mean of ``fit``.

        Args:
            signal: The residuals less a baseline.
        """
        return (signal * self.log_p + self.linear).sum(1).mean()


def expand_around_means(fit_of: FitOf, generator: torch.Generator) -> MeanFieldExpansion:
    """Return a draw of the latent variables and the expansion around their mean-field values.

    Args:
        fit_of: Gives the latent layers values, in order, and returns a function of them in nats.
        generator: Source of the noise.
    """
    layers, means = [], []

    def sampled(logits: Tensor) -> Tensor:
        layers.append((logits, gumbel_max(logits.detach(), generator)))
        return layers[-1][1]

    def averaged(logits: Tensor) -> Tensor:
        means.append(logits.exp())
        return means[-1]

    fit, fit_of_means = fit_of(sampled), fit_of(averaged)
    slopes = torch.autograd.grad(fit_of_means.sum(), means)
    parts = [
        (
            (slope * (z - mean.detach())).sum((-2, -1)),
            log_prob(logits, z),
            (slope * logits.exp()).sum((-2, -1)),
        )
        for slope, mean, (logits, z) in zip(slopes, means, layers, strict=True)
    ]
    steps, log_p, linear = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    return MeanFieldExpansion(fit, (fit - fit_of_means).detach() - steps, log_p, linear)


def _expanded(
    vae: DiscreteVAE,
    x: Float[Tensor, "batch *event"],
    estimator: str,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    logits, baseline = vae.posterior_logits(x), baseline_of(vae, estimator)
    if estimator == "darn":
        z = surrogate_values(logits[:, None], "darn", 1.0, generator)
        fit = vae.log_likelihood(x, z)
        _, scale, extra = baseline(x.flatten(1), fit.detach())
    else:
        found = expand_around_means(
            lambda draw: vae.log_likelihood(x, draw(logits[:, None])), generator
        )
        fit = found.fit
        signal, scale, prediction_loss = baseline(x.flatten(1), found.residuals)
        extra = prediction_loss - found.score(signal)
    _divide_gradient(logits, scale)
    return (vae.divergence(logits) - fit[:, 0]).mean() + _no_value(extra)


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
    signal, scale, prediction_loss = baseline_of(vae, "sf")(x.flatten(1), fit.detach())
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
