"""Binarised images, for variational autoencoders: pixels are exactly 0 or 1.

Static MNIST, Omniglot and the Caltech silhouettes are prepared as in the Sylvester and FFJORD codes
(``load_data.py`` of both); dynamic MNIST and Omniglot as for importance-weighted autoencoders.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped, UInt8
from torch import Tensor

from dgm_bench.data.arrays import broken, read_idx, read_npz
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.digits import permuted_levels
from dgm_bench.data.files import checksums, noted
from dgm_bench.data.matlab import read_mat
from dgm_bench.errors import DataError, reading

Pixels = Shaped[np.ndarray, "_n height width"]

MNIST_PIXELS = 784
OMNIGLOT_SEED = 777
#: Each character of Omniglot was drawn by 20 people: the last one to train, the one to validate.
RESIZED_LAST_TRAINED, RESIZED_VALIDATION = 14, 15
DIGITS_SEED, DIGITS_LARGEST = 1797, 16


def load_static_mnist(card: DatasetCard, home: Path) -> Dataset:
    """Load Larochelle's binarised MNIST.

    Raises:
        DataError: A file is truncated, corrupt or of another layout.
    """
    images = [read_amat(home / file.path).reshape(-1, 28, 28) for file in card.files]
    return _dataset(card, home, dict(zip(card.sizes, images, strict=True)))


def load_omniglot(card: DatasetCard, home: Path, seed: int) -> Dataset:
    """Load Omniglot at 28x28: training images are grey, and binarised afresh for every batch.

    The validation split is the last 1,345 of the training images, shuffled with the run's seed.
    Validation and test images are binarised once, with numpy's seed 777, in this order; so the
    binarised test images do not depend on the shuffling.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    path = home / card.files[0].path
    train, test = (_upright(array) for array in _read_mat(path, "data", "testdata", axis=0))
    train = train[np.random.RandomState(seed).permutation(len(train))]
    draw, held_out = np.random.RandomState(OMNIGLOT_SEED), card.sizes["val"]
    splits = {
        "train": train[:-held_out],
        "val": draw.binomial(1, train[-held_out:]),
        "test": draw.binomial(1, test),
    }
    drawn = _dataset(card, home, splits)
    note = f"{drawn.note}; validation images chosen with seed {seed}"
    return replace(drawn, augment=bernoulli_draw, note=note)


def load_dynamic_mnist(card: DatasetCard, home: Path) -> Dataset:
    """Load all grey MNIST images, which are binarised afresh for every batch, in tests too.

    A pixel is 1 with its level / 255 as probability (importance-weighted autoencoders, section 5
    of the paper and ``datasets.py`` of the released code).

    Raises:
        DataError: A file is truncated, corrupt or of another layout.
    """
    levels = (read_idx(home / file.path) / np.float32(255) for file in card.files)
    return _always_drawn(card, home, dict(zip(card.sizes, levels, strict=True)))


def load_dynamic_omniglot(card: DatasetCard, home: Path) -> Dataset:
    """Load all grey Omniglot images, which are binarised afresh for every batch, in tests too.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    path = home / card.files[0].path
    images = [_upright(array) for array in _read_mat(path, "data", "testdata", axis=0)]
    return _always_drawn(card, home, dict(zip(card.sizes, images, strict=True)))


def load_caltech(card: DatasetCard, home: Path) -> Dataset:
    """Load the Caltech 101 silhouettes, with the figures as ones.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    path = home / card.files[0].path
    arrays = _read_mat(path, "train_data", "val_data", "test_data", axis=1)
    if any(((array != 0) & (array != 1)).any() for array in arrays):
        raise broken(path, "holds pixels that are neither black nor white")
    images = {split: 1 - _upright(array) for split, array in zip(card.sizes, arrays, strict=True)}
    return _dataset(card, home, images)


