"""Log-likelihood on a split: per example, in float64 from the model's output on."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.data.dataset import Augment, Dataset
from dgm_bench.errors import RunFailure
from dgm_bench.models.capabilities import HasLogProb, HasLogProbEstimate
from dgm_bench.records import Metric


@torch.no_grad()
def log_likelihoods(
    model: nn.Module,
    x: Float[Tensor, "n *event"],
    *,
    batch_size: int,
    trace: str,
    generator: torch.Generator,
    augment: Augment | None = None,
) -> tuple[Float[Tensor, " n"], Tensor]:
    """Return each example's log-likelihood in nats (float64) and the inputs the model saw.

    Args:
        model: Put into evaluation mode by the caller.
        x: Stored examples; ``augment`` turns them into inputs where noise is drawn afresh.
        batch_size: How many examples at a time. An adaptive solver chooses its steps, and noise
            is drawn, batch by batch; otherwise the result does not depend on it.
        trace: ``exact``, or ``estimate`` for Hutchinson's estimate where a model offers one.
        generator: Source of dequantisation and trace noise.
        augment: The data set's, or None.
    """
    values, inputs = [], []
    for chunk in x.split(batch_size):
        chunk = chunk.to(generator.device)
        batch = augment(chunk, generator) if augment is not None else chunk
        if trace == "estimate" and isinstance(model, HasLogProbEstimate):
            values.append(model.log_prob_estimate(batch, generator).double())
        else:
            values.append(cast(HasLogProb, model).log_prob(batch).double())
        inputs.append(batch)
    return torch.cat(values), torch.cat(inputs) if augment is not None else x


def likelihood_metrics(
    model: nn.Module,
    data: Dataset,
    *,
    split: str,
    batch_size: int,
    trace: str,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the negative log-likelihood, and the gap to the entropy where the density is known.

    ``nll`` is in the data set's unit. Sets in bits per dimension also give ``nll_nats``, in the
    model's own coordinates. ``gap`` is the mean of ``log p(x) - log q(x)`` over the same test
    points: an unbiased estimate of the distance to the entropy in nats that has a far smaller
    error than the difference of two averages. Standard errors are over test points.

    Raises:
        RunFailure: When a likelihood is not finite.
    """
    x = data.splits[split]
    nats, inputs = log_likelihoods(
        model,
        x,
        batch_size=batch_size,
        trace=trace,
        generator=generator,
        augment=data.dequantise,
    )
    _require_finite(nats, split)
    metrics = []
    if data.to_unit is None:
        metrics.append(mean_metric("nll", -nats, "nats", split, protocol))
    else:
        metrics.append(mean_metric("nll", data.to_unit(nats, inputs), data.unit, split, protocol))
        metrics.append(mean_metric("nll_nats", -nats, "nats", split, protocol))
    if data.log_density is not None:
        true = torch.cat([data.log_density(c.double()) for c in x.split(batch_size)])
        paired = "log p(x) - log q(x) on the same test points; " + protocol
        metrics.append(mean_metric("gap", true.to(nats.device) - nats, "nats", split, paired))
    return metrics


def mean_metric(
    name: str, values: Float[Tensor, " n"], unit: str, split: str, protocol: str
) -> Metric:
    """Return the mean over examples, with its standard error; lower is better."""
    n = len(values)
    se = values.std().item() / math.sqrt(n) if n > 1 else None
    mean = values.mean().item()
    return Metric(
        name=name,
        value=mean,
        se=se,
        n=n,
        unit=unit,
        direction="lower",
        split=split,
        protocol=protocol,
    )


def _require_finite(nats: Tensor, split: str) -> None:
    broken = int((~torch.isfinite(nats)).sum())
    if broken:
        reason = f"the log-likelihood of {broken} of {len(nats)} {split} points is not finite"
        raise RunFailure("diverged", reason, "train longer, or lower the learning rate")
