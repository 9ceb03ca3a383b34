"""How many latent variables a posterior uses."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.bounds.variational import NUMBERS_AT_ONCE
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasPosteriorDraws, HasStochasticLayers
from dgm_bench.records import Metric

#: A variable is active where its activity is above (Burda et al., 2016, section 5.2).
THRESHOLD = 0.01
#: Draws for each example, in two halves.
DRAWS = 100


@metric("active-units", needs=HasPosteriorDraws, words="draws from a posterior")
def active_units_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return how many variables of each stochastic layer are active, from the data up.

    The activity of a variable u is ``Cov_x(E_q[u])``, the variance over examples of its posterior
    mean (Burda et al., 2016, https://arxiv.org/abs/1509.00519, section 5.2).
    """
    spec, model, generator = evaluation.spec, evaluation.model, evaluation.generator()
    x = evaluation.data.dequantised(evaluation.examples, generator)
    active = activity(cast(HasPosteriorDraws, model), x, generator) > THRESHOLD
    layers = model.latents if isinstance(model, HasStochasticLayers) else (len(active),)
    how = f"Cov_x(E_q[u]) > {THRESHOLD}, {DRAWS} draws for each example; {evaluation.protocol}"
    return [
        Metric(
            name=f"active-units-{number}",
            value=float(part.sum()),
            se=None,
            n=len(x),
            unit="units",
            direction="higher",
            split=spec.split,
            protocol=how,
        )
        for number, part in enumerate(active.split(list(layers)), start=1)
    ]


@torch.no_grad()
def activity(
    model: HasPosteriorDraws, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Float[Tensor, " latent"]:
    """Return the variance over examples of each variable's posterior mean, without bias.

    It is the covariance of two independent estimates of the mean, so that the variance of the
    posterior itself adds nothing; it may be below zero.

    Args:
        model: In evaluation mode.
        x: Two examples or more, as the model sees them.
        generator: Source of the draws.
    """
    rows = max(1, NUMBERS_AT_ONCE // (DRAWS * x[0].numel()))
    parts = each(x.split(rows), lambda part: _two_means(model, part, generator), generator)
    halves = torch.cat(list(parts))
    first, second = (halves - halves.mean(0)).unbind(1)
    return (first * second).sum(0) / (len(x) - 1)


def _two_means(
    model: HasPosteriorDraws, x: Float[Tensor, "n *event"], generator: torch.Generator
) -> Float[Tensor, "n 2 latent"]:
    means: Tensor = model.draw(x, DRAWS, generator).z.double().unflatten(1, (2, -1)).mean(2)
    return means
