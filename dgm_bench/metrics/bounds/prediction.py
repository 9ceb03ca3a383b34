"""How well a stochastic network predicts half of an example, by two readings of one paper."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.bounds.likelihood import mean_metric
from dgm_bench.metrics.bounds.variational import NUMBERS_AT_ONCE, check_samples, require_samples
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.finite import require_finite
from dgm_bench.metrics.registry import metric
from dgm_bench.models.latent.structured_prediction import StructuredPrediction
from dgm_bench.records import Metric


@metric(
    "prediction", needs=StructuredPrediction, words="structured prediction", check=check_samples
)
def prediction_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the negative log-likelihood of the lower half, of m draws, by two averages.

    ``prediction-mean`` averages ``-log p(lower|h)``, as the formula of Jang et al. (2016,
    https://arxiv.org/abs/1611.01144, section 4.1) is printed; its expectation does not depend on m.
    ``prediction-nll`` is minus the log of the average of ``p(lower|h)``, the multi-sample bound
    that the text around the formula speaks of. Both are of the same draws; the second is smaller.

    Raises:
        DeclarationError: The number of draws is not said.
        RunFailure: A value is not finite.
    """
    samples, spec = require_samples(evaluation), evaluation.spec
    model, generator = cast(StructuredPrediction, evaluation.model), evaluation.generator()
    x = evaluation.data.dequantised(evaluation.examples, generator)
    rows = max(1, NUMBERS_AT_ONCE // (samples * model.half_dim))
    parts = each(x.split(rows), lambda part: _averages(model, part, samples, generator), generator)
    of_logs, of_values = torch.cat(list(parts)).unbind(1)
    require_finite(of_logs, "the log-likelihood", f"{spec.split} examples")
    how = f"{samples:,} draws for each example; {evaluation.protocol}"
    return [
        mean_metric("prediction-mean", -of_logs, "nats", spec.split, f"mean of logs; {how}"),
        mean_metric("prediction-nll", -of_values, "nats", spec.split, f"log of the mean; {how}"),
    ]


@torch.no_grad()
def _averages(
    model: StructuredPrediction,
    x: Float[Tensor, "n *event"],
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "n 2"]:
    fit = model.log_likelihoods(x, samples, generator).double()
    return torch.stack([fit.mean(1), fit.logsumexp(1) - math.log(samples)], 1)
