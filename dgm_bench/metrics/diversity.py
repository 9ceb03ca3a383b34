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
from dgm_bench.metrics.classifier import require_classes
from dgm_bench.metrics.codes import (
    codebook_metrics,
    prior_metrics,
    reconstruction_metrics,
)
from dgm_bench.metrics.court import Court, spread
from dgm_bench.metrics.fidelity.enough import require_enough
from dgm_bench.metrics.image_bytes import Bytes, gathered, require_room
from dgm_bench.metrics.rejection import most_confident, own_probabilities, rejection_curve
from dgm_bench.models.capabilities import DrawsImages, HasCodes, Reconstructs
from dgm_bench.models.packing import encoded
from dgm_bench.models.two_stage import TwoStage
from dgm_bench.records import Metric
from dgm_bench.spec import EvaluationSpec, JudgeSpec

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
    sampler, judge = cast(DrawsImages, model), _judge(spec)
    court = Court(data, judge, _device(model))
    labels = torch.arange(math.ceil(judge.samples / (judge.keep or 1.0))) % (sampler.classes or 1)
    pool = drawn(sampler, labels, spec.batch_size, generator)
    known = sampler.classes is not None
    first = slice(judge.samples)
    how = f"{judge.samples} samples drawn; {protocol}"
    found = court.judged(pool[first], labels[first] if known else None, "", generator, how)
    if judge.keep is None:
        return found
    confidence = own_probabilities(court.trained, pool, labels)
    kept = in_turn(most_confident(confidence, labels, judge.keep).cpu(), labels)[first]
    of = f"the {judge.keep:.0%} of which the classifier is surest, of {len(pool)}; {protocol}"
    if "classifier" in judge.features:
        of = f"judged by the classifier that rejects; {of}"
    found += court.judged(pool[kept], labels[kept], "rejected-", generator, of)
    return found + _curve(court, pool, labels, confidence, protocol)


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
    court: Court,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    confidence: Tensor,
    protocol: str,
) -> list[Metric]:
    """Return precision and recall as the threshold moves, of equally many images each."""
    from dgm_bench.metrics.fidelity.judge import precision_recall

    judge = court.judge
    size = judge.compared or judge.samples
    fractions = [kept for kept in KEPT if kept * len(pool) >= size]
    chosen = rejection_curve(labels, confidence, fractions, size)
    found = []
    for reference in court.references.values():
        features = reference.extract(pool)[reference.extractor.layers.features]
        for kept, indices in chosen.items():
            part = features[indices.cpu()]
            for metric in precision_recall(part, reference, judge.neighbours, protocol):
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
    :class:`~dgm_bench.models.identity.Identity` all are of real images.
    """
    judge, coder, size = _judge(spec), cast(Reconstructs, model), spec.batch_size
    court, device = Court(data, judge, _device(model)), generator.device
    held_out = spread(data.splits["test"], judge.compared or judge.samples)
    images = reconstructed(coder, held_out, size, device)
    how = f"{len(images)} held-out images; {protocol}"
    found = court.scores(images, "reconstruction-", generator, how)
    if judge.score and data.classes:
        # As many as samples are learnt from: otherwise the accuracies would not compare.
        train = reconstructed(coder, spread(data.splits["train"], judge.samples), size, device)
        labels = spread(data.labels["train"], judge.samples).cpu()
        how = f"of training images; {protocol}"
        found += court.accuracy(train, labels, "reconstruction-", generator.initial_seed(), how)
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


def _judge(spec: EvaluationSpec) -> JudgeSpec:
    if spec.judge is None:
        reason, remedy = "are asked for without evaluation.judge", "say how images are judged"
        raise DeclarationError("metrics of images", reason, remedy)
    return spec.judge


def require_judge(spec: EvaluationSpec, model: nn.Module, data: Dataset) -> None:
    """Refuse what cannot be judged, before anything is trained.

    Raises:
        DeclarationError: There are too few images, classes are missing, or rejection is asked of
            a model that knows no classes.
        DataError: Weights of a network are missing or not the published ones.
    """
    judge = _judge(spec)
    _require_test(spec)
    compared = min(judge.compared or judge.samples, judge.samples)
    if "reconstructions" in spec.metrics:
        compared = min(compared, len(data.splits["test"]))
    within = judge.model_copy(update={"samples": compared})
    require_enough(within, len(data.splits["train"]))
    if "classifier" in judge.features or judge.keep is not None:
        require_classes(data)
        _require_cache()
    require_room(math.ceil(judge.samples / (judge.keep or 1.0)) * data.dim)
    require_same_classes(model, data)
    if judge.keep is not None and getattr(model, "classes", None) is None:
        reason = f"keeps what a classifier is sure of, and {type(model).__name__} knows no classes"
        raise DeclarationError("evaluation.judge.keep", reason, "leave it out")
    _require_weights(judge)


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


def _require_weights(judge: JudgeSpec) -> None:
    for name in judge.weights:
        find_weights(name, default_root())
