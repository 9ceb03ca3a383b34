"""How good and how diverse the images are that a model draws.

VQ-VAE-2 (Razavi et al. 2019, section 5) and any other model that draws images are evaluated alike:
scores of features against the training set, and the accuracy of a classifier trained on the images
alone. Images are bytes here, as they would be in a file.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.kept import each
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images.checks import require_image_evaluation
from dgm_bench.metrics.images.image_bytes import Bytes, as_bytes, gathered
from dgm_bench.metrics.images.image_evaluator import ImageEvaluator, image_evaluator
from dgm_bench.metrics.images.rejection import most_confident, own_probabilities, rejection_curve
from dgm_bench.metrics.registry import metric
from dgm_bench.models.capabilities import DrawsImages
from dgm_bench.models.whole_batch import rows_of
from dgm_bench.records import Metric

#: Fractions of the drawn images that a rejection curve accepts, where there are enough of them.
FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@metric("samples", needs=DrawsImages, words="samples of images", check=require_image_evaluation)
def sample_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the scores of images that the model draws, as many of each class as of any other.

    With rejection there are the same scores of what the classifier accepts, their names begun by
    ``rejected-``, and precision and recall at other thresholds, their names ended by
    ``-kept-<per cent>``.
    """
    sampler, generator = cast(DrawsImages, evaluation.model), evaluation.generator()
    evaluator = evaluation.once(image_evaluator)
    settings = evaluator.settings
    labels = torch.arange(settings.drawn) % (sampler.classes or 1)
    pool = drawn(sampler, labels, evaluation.spec.batch_size, generator)
    known = sampler.classes is not None
    first = slice(settings.samples)
    how = f"{settings.samples} samples drawn; {evaluation.protocol}"
    found = evaluator.scored(pool[first], labels[first] if known else None, "", generator, how)
    if settings.keep is None:
        return found
    confidence = own_probabilities(evaluator.trained, pool, labels)
    chosen = most_confident(confidence, labels, settings.keep).cpu()
    accepted = in_turn(chosen, labels)[first]
    how = _words(evaluator, evaluation.protocol)
    found += evaluator.scored(pool[accepted], labels[accepted], "rejected-", generator, how)
    return found + _curve(evaluator, pool, labels, confidence, evaluation.protocol)


def _words(evaluator: ImageEvaluator, protocol: str) -> str:
    """Say how samples were rejected."""
    settings = evaluator.settings
    part = f"the {settings.keep:.0%} of which the classifier is surest, of {settings.drawn}"
    alike = "classifier" in settings.features
    return f"{'judged by the classifier that rejects; ' if alike else ''}{part}; {protocol}"


@torch.no_grad()
def drawn(
    model: DrawsImages, labels: Int[Tensor, " n"], batch_size: int, generator: torch.Generator
) -> Bytes:
    """Return images of the given classes, ``batch_size`` at a time, on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    device = generator.device

    def images(own: Int[Tensor, " batch"]) -> Bytes:
        return as_bytes(rows_of(model, "draw_images", own.to(device), generator))

    return gathered(each(labels.split(batch_size), images, generator), len(labels))


def _curve(
    evaluator: ImageEvaluator,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    protocol: str,
) -> list[Metric]:
    """Return precision and recall as the threshold moves, of equally many images each."""
    from dgm_bench.metrics.images.fidelity import precision_recall

    settings = evaluator.settings
    size = settings.compared or settings.samples
    fractions = [part for part in FRACTIONS if part * len(pool) >= size]
    chosen = rejection_curve(labels, confidence, fractions, size)
    found = []
    for reference in evaluator.references.values():
        features = reference.extract(pool)[reference.extractor.layers.features]
        for fraction, indices in chosen.items():
            part = features[indices.cpu()]
            for score in precision_recall(part, reference, settings.neighbours, protocol):
                named = {"name": f"{score.name}-kept-{fraction:.0%}"}
                found.append(score.model_copy(update=named))
    return found


def in_turn(indices: Int[Tensor, " n"], labels: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """Return the indices so that the classes of what they point at take turns, as drawn."""
    own = labels[indices]
    rank = torch.zeros_like(indices)
    for label in own.unique().tolist():
        rank[own == label] = torch.arange(int((own == label).sum()))
    return indices[(rank * (int(labels.max()) + 1) + own).argsort()]
