"""Digits, MNIST and CIFAR-10 as bytes with their classes, for models of pixels.

Splits hold levels 0 to 255, which :func:`pixels` scales to model inputs. No noise is added, since
the models of these sets reconstruct pixels and have no density over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from dgm_bench.data.arrays import broken, read_idx
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.digits import LEVELS, SEED, permuted_levels
from dgm_bench.data.files import checksums, noted
from dgm_bench.data.images import read_cifar_batch
from dgm_bench.data.pickles import read_pickle
from dgm_bench.errors import DataError

#: Images and the class of each.
Labelled = tuple[UInt8[np.ndarray, "_n channels height width"], Int64[np.ndarray, " _n"]]

DIGITS = tuple("0123456789")
#: Of CIFAR-10, in the order of the labels (its batches.meta).
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def pixels(
    images: Tensor, generator: torch.Generator | None = None
) -> Float[Tensor, "n channels height width"]:
    """Return bytes / 255 as float32; examples that are floats already are returned as they are.

    Args:
        images: Stored examples, of shape ``(n, channels, height, width)``.
        generator: Not used: there is no noise.
    """
    return images if images.is_floating_point() else images.to(torch.float32) / 255


def image_dataset(
    card: DatasetCard,
    splits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    classes: tuple[str, ...],
) -> Dataset:
    """Return bytes of shape ``(n, channels, height, width)`` as a data set of pixels.

    Args:
        card: The set's.
        splits: The bytes.
        labels: Class of each image as int64; empty where there are none.
        classes: Their names.
    """
    _, channels, height, width = splits["train"].shape
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        unit=card.unit,
        augment=pixels,
        dequantise=pixels,
        image_shape=(channels, height, width),
        to_pixels=partial(torch.clamp, min=0, max=1),
        labels=labels,
        classes=classes,
    )


# -------------------------------------------------------------------------------- loaders


def load_digits(card: DatasetCard, home: Path) -> Dataset:
    """Return scikit-learn's digits in the order and splits of ``digits``.

    Level k of 0 to 16 becomes the byte nearest to 255 k / 16.

    Args:
        card: With the sizes of the splits, which are taken one after the other.
        home: Not used; the images come with scikit-learn.
    """
    from sklearn.datasets import load_digits as published

    levels = permuted_levels().reshape(-1, 1, 8, 8)
    images = np.rint(255 * levels / (LEVELS - 1)).astype(np.uint8)
    # The same generator permutes both: its draws depend on the number of rows alone.
    classes = np.random.default_rng(SEED).permutation(published().target).astype(np.int64)
    cuts = np.cumsum(list(card.sizes.values()))[:-1]
    parts = zip(card.sizes, np.split(images, cuts), np.split(classes, cuts), strict=True)
    return _from_arrays(card, {name: (x, y) for name, x, y in parts}, DIGITS)


def load_mnist(card: DatasetCard, home: Path) -> Dataset:
    """Load MNIST with two rows of zeros on every side; the last 10,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of MNIST's layout.
    """
    images = [read_idx(home / file.path) for file in card.files[:2]]
    margin = ((0, 0), (2, 2), (2, 2))
    padded = [np.pad(levels, margin)[:, None] for levels in images]
    labels = [read_idx_labels(home / file.path) for file in card.files[2:]]
    train, test = zip(padded, labels, strict=True)
    return _from_files(card, home, train, test, DIGITS)


def load_cifar10(card: DatasetCard, home: Path) -> Dataset:
    """Load CIFAR-10 with its classes; the last 5,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of CIFAR-10's layout.
    """
    paths = [home / file.path for file in card.files]
    images = [read_cifar_batch(path) for path in paths]
    labels = [read_cifar_labels(path) for path in paths]
    train = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return _from_files(card, home, train, (images[-1], labels[-1]), CIFAR10)


def _from_files(
    card: DatasetCard, home: Path, train: Labelled, test: Labelled, classes: tuple[str, ...]
) -> Dataset:
    """Take validation from the end of train, and compare the files with the published ones."""
    splits = _validating_on_the_last(card, train, test)
    for levels, labels in splits.values():
        if len(levels) != len(labels) or not np.isin(labels, range(len(classes))).all():
            reason = f"{len(labels):,} labels do not fit {len(levels):,} images of 10 classes"
            raise DataError(card.name, reason, f"run dgm-bench data verify {card.name}")
    files, verified = checksums(card, home)
    return _from_arrays(card, splits, classes, files, verified)


def _validating_on_the_last(
    card: DatasetCard, train: Labelled, test: Labelled
) -> dict[str, Labelled]:
    """Return the splits: train to the size on the card, validation after it, test."""
    n = card.sizes["train"]
    images, labels = train
    if len(images) <= n:
        reason = f"{len(images):,} train images, expected more than {n:,}"
        raise DataError(card.name, reason, f"run dgm-bench data verify {card.name}")
    return {"train": (images[:n], labels[:n]), "val": (images[n:], labels[n:]), "test": test}


def _from_arrays(
    card: DatasetCard,
    splits: Mapping[str, Labelled],
    classes: tuple[str, ...],
    files: Mapping[str, str] | None = None,
    verified: bool = True,
) -> Dataset:
    images = {name: torch.from_numpy(x.copy()) for name, (x, _) in splits.items()}
    labels = {name: torch.from_numpy(y.copy()) for name, (_, y) in splits.items()}
    dataset = image_dataset(card, images, labels, classes)
    return replace(dataset, files=files or {}, verified=verified, note=noted(card, verified))


# -------------------------------------------------------------------------------- readers


def read_idx_labels(path: Path) -> Int64[np.ndarray, " n"]:
    """Read labels from a gzipped idx file of unsigned bytes with one dimension.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    return read_idx(path, axes=1).astype(np.int64)


def read_cifar_labels(path: Path) -> Int64[np.ndarray, " n"]:
    """Read the labels of one batch of the python version of CIFAR-10.

    Raises:
        DataError: The file is truncated, corrupt, of another layout, or asks for code to run.
    """
    batch = read_pickle(path)
    labels = batch.get(b"labels") if isinstance(batch, dict) else None
    if not isinstance(labels, list) or not all(type(k) is int and 0 <= k < 10 for k in labels):
        raise broken(path, "does not hold a list of labels from 0 to 9")
    return np.array(labels, dtype=np.int64)
