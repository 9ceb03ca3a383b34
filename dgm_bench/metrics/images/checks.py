"""Refusals of metrics of images, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.data.weights import find_weights
from dgm_bench.errors import DataError, DataUnavailable, DeclarationError
from dgm_bench.extras import needing
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.classifier import require_classes
from dgm_bench.metrics.images.image_bytes import require_room
from dgm_bench.metrics.images.image_evaluator import classifier_folder, required_settings
from dgm_bench.metrics.images.requirements import require_sample_sizes
from dgm_bench.models.capabilities import DrawsTruncated
from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec


def require_image_evaluation(evaluation: Evaluation) -> None:
    """Refuse images that cannot be compared with real ones.

    Raises:
        DeclarationError: There are too few images, classes are missing, rejection is asked of a
            model that knows no classes, or truncation of one that has none.
        DataError: Weights of a network are missing or not the published ones, or the data root
            cannot be written.
        DataUnavailable: What compares images is not installed.
    """
    with needing("a metric of images", DataUnavailable):
        import torch_fidelity  # noqa: F401
    model, data, spec = evaluation.model, evaluation.data, evaluation.spec
    settings = required_settings(spec)
    _require_test(spec)
    require_sample_sizes(_as_compared(settings, spec, data), len(data.splits["train"]))
    if settings.needs_classifier:
        require_classes(data)
        _require_writable(classifier_folder(evaluation.data_root))
    require_room(settings.drawn * data.dim)
    require_same_classes(model, data)
    if settings.keep is not None and getattr(model, "classes", None) is None:
        reason = f"keeps what a classifier is sure of, and {type(model).__name__} knows no classes"
        raise DeclarationError("evaluation.judge.keep", reason, "leave it out")
    if settings.truncations and not isinstance(model, DrawsTruncated):
        reason = f"truncate noise, which {type(model).__name__} cannot draw from nearer its centre"
        raise DeclarationError("evaluation.judge.truncations", reason, "leave them out")
    for name in settings.weights:
        find_weights(name, evaluation.data_root)


def _as_compared(
    settings: ImageEvaluationSpec, spec: EvaluationSpec, data: Dataset
) -> ImageEvaluationSpec:
    """Return the settings with the smallest number of images that are compared."""
    compared = min(settings.compared or settings.samples, settings.samples)
    if "reconstructions" in spec.metrics:
        compared = min(compared, len(data.splits["test"]))
    return settings.model_copy(update={"samples": compared})


def require_codes(evaluation: Evaluation) -> None:
    """Refuse what the metrics of codes cannot serve.

    Raises:
        DeclarationError: Another split than test, or another number of classes than the data has.
    """
    _require_test(evaluation.spec)
    require_same_classes(evaluation.model, evaluation.data)


def _require_test(spec: EvaluationSpec) -> None:
    """Refuse a split that would be ignored: images are held out in ``test`` alone."""
    if spec.split != "test":
        thing, reason = f"evaluation.split={spec.split}", "images are compared with those of test"
        raise DeclarationError(thing, reason, "leave it out")


def _require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written: the classifier is to be stored there.

    Raises:
        DataError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason, remedy = f"cannot be written ({error.strerror})", "name another with --data-root"
        raise DataError(folder, reason, remedy) from error


def require_same_classes(model: nn.Module, data: Dataset) -> None:
    """Refuse a model that knows another number of classes than the data has.

    Raises:
        DeclarationError: It does.
    """
    known = getattr(model, "classes", None)
    if known is not None and known != len(data.classes):
        reason = f"knows {known} classes, and {data.name} has {len(data.classes)}"
        raise DeclarationError(type(model).__name__, reason, "give its priors as many")
