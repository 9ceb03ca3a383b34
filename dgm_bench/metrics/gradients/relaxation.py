"""How far estimates of a gradient through a categorical variable are off, by temperature.

The exact gradient is a sum over the classes, so that bias and variance can be separated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.registry import metric
from dgm_bench.models.latent.discrete import DiscreteVAE
from dgm_bench.models.networks.discrete_relaxations import gumbel_max, surrogate_values
from dgm_bench.records import Metric

TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0)
EXAMPLES = 100  # of the split
DRAWS = 1_000  # of a gradient, for each example
ESTIMATORS = ("gumbel", "st-gumbel", "st", "darn", "sf", "muprop")
#: Estimators that have no temperature.
UNTEMPERED = ("darn", "sf", "muprop")
UNIT = "of squared gradient"

Function = Callable[
    [Float[Tensor, "batch draws classes"]],
    Float[Tensor, "batch draws"],
]


@dataclass(frozen=True)
class Errors:
    """Squared bias, variance and the exact gradient's squared norm, of each example."""

    squared_bias: Float[Tensor, " batch"]
    variance: Float[Tensor, " batch"]
    squared_gradient: Float[Tensor, " batch"]


def exact_gradient(
    logits: Float[Tensor, "batch classes"], function: Function
) -> Float[Tensor, "batch classes"]:
    """Return the gradient in the logits of the mean of ``function``, by a sum over the classes."""
    probability = logits.softmax(-1)
    values = _values_of_classes(logits, function)
    mean = (probability * values).sum(-1, keepdim=True)
    return probability * (values - mean)


