"""The evaluation protocol of a recipe, applied to a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError, did_you_mean
from dgm_bench.metrics.abilities.abilities import ability_metrics, require_two_dimensions
from dgm_bench.metrics.abilities.exactness import require_standard_prior
from dgm_bench.metrics.bounds.avb import avb_metrics, require_bounds
from dgm_bench.metrics.bounds.likelihood import likelihood_metrics
from dgm_bench.metrics.bounds.surgery import surgery_metrics
from dgm_bench.metrics.bounds.variational import elbo_metrics, importance_metrics, require_samples
from dgm_bench.metrics.gradients.relaxation import ESTIMATORS, relaxation_metrics
from dgm_bench.metrics.gradients.solver_gradients import gradient_metrics, residual_metrics
from dgm_bench.metrics.images.diversity import (
    code_metrics,
    reconstructed_metrics,
    require_codes,
    require_image_evaluation,
    sample_metrics,
)
from dgm_bench.models.capabilities import (
    CalibratesOnData,
    DrawsImages,
    HasDecoder,
    HasLogProb,
    HasLogProbEstimate,
    HasPosteriorDraws,
    Reconstructs,
    SolvesODE,
)
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.models.continuous.flow import SolvedFlow
from dgm_bench.models.latent.discrete import DiscreteVAE
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec

MetricFunction = Callable[[nn.Module, Dataset, EvaluationSpec, torch.Generator, str], list[Metric]]


def prepare(model: nn.Module, data: Dataset, spec: EvaluationSpec) -> None:
    """Put the model into evaluation mode: statistics of the training set, the solver's settings."""
    model.eval()
    if isinstance(model, CalibratesOnData):
        model.calibrate(data.splits["train"])
    if spec.model_overrides and isinstance(model, SolvesODE):
        model.solve_with(**spec.model_overrides)


def evaluate(model: nn.Module, data: Dataset, spec: EvaluationSpec, seed: int) -> list[Metric]:
    """Return the metrics of a prepared model; noise depends on the seed alone.

    Raises:
        DeclarationError: As :func:`require_fit`.
        RunFailure: When a value is not finite.
    """
    require_fit(spec, model, data)
    device = next(model.parameters(), data.splits[spec.split]).device
    found: list[Metric] = []
    for name in spec.metrics:
        generator = torch.Generator(device).manual_seed(seed)
        found += METRICS[name](model, data, spec, generator, _protocol(model, spec))
    return found


def _protocol(model: nn.Module, spec: EvaluationSpec) -> str:
    """Say in words how the number was taken."""
    parts = [f"{spec.checkpoint} checkpoint", "float64 sums"]
    if isinstance(model, SolvesODE):
        # Without an estimate of the density a model in evaluation mode has exact traces.
        trace = spec.trace if isinstance(model, HasLogProbEstimate) else "exact"
        parts = [f"{trace} trace", model.solver_settings, *parts]
    return "; ".join(parts)


def _likelihood(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    return likelihood_metrics(
        model,
        data,
        split=spec.split,
        batch_size=spec.batch_size,
        trace=spec.trace,
        generator=generator,
        protocol=protocol,
    )


def _abilities(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    return ability_metrics(model, data, split=spec.split, generator=generator, protocol=protocol)


METRICS: dict[str, MetricFunction] = {
    "nll": _likelihood,
    "elbo": elbo_metrics,
    "importance": importance_metrics,
    "surgery": surgery_metrics,
    "avb": avb_metrics,
    "abilities": _abilities,
    "gradients": gradient_metrics,
    "residual-network": residual_metrics,
    "samples": sample_metrics,
    "reconstructions": reconstructed_metrics,
    "codes": code_metrics,
    **{f"relaxation-{name}": relaxation_metrics(name) for name in ESTIMATORS},
}

#: What a metric needs of a model, and in words.
NEEDS: dict[str, tuple[type, str]] = {
    "nll": (HasLogProb, "a log density"),
    "elbo": (HasPosteriorDraws, "draws from a posterior"),
    "importance": (HasPosteriorDraws, "draws from a posterior"),
    "avb": (HasDecoder, "a decoder"),
    "surgery": (LatentVariableModel, "latent variables with a Gaussian posterior"),
    "gradients": (SolvedFlow, "continuous flows"),
    "residual-network": (SolvedFlow, "continuous flows"),
    "samples": (DrawsImages, "samples of images"),
    "reconstructions": (Reconstructs, "reconstructions"),
    "codes": (TwoStage, "codes and a prior for each level"),
    **{f"relaxation-{name}": (DiscreteVAE, "discrete latent variables") for name in ESTIMATORS},
}


def _surgery_fits(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    cast(LatentVariableModel, model).require_gaussian("metric 'surgery'")


def _abilities_fit(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    require_two_dimensions(model, data)
    require_standard_prior(model, "metric 'abilities'")


#: What else a metric needs; each raises a :class:`DeclarationError` where that is not there.
CHECKS: dict[str, Callable[[EvaluationSpec, nn.Module, Dataset], object]] = {
    "importance": lambda spec, model, data: require_samples(spec),
    "surgery": _surgery_fits,
    "avb": lambda spec, model, data: require_bounds(model),
    "abilities": _abilities_fit,
    "samples": require_image_evaluation,
    "reconstructions": require_image_evaluation,
    "codes": require_codes,
}


def require_fit(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse a protocol that a model or data set cannot serve, before anything is trained.

    Raises:
        DeclarationError: A metric is not known, needs what the model or the data lacks, or an
            option that is not set.
    """
    for name in spec.metrics:
        if name not in METRICS:
            remedy = did_you_mean(name, METRICS) or f"known: {', '.join(METRICS)}"
            raise DeclarationError(f"metric {name!r}", "is not known", remedy)
        needed, words = NEEDS.get(name, (nn.Module, ""))
        if not isinstance(model, needed):
            reason = f"needs {words}, which {type(model).__name__} lacks"
            raise DeclarationError(f"metric {name!r}", reason, "measure something else of it")
        if name in CHECKS:
            CHECKS[name](spec, model, data)
