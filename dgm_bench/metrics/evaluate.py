"""The evaluation protocol of a recipe, applied to a trained model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter
from torch import nn

from dgm_bench.control import ask
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import Journal
from dgm_bench.metrics.abilities import abilities
from dgm_bench.metrics.bounds import active_units, avb, likelihood, prediction, surgery, variational
from dgm_bench.metrics.classification import errors
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.gradients import relaxation, solver_gradients
from dgm_bench.metrics.images import captions, codes, reconstructions, samples
from dgm_bench.metrics.registry import METRICS
from dgm_bench.models.capabilities import CalibratesOnData, SolvesODE
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec

#: The files that declare metrics, which :data:`METRICS` knows once they are imported.
DECLARED_IN = (
    likelihood,
    variational,
    active_units,
    prediction,
    surgery,
    avb,
    abilities,
    errors,
    solver_gradients,
    samples,
    reconstructions,
    codes,
    captions,
    relaxation,
)

_METRICS = TypeAdapter(list[Metric])


def prepare(model: nn.Module, data: Dataset, spec: EvaluationSpec) -> None:
    """Put the model into evaluation mode: statistics of the training set, the solver's settings."""
    model.eval()
    if isinstance(model, CalibratesOnData):
        model.calibrate(data.splits["train"])
    if spec.model_overrides and isinstance(model, SolvesODE):
        model.solve_with(**spec.model_overrides)


def evaluate(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    seed: int,
    data_root: Path,
    journal: Journal | None = None,
) -> list[Metric]:
    """Return the metrics of a prepared model; noise depends on the seed alone.

    Args:
        model: As :func:`prepare` leaves it.
        data: The data set, on the model's device unless its splits stay on the host.
        spec: The evaluation protocol.
        seed: The run's.
        data_root: Folder of data sets, published weights and trained classifiers.
        journal: Where what is measured is kept until all is, or None.

    Raises:
        DeclarationError: As :func:`require_fit`.
        DataError: As :func:`require_fit`.
        Interrupted: It is time to stop.
        RunFailure: When a value is not finite.
    """
    require_fit(spec, model, data, data_root)
    evaluation = Evaluation(model, data, spec, seed, data_root)
    found: list[Metric] = []
    for name in spec.metrics:
        ask()
        measure = partial(METRICS[name].measure, evaluation)
        found += measure() if journal is None else _kept(journal, name, measure)
    return found


def _kept(journal: Journal, name: str, measure: Callable[[], list[Metric]]) -> list[Metric]:
    text = journal.text(name, lambda: _METRICS.dump_json(measure()).decode())
    return _METRICS.validate_json(text)


def require_fit(spec: EvaluationSpec, model: nn.Module, data: Dataset, data_root: Path) -> None:
    """Refuse a protocol that a model or data set cannot serve, before anything is trained.

    Raises:
        DeclarationError: A metric is not known, needs what the model or the data lacks, or an
            option that is not set; or there are settings of a solver, and the model has none.
        DataError: Weights of a network are missing or not the published ones, or the data root
            cannot be written.
    """
    if spec.model_overrides and not isinstance(model, SolvesODE):
        thing, reason = "evaluation.model_overrides", f"{type(model).__name__} has no solver"
        raise DeclarationError(thing, reason, "leave them out")
    evaluation = Evaluation(model, data, spec, 0, data_root)
    for name in spec.metrics:
        METRICS[name].require_fit(evaluation)


def require_known(spec: EvaluationSpec) -> None:
    """Refuse metrics that there are not, before even data are loaded.

    Raises:
        DeclarationError: A metric is not known.
    """
    for name in spec.metrics:
        _ = METRICS[name]
