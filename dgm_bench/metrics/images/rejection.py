"""Rejection sampling by a classifier: of more samples than needed the surest ones are kept.

As in VQ-VAE-2 (Razavi et al. 2019, section 3.3): samples are ranked by the probability that a
classifier of real images gives to the class that they were drawn for. Keeping fewer of them trades
diversity for fidelity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.images.classifier import Images, class_probabilities

#: Products such as 0.07 * 100 exceed the whole number that they mean by less.
_ROUNDING = 1e-9


def own_probabilities(
    classifier: nn.Module, images: Images, labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the probability of each image's own class."""
    probabilities = class_probabilities(classifier, images)
    return probabilities.gather(1, labels.to(probabilities.device)[:, None])[:, 0]


def most_confident(
    probabilities: Float[Tensor, " n"], labels: Int[Tensor, " n"], keep: float
) -> Int[Tensor, " kept"]:
    """Return the indices, in increasing order, of the part of each class with the highest values.

    Of equal ones the first are kept; ``keep`` times the size of a class is rounded up.

    Raises:
        DeclarationError: ``keep`` is not above 0 and at most 1.
    """
    if not 0 < keep <= 1:
        raise DeclarationError(f"keep = {keep}", "is no part of the samples", "use 0 < keep <= 1")
    labels = labels.to(probabilities.device)
    kept = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        ranked = members[probabilities[members].argsort(descending=True, stable=True)]
        kept.append(ranked[: math.ceil(keep * len(members) - _ROUNDING)])
    return torch.cat(kept).sort().values


def rejection_curve(
    labels: Int[Tensor, " n"],
    probabilities: Float[Tensor, " n"],
    fractions: Sequence[float],
    size: int,
) -> dict[float, Int[Tensor, " size"]]:
    """Return, for each fraction, the indices of exactly ``size`` of the samples that it keeps.

    Precision and recall depend on the number of images, so all fractions give as many. Each class
    has its share of the pool in every one of them, and within a class the samples that were drawn
    first are taken: among those kept that is a random choice.

    Args:
        labels: The classes that the samples of the pool were drawn for.
        probabilities: Those of :func:`own_probabilities`.
        fractions: Parts of the pool that are kept; 1 rejects nothing.
        size: Number of images for each.

    Raises:
        DeclarationError: A fraction is out of range, or keeps fewer than ``size`` samples.
    """
    for fraction in fractions:
        if fraction * len(labels) + _ROUNDING < size:
            reason = f"keeps fewer of {len(labels)} samples than the {size} that are compared"
            remedy = f"draw at least {math.ceil(size / fraction) if fraction > 0 else 'some'}"
            raise DeclarationError(f"rejection with keep = {fraction}", reason, remedy)
    shares = _shares(labels, size)
    return {
        fraction: _first_of_each(
            most_confident(probabilities, labels, fraction), labels.to(probabilities.device), shares
        )
        for fraction in fractions
    }


def _shares(labels: Int[Tensor, " n"], size: int) -> dict[int, int]:
    """Return how many of ``size`` images each class has: shares rounded to add up to ``size``."""
    counts = {label: int(n) for label, n in enumerate(labels.bincount().tolist()) if n}
    floors = {label: size * n // len(labels) for label, n in counts.items()}
    by_remainder = sorted(counts, key=lambda label: -(size * counts[label] % len(labels)))
    for label in by_remainder[: size - sum(floors.values())]:
        floors[label] += 1
    return floors


def _first_of_each(
    indices: Int[Tensor, " kept"], labels: Int[Tensor, " n"], shares: dict[int, int]
) -> Int[Tensor, " size"]:
    """Return, of indices in increasing order, the first of each class, in increasing order."""
    own = labels[indices]
    parts = [indices[own == label][:share] for label, share in shares.items()]
    return torch.cat(parts).sort().values
