"""Digits, MNIST and CIFAR-10 as integer levels, for models whose probabilities are of levels.

No noise is added and nothing is scaled: bits per dimension are of probabilities of the images
themselves. Those of dequantised images (:mod:`dgm_bench.data.images`) bound them from above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from dgm_bench.data.arrays import read_idx
from dgm_bench.data.bits import LEVELS
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.digits import LEVELS as DIGIT_LEVELS
from dgm_bench.data.digits import permuted_levels
from dgm_bench.data.files import checksums, noted
from dgm_bench.data.images import read_cifar_batch
from dgm_bench.errors import DataError


def load_digits(card: DatasetCard, home: Path) -> Dataset:
    """Return scikit-learn's digits in the order and splits of ``digits``, with levels 0 to 16.

    Args:
        card: With the sizes of the splits, which are taken one after the other.
        home: Not used; the images come with scikit-learn.
    """
    images = permuted_levels().reshape(-1, 1, 8, 8).astype(np.uint8)
    parts = torch.split(torch.from_numpy(images), list(card.sizes.values()))
    return level_dataset(card, dict(zip(card.sizes, parts, strict=True)), levels=DIGIT_LEVELS)


def load_mnist(card: DatasetCard, home: Path) -> Dataset:
    """Load MNIST's bytes; the last 10,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of MNIST's layout.
    """
    train, test = (read_idx(home / file.path)[:, None] for file in card.files)
    return _from_files(card, home, train, test)


def load_cifar10(card: DatasetCard, home: Path) -> Dataset:
    """Load CIFAR-10's bytes; the last 5,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of CIFAR-10's layout.
    """
    *train, test = (read_cifar_batch(home / file.path) for file in card.files)
    return _from_files(card, home, np.concatenate(train), test)


def _from_files(
    card: DatasetCard,
    home: Path,
    train: UInt8[np.ndarray, "_n channels height width"],
    test: UInt8[np.ndarray, "_n channels height width"],
) -> Dataset:
    """Take validation from the end of train, and compare the files with the published ones."""
    n = card.sizes["train"]
    if len(train) <= n:
        reason = f"{len(train):,} train images, expected more than {n:,}"
        raise DataError(card.name, reason, f"run dgm-bench data verify {card.name}")
    arrays = {"train": train[:n], "val": train[n:], "test": test}
    splits = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    files, verified = checksums(card, home)
    return level_dataset(card, splits, files=files, verified=verified)


def level_dataset(
    card: DatasetCard,
    splits: Mapping[str, Tensor],
    levels: int = LEVELS,
    files: Mapping[str, str] | None = None,
    verified: bool = True,
) -> Dataset:
    """Return levels of shape ``(n, channels, height, width)`` as a data set.

    Args:
        card: The set's.
        splits: The levels, as bytes.
        levels: How many there are.
        files: SHA-256 of the files they are from.
        verified: Whether those are the published ones.
    """
    _, channels, height, width = splits["train"].shape
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        unit=card.unit,
        to_unit=bits_of_levels,
        files=files or {},
        verified=verified,
        image_shape=(channels, height, width),
        to_pixels=partial(pixels_of, levels=levels),
        note=noted(card, verified),
    )


def bits_of_levels(
    log_prob: Float[Tensor, " n"], x: Num[Tensor, "n *event"]
) -> Float[Tensor, " n"]:
    """Return each image's bits per dimension, given the log probability of its levels in nats.

    Example:
        >>> nats = torch.tensor([-4 * math.log(2)], dtype=torch.float64)
        >>> bits_of_levels(nats, torch.zeros(1, 1, 1, 2)).item()
        2.0
    """
    return -log_prob.double() / (math.prod(x.shape[1:]) * math.log(2))


def pixels_of(x: Num[Tensor, "n *event"], levels: int) -> Float[Tensor, "n *event"]:
    """Return levels as pixels in [0, 1]."""
    return x.to(torch.float32) / (levels - 1)