def load_resized_omniglot(card: DatasetCard, home: Path) -> Dataset:
    """Load all Omniglot characters at 28x28 bits, split by who drew them.

    Raises:
        DataError: The file is truncated, corrupt or of another layout.
    """
    path = home / card.files[0].path
    bits, drawer = read_npz(path, "images", "drawer")
    if drawer.ndim != 1 or bits.shape != (len(drawer), MNIST_PIXELS // 8) or bits.dtype != np.uint8:
        raise broken(path, f"does not hold {MNIST_PIXELS // 8} bytes of bits for each drawer")
    images = np.unpackbits(bits, axis=1).reshape(-1, 28, 28)
    rest = drawer > RESIZED_VALIDATION
    chosen = (drawer <= RESIZED_LAST_TRAINED, drawer == RESIZED_VALIDATION, rest)
    splits = {split: images[rows] for split, rows in zip(card.sizes, chosen, strict=True)}
    return _dataset(card, home, splits)


def load_digits(card: DatasetCard, home: Path) -> Dataset:
    """Return scikit-learn's digits, binarised once with level / 16 as a pixel's probability.

    Args:
        card: With the sizes of the splits, those of ``digits``.
        home: Not used; the images come with scikit-learn.
    """
    levels = permuted_levels()
    draw = np.random.default_rng(DIGITS_SEED)
    images = (draw.random(levels.shape) < levels / DIGITS_LARGEST).reshape(-1, 8, 8)
    ends = np.cumsum(list(card.sizes.values()))[:-1]
    return _dataset(card, home, dict(zip(card.sizes, np.split(images, ends), strict=True)))


# ---------------------------------------------------------------------------- the set


def bernoulli_draw(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images binarised with the grey values as probabilities."""
    return torch.bernoulli(images, generator=generator)


def _always_drawn(card: DatasetCard, home: Path, images: dict[str, Pixels]) -> Dataset:
    grey = _dataset(card, home, images)
    return replace(grey, augment=bernoulli_draw, dequantise=bernoulli_draw)


def _dataset(card: DatasetCard, home: Path, images: dict[str, Pixels]) -> Dataset:
    """Return the set, once there are as many images as its card says."""
    splits = {name: as_images(array) for name, array in images.items()}
    sizes = {name: len(split) for name, split in splits.items()}
    if sizes != dict(card.sizes):
        reason = f"holds {_listed(sizes)} images, not {_listed(dict(card.sizes))}"
        raise DataError(home, reason, f"delete its files and run {card.fetch_command}")
    files, verified = ({}, True) if card.embedded else checksums(card, home)
    _, _, height, width = splits["train"].shape
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        unit=card.unit,
        files=files,
        verified=verified,
        image_shape=(1, height, width),
        to_pixels=as_pixels,
        note=noted(card, verified),
    )


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{size:,} {name}" for name, size in sizes.items())


def as_images(array: Pixels) -> Float[Tensor, "n 1 height width"]:
    """Return images of one channel, as float32."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[:, None]


def as_pixels(x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Return the stored examples, which are pixels in [0, 1]."""
    return x


# ---------------------------------------------------------------------------- readers


def read_amat(path: Path) -> UInt8[np.ndarray, "n 784"]:
    """Read a text file of zeros and ones, 784 a line with one space between two.

    Raises:
        DataError: It is truncated or of another layout.
    """
    with reading(path, DataError):
        raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if len(raw) % (2 * MNIST_PIXELS):
        raise broken(path, f"is no whole number of lines of {MNIST_PIXELS} numbers")
    pairs = raw.reshape(-1, MNIST_PIXELS, 2)
    bits, gaps = pairs[..., 0] - ord("0"), pairs[..., 1]
    if (bits > 1).any() or (gaps[:, :-1] != ord(" ")).any() or (gaps[:, -1] != ord("\n")).any():
        raise broken(path, f"does not hold lines of {MNIST_PIXELS} zeros and ones")
    return bits


def _read_mat(path: Path, *keys: str, axis: int) -> list[Float[np.ndarray, "n 784"]]:
    """Return arrays of a MATLAB file that hold an image's pixels along ``axis``.

    Raises:
        DataError: It is truncated or corrupt, or lacks one of them as images in [0, 1].
    """
    found = read_mat(path, *keys)
    for key in keys:
        if key not in found:
            raise broken(path, f"holds no {key!r}")
        array = np.asarray(found[key], np.float32)
        found[key] = array
        if array.ndim != 2 or array.shape[axis] != MNIST_PIXELS:
            raise broken(path, f"{key!r} does not hold images of {MNIST_PIXELS} pixels")
        if not ((array >= 0) & (array <= 1)).all():
            raise broken(path, f"{key!r} holds pixels outside [0, 1]")
    return [np.moveaxis(found[key], axis, 1) for key in keys]


def _upright(flat: Num[np.ndarray, "n 784"]) -> Pixels:
    """Return images from MATLAB's column-major order."""
    return flat.reshape(-1, 28, 28).transpose(0, 2, 1)