def gradient_draws(
    logits: Float[Tensor, "batch classes"],
    function: Function,
    estimator: str,
    temperature: float,
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch {draws} classes"]:
    """Return independent estimates of the gradient in the logits of the mean of ``function``.

    Args:
        logits: Of one categorical variable for each example.
        function: Of one-hot or relaxed values of the variable.
        estimator: ``sf`` or ``muprop``, with the exact mean of its learning signal as baseline,
            which a learned one may approach; or ``st``, ``darn``, ``gumbel`` or ``st-gumbel`` as
            in training.
        temperature: Of the relaxation; ``sf``, ``muprop`` and ``darn`` have none.
        draws: Estimates for each example.
        generator: Source of the noise.
    """
    each = logits.detach()[:, None].repeat(1, draws, 1).requires_grad_()
    normalised = each.log_softmax(-1)
    if estimator in ("sf", "muprop"):
        slope = _slope_at_mean(logits, function) if estimator == "muprop" else 0 * logits[:, None]
        z = gumbel_max(normalised.detach(), generator)
        signal = _centred(logits, lambda z: function(z) - (slope * z).sum(-1), z)
        target = (signal * (z * normalised).sum(-1)).sum() + (slope * normalised.exp()).sum()
    else:
        target = function(surrogate_values(normalised, estimator, temperature, generator)).sum()
    return torch.autograd.grad(target, each)[0]


def errors(
    draws: Float[Tensor, "batch draws classes"], exact: Float[Tensor, "batch classes"]
) -> Errors:
    """Return the mean squared error's two parts, both without bias of their own.

    The squared bias is the product of what two halves of the draws are off, and may come out
    negative where there is little.
    """
    first, second = (half.mean(1) - exact for half in draws.chunk(2, dim=1))
    return Errors((first * second).sum(-1), draws.var(1).sum(-1), exact.square().sum(-1))


def relaxation_metrics(evaluation: Evaluation, estimator: str) -> list[Metric]:
    """Return ``squared-bias-T`` and ``variance-T`` of an estimator by its temperature T.

    Both are sums over the examples divided by that of the exact gradient's squared norm. The
    gradient is that of the expected log-likelihood in the logits of one latent variable, another
    for each example, while the others keep a draw from the posterior. What has no temperature is
    measured once, and its values stand under every name.
    """
    x, generator = evaluation.examples[:EXAMPLES], evaluation.generator()
    logits, function = one_variable(cast(DiscreteVAE, evaluation.model), x, generator)
    exact = exact_gradient(logits, function).double()

    def measured(temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        given = (logits, function, estimator, temperature, DRAWS, generator)
        found = errors(gradient_draws(*given).double(), exact)
        return found.squared_bias, found.variance, found.squared_gradient

    asked = TEMPERATURES[:1] if estimator in UNTEMPERED else TEMPERATURES
    found = [Errors(*parts) for parts in each(asked, measured, generator)]
    found *= len(TEMPERATURES) // len(found)
    return [
        metric
        for temperature, parts in zip(TEMPERATURES, found, strict=True)
        for metric in _metrics_at(temperature, parts, evaluation)
    ]


for _estimator in ESTIMATORS:
    metric(f"relaxation-{_estimator}", needs=DiscreteVAE, words="discrete latent variables")(
        partial(relaxation_metrics, estimator=_estimator)
    )


def _metrics_at(temperature: float, found: Errors, evaluation: Evaluation) -> list[Metric]:
    metrics = []
    for name, values in (("squared-bias", found.squared_bias), ("variance", found.variance)):
        value, se = ratio(values, found.squared_gradient)
        metrics.append(
            Metric(
                name=f"{name}-{temperature:g}",
                value=value,
                se=se,
                n=len(values),
                unit=UNIT,
                direction="lower",
                split=evaluation.spec.split,
                protocol=f"{DRAWS} draws of the gradient for each example; {evaluation.protocol}",
            )
        )
    return metrics


def one_variable(
    vae: DiscreteVAE, x: Float[Tensor, "batch *event"], generator: torch.Generator
) -> tuple[Float[Tensor, "batch classes"], Function]:
    """Return the logits of one latent variable and the log-likelihood as a function of its value.

    The variable is another one for each example; all others keep a draw from the posterior.
    """
    with torch.no_grad():
        logits = vae.posterior_logits(x)
        others = gumbel_max(logits, generator)
    at = torch.arange(len(x), device=x.device) % vae.variables
    chosen = (torch.arange(vae.variables, device=x.device) == at[:, None])[:, None, :, None]

    def function(z: Float[Tensor, "batch draws classes"]) -> Float[Tensor, "batch draws"]:
        return vae.log_likelihood(x, torch.where(chosen, z[:, :, None], others[:, None]))

    return logits[torch.arange(len(x), device=x.device), at], function


def ratio(top: Float[Tensor, " n"], bottom: Float[Tensor, " n"]) -> tuple[float, float]:
    """Return the ratio of two means over the same examples, and its standard error."""
    value = top.mean() / bottom.mean()
    rest = (top - value * bottom) / bottom.mean()
    return value.item(), rest.std().item() / math.sqrt(len(top))


@torch.no_grad()
def _centred(
    logits: Float[Tensor, "batch classes"],
    function: Function,
    z: Float[Tensor, "batch draws classes"],
) -> Float[Tensor, "batch draws"]:
    """Return ``function`` of draws less its exact mean."""
    probability = logits.softmax(-1)
    mean = (probability * _values_of_classes(logits, function)).sum(-1, keepdim=True)
    return function(z) - mean


def _slope_at_mean(
    logits: Float[Tensor, "batch classes"], function: Function
) -> Float[Tensor, "batch 1 classes"]:
    """Return the gradient of ``function`` in the variable's values, at their mean."""
    mean = logits.softmax(-1)[:, None].detach().requires_grad_()
    return torch.autograd.grad(function(mean).sum(), mean)[0]


def _values_of_classes(
    logits: Float[Tensor, "batch classes"], function: Function
) -> Float[Tensor, "batch classes"]:
    with torch.no_grad():
        every = torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        return function(every.expand(len(logits), -1, -1))
