"""How good and how diverse a model's images are: its samples, and what is left by its codes.

VQ-VAE-2 (Razavi et al. 2019, section 5) and whatever draws images are judged alike: scores of
features against the training set, and the accuracy of a classifier trained on the images alone.
Images are bytes here, as they would be in a file.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dgm_bench.data import default_root
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.labelled_images import pixels
from dgm_bench.data.weights import find_weights
from dgm_bench.errors import DataError, DeclarationError
from dgm_bench.metrics.images.classifier import require_classes
from dgm_bench.metrics.images.codes import (
    codebook_metrics,
    prior_metrics,
    reconstruction_metrics,
)
from dgm_bench.metrics.images.image_bytes import Bytes, gathered, require_room
from dgm_bench.metrics.images.image_evaluator import ImageEvaluator, spread
from dgm_bench.metrics.images.rejection import most_confident, own_probabilities, rejection_curve
from dgm_bench.metrics.images.requirements import require_sample_sizes
from dgm_bench.models.capabilities import DrawsImages, HasCodes, Reconstructs
from dgm_bench.models.codes.packing import encoded
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec

#: Fractions of a pool that a rejection curve keeps, where the pool allows.
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


# ----------------------------------------------------------------------------- samples


def sample_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the scores of images that the model draws, as many of each class as of any other.

    With rejection there are the same scores of what is kept, their names begun by ``rejected-``,
    and precision and recall at other thresholds, their names ended by ``-kept-<per cent>``.
    """
    sampler, settings = cast(DrawsImages, model), _settings(spec)
    evaluator = ImageEvaluator(data, settings, _device(model))
    labels = torch.arange(math.ceil(settings.samples / (settings.keep or 1.0))) % (
        sampler.classes or 1
    )
    pool = drawn(sampler, labels, spec.batch_size, generator)
    known = sampler.classes is not None
    first = slice(settings.samples)
    how = f"{settings.samples} samples drawn; {protocol}"
    found = evaluator.scored(pool[first], labels[first] if known else None, "", generator, how)
    if settings.keep is None:
        return found
    confidence = own_probabilities(evaluator.trained, pool, labels)
    kept = in_turn(most_confident(confidence, labels, settings.keep).cpu(), labels)[first]
    of = f"the {settings.keep:.0%} of which the classifier is surest, of {len(pool)}; {protocol}"
    if "classifier" in settings.features:
        of = f"judged by the classifier that rejects; {of}"
    found += evaluator.scored(pool[kept], labels[kept], "rejected-", generator, of)
    return found + _curve(evaluator, pool, labels, confidence, protocol)


@torch.no_grad()
def drawn(
    model: DrawsImages, labels: Int[Tensor, " n"], batch_size: int, generator: torch.Generator
) -> Bytes:
    """Return images of the given classes, ``batch_size`` at a time, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    device = generator.device
    parts = (model.draw_images(own.to(device), generator) for own in labels.split(batch_size))
    return gathered(parts, len(labels))


def _curve(
    evaluator: ImageEvaluator,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    confidence: Tensor,
    protocol: str,
) -> list[Metric]:
    """Return precision and recall as the threshold moves, of equally many images each."""
    from dgm_bench.metrics.images.fidelity import precision_recall

    settings = evaluator.settings
    size = settings.compared or settings.samples
    fractions = [kept for kept in KEPT if kept * len(pool) >= size]
    chosen = rejection_curve(labels, confidence, fractions, size)
    found = []
    for reference in evaluator.references.values():
        features = reference.extract(pool)[reference.extractor.layers.features]
        for kept, indices in chosen.items():
            part = features[indices.cpu()]
            for metric in precision_recall(part, reference, settings.neighbours, protocol):
                found.append(metric.model_copy(update={"name": f"{metric.name}-kept-{kept:.0%}"}))
    return found


# ----------------------------------------------------------------------------- reconstructions


def reconstructed_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return the scores of reconstructions of held-out images, their names begun accordingly.

    The classification accuracy score is that of reconstructions of the training set. With
    :class:`~dgm_bench.models.codes.identity.Identity` all are of real images.
    """
    settings, coder, size = _settings(spec), cast(Reconstructs, model), spec.batch_size
    evaluator, device = ImageEvaluator(data, settings, _device(model)), generator.device
    held_out = spread(data.splits["test"], settings.compared or settings.samples)
    images = reconstructed(coder, held_out, size, device)
    how = f"{len(images)} held-out images; {protocol}"
    found = evaluator.scores(images, "reconstruction-", generator, how)
    if settings.score and data.classes:
        # As many as samples are learnt from: otherwise the accuracies would not compare.
        train = reconstructed(coder, spread(data.splits["train"], settings.samples), size, device)
        labels = spread(data.labels["train"], settings.samples).cpu()
        how = f"of training images; {protocol}"
        found += evaluator.accuracy(train, labels, "reconstruction-", generator.initial_seed(), how)
    return found


