"""Scores along a curve: as more samples are rejected, or as the noise is truncated more.

VQ-VAE-2 trades diversity for fidelity by rejection (Razavi et al. 2019, sections 3.3 and 5),
BigGAN by the truncation of its noise (Brock et al. 2019, section 3.1). Every point of either curve
is of as many images, scored by the same networks against the same reference.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.metrics.images.image_bytes import Bytes
from dgm_bench.metrics.images.image_evaluator import ImageEvaluator
from dgm_bench.metrics.images.rejection import rejection_curve
from dgm_bench.records import Metric

#: Fractions of the drawn images that a rejection curve accepts, where there are enough of them.
FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
#: Those at which a classifier is trained on them, besides all and the half in the table.
LEARNT_FROM = (0.8, 0.6)


def rejection_scores(
    evaluator: ImageEvaluator,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return scores as the threshold moves, their names ended by ``-kept-<per cent>``.

    Args:
        evaluator: Of the data set.
        pool: All drawn images.
        labels: The classes that they were drawn for.
        confidence: The probability of its class that the classifier gives each.
        generator: Source of the bootstrap of FID.
        protocol: How the images were made, in words.
    """
    settings, found = evaluator.settings, []
    size = settings.compared or settings.samples
    enough = [part for part in FRACTIONS if part * len(pool) >= size]
    chosen = rejection_curve(labels, confidence, enough, size)
    for reference in evaluator.references.values():
        layers = reference.extract(pool)
        for fraction, indices in chosen.items():
            there = {name: layer[indices.cpu()] for name, layer in layers.items()}
            scores = evaluator.curve_scores(there, reference, generator, protocol)
            found += _ending(scores, f"-kept-{fraction:.0%}")
    return found + _rejection_accuracy(evaluator, pool, labels, confidence, generator, protocol)


def _rejection_accuracy(
    evaluator: ImageEvaluator,
    pool: Bytes,
    labels: Int[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return accuracy scores at some thresholds, of as many images as without rejection."""
    settings, found = evaluator.settings, []
    if not settings.score:
        return []
    enough = [part for part in LEARNT_FROM if part * len(pool) >= settings.samples]
    chosen = rejection_curve(labels, confidence, enough, settings.samples)
    for fraction, indices in chosen.items():
        own, how = indices.cpu(), f"the {fraction:.0%} of which the classifier is surest"
        seed, how = generator.initial_seed(), f"of {how}; {protocol}"
        scores = evaluator.accuracy(pool[own], labels[own], "", seed, how)
        found += _ending(scores, f"-kept-{fraction:.0%}")
    return found


def truncation_scores(
    evaluator: ImageEvaluator,
    images: Bytes,
    labels: Int[Tensor, " n"] | None,
    truncation: float,
    generator: torch.Generator,
    protocol: str,
) -> list[Metric]:
    """Return scores of images of truncated noise, their names ended by ``-truncated-<threshold>``.

    Args:
        evaluator: Of the data set.
        images: The images.
        labels: The classes that they were drawn for; None where the model knows none.
        truncation: The threshold, as the model takes it.
        generator: Source of the bootstrap of FID.
        protocol: How the images were made, in words.
    """
    settings, scores = evaluator.settings, []
    how = f"noise truncated at {truncation:g}; {protocol}"
    compared = images[: settings.compared]
    for reference in evaluator.references.values():
        layers = reference.extract(compared)
        scores += evaluator.curve_scores(layers, reference, generator, how)
    if settings.score and labels is not None:
        scores += evaluator.accuracy(images, labels, "", generator.initial_seed(), how)
    return _ending(scores, f"-truncated-{truncation:g}")


def _ending(scores: Iterable[Metric], ending: str) -> list[Metric]:
    return [score.model_copy(update={"name": f"{score.name}{ending}"}) for score in scores]
