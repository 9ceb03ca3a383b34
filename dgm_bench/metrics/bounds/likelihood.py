"""Log-likelihood on a split: per example, in float64 from the model's output on."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import HasLogProb, HasLogProbEstimate
from dgm_bench.models.precise import precise
from dgm_bench.models.whole_batch import rows_of
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec, ValidationSpec


@torch.no_grad()
def log_likelihoods(
    model: nn.Module,
    data: Dataset,
    x: Num[Tensor, "n *event"],
    rule: EvaluationSpec | ValidationSpec,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " n"], Num[Tensor, "n *event"]]:
    """Return each example's log-likelihood in nats (float64) and the inputs the model saw.

    Args:
        model: Put into evaluation mode by the caller.
        data: The data set; where it is dequantised, noise is drawn afresh.
        x: Stored examples of it.
        rule: Says how many examples there are at a time, and whether a model that offers
            Hutchinson's estimate of its trace is to use it. An adaptive solver chooses its steps,
            and noise is drawn, batch by batch; otherwise the batch size changes nothing.
        generator: Source of dequantisation and trace noise.
    """

    def measured(part: Num[Tensor, "batch *event"]) -> list[Tensor]:
        batch = data.dequantised(part.to(generator.device), generator)
        if rule.trace == "estimate" and isinstance(model, HasLogProbEstimate):
            values = rows_of(model, "log_prob_estimate", batch, generator)
        else:
            values = rows_of(model, "log_prob", batch)
        values = precise(values)
        return [values] if data.dequantise is None else [values, batch]

    values, *inputs = zip(*each(x.split(rule.batch_size), measured, generator), strict=True)
    return torch.cat(values), torch.cat(inputs[0]) if inputs else x


@metric("nll", needs=HasLogProb, words="a log density")
def likelihood_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the negative log-likelihood, and the gap to the entropy where the density is known.

    ``nll`` is in the data set's unit. Sets in bits per dimension also give ``nll_nats``, in the
    model's own coordinates. ``gap`` is the mean of ``log p(x) - log q(x)`` over the same test
    points: an unbiased estimate of the distance to the entropy in nats that has a far smaller
    error than the difference of two averages. Standard errors are over test points.

    Raises:
        RunFailure: When a likelihood is not finite.
    """
    data, spec, protocol = evaluation.data, evaluation.spec, evaluation.protocol
    x, split = evaluation.examples, spec.split
    nats, inputs = log_likelihoods(evaluation.model, data, x, spec, evaluation.generator())
    require_finite(nats, "the log-likelihood", f"{split} points")
    unit = "nats" if data.to_unit is None else data.unit
    metrics = [mean_metric("nll", negative_in_unit(data, nats, inputs), unit, split, protocol)]
    if data.to_unit is not None:
        metrics.append(mean_metric("nll_nats", -nats, "nats", split, protocol))
    if data.log_density is not None:
        density, parts = data.log_density, x.split(spec.batch_size)
        true = torch.cat(list(each(parts, lambda part: density(part.double()))))
        paired = "log p(x) - log q(x) on the same test points; " + protocol
        metrics.append(mean_metric("gap", true.to(nats.device) - nats, "nats", split, paired))
    return metrics


def negative_in_unit(
    data: Dataset, nats: Float[Tensor, " n"], inputs: Num[Tensor, "n *event"]
) -> Float[Tensor, " n"]:
    """Return negative log-likelihoods in the data set's unit, of the inputs that they are of."""
    return -nats if data.to_unit is None else data.to_unit(nats, inputs)


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