@torch.no_grad()
def reconstructed(
    model: Reconstructs, images: Tensor, batch_size: int, device: torch.device
) -> Bytes:
    """Return reconstructions of images, ``batch_size`` at a time, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    parts = (model.reconstruct(pixels(part.to(device))) for part in images.split(batch_size))
    return gathered(parts, len(images))


# ----------------------------------------------------------------------------- codes


def code_metrics(
    model: nn.Module,
    data: Dataset,
    spec: EvaluationSpec,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return reconstruction error, use of the codebooks, and the priors' negative log-likelihood.

    Those of the training set have names that end in ``-train``.
    """
    found: list[Metric] = []
    coder = model.autoencoder if isinstance(model, TwoStage) else model
    for split in ("test", "train"):
        options: dict[str, Any] = {
            "split": split,
            "batch_size": spec.batch_size,
            "protocol": protocol,
        }
        noisy = {**options, "generator": generator}
        found += reconstruction_metrics(cast(Reconstructs, model), data, **noisy)
        found += codebook_metrics(cast(HasCodes, coder), data, **noisy)
        if isinstance(model, TwoStage):
            images, labels = data.splits[split], data.labels.get(split)
            packed = encoded(model.coder, images, labels, spec.batch_size, _device(model))
            priors = [model.prior(level) for level in range(len(model.priors))]
            found += prior_metrics(priors, packed, model.coder.grids, **options)
    return found


# ----------------------------------------------------------------------------- small things


def in_turn(indices: Int[Tensor, " n"], labels: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """Return the indices so that the classes of what they point at take turns, as drawn."""
    own = labels[indices]
    rank = torch.zeros_like(indices)
    for label in own.unique().tolist():
        rank[own == label] = torch.arange(int((own == label).sum()))
    return indices[(rank * (int(labels.max()) + 1) + own).argsort()]


def _device(model: nn.Module) -> torch.device:
    """Return where the model is; one without parameters is on the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _settings(spec: EvaluationSpec) -> ImageEvaluationSpec:
    if spec.judge is None:
        reason, remedy = "are asked for without evaluation.judge", "say how images are judged"
        raise DeclarationError("metrics of images", reason, remedy)
    return spec.judge


def require_image_evaluation(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse what cannot be judged, before anything is trained.

    Raises:
        DeclarationError: There are too few images, classes are missing, or rejection is asked of
            a model that knows no classes.
        DataError: Weights of a network are missing or not the published ones.
    """
    settings = _settings(spec)
    _require_test(spec)
    compared = min(settings.compared or settings.samples, settings.samples)
    if "reconstructions" in spec.metrics:
        compared = min(compared, len(data.splits["test"]))
    within = settings.model_copy(update={"samples": compared})
    require_sample_sizes(within, len(data.splits["train"]))
    if "classifier" in settings.features or settings.keep is not None:
        require_classes(data)
        _require_cache()
    require_room(math.ceil(settings.samples / (settings.keep or 1.0)) * data.dim)
    require_same_classes(model, data)
    if settings.keep is not None and getattr(model, "classes", None) is None:
        reason = f"keeps what a classifier is sure of, and {type(model).__name__} knows no classes"
        raise DeclarationError("evaluation.judge.keep", reason, "leave it out")
    _require_weights(settings)


def require_codes(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse what the metrics of codes cannot serve.

    Raises:
        DeclarationError: Another split than test, or another number of classes than the data has.
    """
    _require_test(spec)
    require_same_classes(model, data)


def _require_test(spec: EvaluationSpec) -> None:
    """Refuse a split that would be ignored: images are held out in ``test`` alone."""
    if spec.split != "test":
        thing, reason = f"evaluation.split={spec.split}", "images are judged on test"
        raise DeclarationError(thing, reason, "leave it out")


def _require_cache() -> None:
    """Refuse a data root that cannot keep the classifier.

    Raises:
        DataError: It cannot be written.
    """
    folder = default_root() / "classifiers"
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


def _require_weights(settings: ImageEvaluationSpec) -> None:
    for name in settings.weights:
        find_weights(name, default_root())
