"""``digits``: scikit-learn's 1,797 handwritten digits, the real data that needs no download."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.bits import bits_from_logit_density, from_logits, to_logits
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset

LEVELS = 17
#: As the MAF paper's CIFAR-10: a third of the pixels are 0 or 16, and with a smaller value their
#: extreme logits would dominate the likelihood of a model trained on 1,347 images.
LAMBDA = 0.05
SEED = 1797


def load(card: DatasetCard, home: Path) -> Dataset:
    """Return the digits in a fixed random order, dequantised, as logits.

    Validation and test noise is fixed. Training batches get fresh noise within the same levels:
    with 1,347 images, a model would otherwise learn the noise.

    Args:
        card: With the sizes of the splits, which are taken one after the other.
        home: Not used; the images come with scikit-learn.
    """
    generator = np.random.default_rng(SEED)
    levels = permuted_levels(generator)
    pixels = torch.from_numpy((levels + generator.random(levels.shape)) / LEVELS)
    parts = torch.split(to_logits(pixels, LAMBDA).float(), list(card.sizes.values()))
    return Dataset(
        name=card.name,
        version=card.version,
        splits=dict(zip(card.sizes, parts, strict=True)),
        unit=card.unit,
        to_unit=partial(bits_from_logit_density, lam=LAMBDA, levels=LEVELS),
        image_shape=(1, 8, 8),
        to_pixels=partial(from_logits, lam=LAMBDA),
        from_pixels=partial(to_logits, lam=LAMBDA),
        augment=_with_fresh_noise,
        note=card.note,
    )


def permuted_levels(
    generator: np.random.Generator | None = None,
) -> Float[np.ndarray, "n 64"]:
    """Return the images in the fixed order, with levels 0 to 16; advances ``generator``."""
    from sklearn.datasets import load_digits

    levels = load_digits().data
    permuted: np.ndarray = (generator or np.random.default_rng(SEED)).permutation(levels)
    return permuted


def _with_fresh_noise(
    logits: Float[Tensor, "n *event"], generator: torch.Generator
) -> Float[Tensor, "n *event"]:
    """Return the same images with fresh dequantisation noise."""
    levels = (from_logits(logits, LAMBDA) * LEVELS).floor_().clamp_(max=LEVELS - 1)
    noise = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    return to_logits((levels + noise) / LEVELS, LAMBDA)
