"""How good and how diverse the images are that a model draws.

VQ-VAE-2 (Razavi et al. 2019, section 5) and any other model that draws images are evaluated alike:
scores of features against the training set, and the accuracy of a classifier trained on the images
alone. Images are bytes here, as they would be in a file.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.checks import require_image_evaluation
from dgm_bench.metrics.images.curves import rejection_scores, truncation_scores
from dgm_bench.metrics.images.image_bytes import Bytes, as_bytes, gathered
from dgm_bench.metrics.images.image_evaluator import ImageEvaluator, image_evaluator
from dgm_bench.metrics.images.rejection import most_confident, own_probabilities
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import DrawsImages, DrawsTruncated
from dgm_bench.models.whole_batch import rows_of
from dgm_bench.records import Metric


@metric("samples", needs=DrawsImages, words="samples of images", check=require_image_evaluation)
def sample_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the scores of images that the model draws, as many of each class as of any other.

    With rejection there are the same scores of what the classifier accepts, their names begun by
    ``rejected-``, and a curve of scores at other thresholds, their names ended by
    ``-kept-<per cent>``. With truncation there are the scores of images of truncated noise, their
    names ended by ``-truncated-<threshold>``.
    """
    sampler, generator = cast(DrawsImages, evaluation.model), evaluation.generator()
    evaluator = evaluation.once(image_evaluator)
    settings = evaluator.settings
    labels = torch.arange(settings.drawn) % (sampler.classes or 1)
    pool = drawn(sampler, labels, evaluation.spec.batch_size, generator)
    known = labels[: settings.samples] if sampler.classes is not None else None
    how = f"{settings.samples} samples drawn; {evaluation.protocol}"
    found = evaluator.scored(pool[: settings.samples], known, "", generator, how)
    if settings.keep is not None:
        found += _rejected(evaluation, pool, labels, generator)
    for truncation in settings.truncations:
        found += _truncated(evaluation, labels[: settings.samples], truncation)
    return found


def _rejected(
    evaluation: Evaluation, pool: Bytes, labels: Int[Tensor, " n"], generator: torch.Generator
) -> list[Metric]:
    """Return the scores of what the classifier accepts, and those of the curve."""
    evaluator = evaluation.once(image_evaluator)
    settings = evaluator.settings
    confidence = own_probabilities(evaluator.trained, pool, labels)
    chosen = most_confident(confidence, labels, cast(float, settings.keep)).cpu()
    accepted = in_turn(chosen, labels)[: settings.samples]
    how = _words(evaluator, evaluation.protocol)
    found = evaluator.scored(pool[accepted], labels[accepted], "rejected-", generator, how)
    protocol = evaluation.protocol
    return found + rejection_scores(evaluator, pool, labels, confidence, generator, protocol)


def _truncated(
    evaluation: Evaluation, labels: Int[Tensor, " n"], truncation: float
) -> list[Metric]:
    """Return the scores of images of truncated noise, which at every threshold has one source."""
    sampler, generator = cast(DrawsTruncated, evaluation.model), evaluation.generator()
    images = drawn(sampler, labels, evaluation.spec.batch_size, generator, truncation)
    known = labels if sampler.classes is not None else None
    evaluator = evaluation.once(image_evaluator)
    how = evaluation.protocol
    return truncation_scores(evaluator, images, known, truncation, generator, how)


def _words(evaluator: ImageEvaluator, protocol: str) -> str:
    """Say how samples were rejected."""
    settings = evaluator.settings
    part = f"the {settings.keep:.0%} of which the classifier is surest, of {settings.drawn}"
    alike = "classifier" in settings.features
    return f"{'judged by the classifier that rejects; ' if alike else ''}{part}; {protocol}"


@torch.no_grad()
def drawn(
    model: DrawsImages,
    labels: Int[Tensor, " n"],
    batch_size: int,
    generator: torch.Generator,
    truncation: float | None = None,
) -> Bytes:
    """Return images of the given classes, ``batch_size`` at a time, on the host.

    Args:
        model: Draws them.
        labels: The classes.
        batch_size: Images at a time.
        generator: Source of noise.
        truncation: Threshold of the noise, where it is truncated.

    Raises:
        RunFailure: A pixel is not finite.
    """
    device = generator.device

    def images(own: Int[Tensor, " batch"]) -> Bytes:
        if truncation is None:
            return as_bytes(rows_of(model, "draw_images", own.to(device), generator))
        truncated = cast(DrawsTruncated, model)
        return as_bytes(truncated.draw_truncated(own.to(device), truncation, generator))

    return gathered(each(labels.split(batch_size), images, generator), len(labels))


def in_turn(indices: Int[Tensor, " n"], labels: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """Return the indices so that the classes of what they point at take turns, as drawn."""
    own = labels[indices]
    rank = torch.zeros_like(indices)
    for label in own.unique().tolist():
        rank[own == label] = torch.arange(int((own == label).sum()))
    return indices[(rank * (int(labels.max()) + 1) + own).argsort()]
