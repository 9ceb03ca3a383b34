"""Training losses by name: a function of model, batch, step and noise to a loss and its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, did_you_mean
from dgm_bench.models.capabilities import HasLogProb, HasLogProbEstimate
from dgm_bench.spec import ObjectiveSpec


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and named parts of it, all on the device and not yet read."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


Objective = Callable[[nn.Module, Tensor, int, torch.Generator], Loss]


def negative_log_likelihood(trace: str = "estimate") -> Objective:
    """Return the mean negative log-likelihood in nats.

    A continuous flow is trained on Hutchinson's estimate (FFJORD, section 3.1) unless ``trace`` is
    ``exact``; models whose density is explicit have one form only.
    """

    def objective(model: nn.Module, x: Tensor, step: int, generator: torch.Generator) -> Loss:
        if trace == "estimate" and isinstance(model, HasLogProbEstimate):
            return Loss(-model.log_prob_estimate(x, generator).mean())
        return Loss(-cast(HasLogProb, model).log_prob(x).mean())

    return objective


OBJECTIVES: dict[str, Callable[..., Objective]] = {"nll": negative_log_likelihood}


def build_objective(spec: ObjectiveSpec) -> Objective:
    """Return the objective a recipe names.

    Raises:
        DeclarationError: When no objective has that name, or an argument does not fit.
    """
    if spec.name not in OBJECTIVES:
        remedy = did_you_mean(spec.name, OBJECTIVES) or f"known: {', '.join(OBJECTIVES)}"
        raise DeclarationError(f"objective {spec.name!r}", "is not known", remedy)
    args: dict[str, Any] = spec.args
    try:
        return OBJECTIVES[spec.name](**args)
    except TypeError as error:
        raise DeclarationError(f"objective {spec.name!r}", str(error), "mend its args") from error
