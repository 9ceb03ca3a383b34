"""MNIST and CIFAR-10, in the conventions of the MAF paper and of the FFJORD paper.

``maf`` (released MAF code, datasets/mnist.py and cifar10.py): dequantised once with noise that is
fixed, mapped to logits, flattened; the validation split is the last part of the train images.
``ffjord`` (released FFJORD code, train_cnf.py): images stay bytes and are dequantised with fresh
noise for every batch; all train images are trained on and there is no validation split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dgm_bench.data.arrays import broken, read_idx
from dgm_bench.data.bits import (
    LEVELS,
    bits_from_logit_density,
    bits_from_pixel_density,
    from_logits,
    to_logits,
)
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.files import checksums
from dgm_bench.data.pickles import read_pickle
from dgm_bench.errors import DataError

Images = UInt8[np.ndarray, "_n channels height width"]

MNIST_LAMBDA = 1e-6
CIFAR10_LAMBDA = 0.05
NOISE_SEED = 42
_ROWS = 1000  # dequantised at a time: float64 noise of all of CIFAR-10 would take 1.5 GB


def load_mnist(card: DatasetCard, home: Path, convention: str) -> Dataset:
    """Load MNIST; in the MAF convention the last 10,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of MNIST's layout.
    """
    train, test = (read_idx(home / file.path)[:, None] for file in card.files)
    if convention == "ffjord":
        return _in_ffjord_convention(card, home, train, test, flips=False)
    images = _validating_on_the_rest(card, train, test, train_images=50_000)
    return _in_maf_convention(card, home, images, MNIST_LAMBDA, flips=False)


def load_cifar10(card: DatasetCard, home: Path, convention: str) -> Dataset:
    """Load CIFAR-10; in the MAF convention the last 5,000 train images validate.

    Raises:
        DataError: A file is truncated, corrupt, or not of CIFAR-10's layout.
    """
    *train_files, test_file = (home / file.path for file in card.files)
    train = np.concatenate([read_cifar_batch(path) for path in train_files])
    test = read_cifar_batch(test_file)
    if convention == "ffjord":
        return _in_ffjord_convention(card, home, train, test, flips=True)
    images = _validating_on_the_rest(card, train, test, train_images=45_000)
    return _in_maf_convention(card, home, images, CIFAR10_LAMBDA, flips=True)


def _validating_on_the_rest(
    card: DatasetCard, train: Images, test: Images, train_images: int
) -> dict[str, Images]:
    if len(train) <= train_images:
        reason = f"{len(train):,} train images, expected more than {train_images:,}"
        raise DataError(card.name, reason, f"run {card.fetch_command}")
    return {"train": train[:train_images], "val": train[train_images:], "test": test}


# ---------------------------------------------------------------------------- conventions


def _in_maf_convention(
    card: DatasetCard, home: Path, images: Mapping[str, Images], lam: float, flips: bool
) -> Dataset:
    # One generator for train, validation and test in turn, as the released code has it.
    rng = np.random.RandomState(NOISE_SEED)
    splits = {split: dequantised_logits(levels, lam, rng) for split, levels in images.items()}
    shape = images["train"].shape[1:]
    if flips:
        splits["train"] = with_flips(splits["train"], shape)
    files, verified = checksums(card, home)
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        unit=card.unit,
        to_unit=partial(bits_from_logit_density, lam=lam),
        files=files,
        verified=verified,
        image_shape=(shape[0], shape[1], shape[2]),
        to_pixels=partial(from_logits, lam=lam),
        from_pixels=partial(to_logits, lam=lam),
        note=_note(verified),
    )


def _in_ffjord_convention(
    card: DatasetCard, home: Path, train: Images, test: Images, flips: bool
) -> Dataset:
    shape = train.shape[1:]
    files, verified = checksums(card, home)
    return Dataset(
        name=card.name,
        version=card.version,
        splits={"train": torch.from_numpy(train.copy()), "test": torch.from_numpy(test.copy())},
        unit=card.unit,
        to_unit=partial(_bits_of_pixels, dim=math.prod(shape)),
        files=files,
        verified=verified,
        augment=flip_and_dequantise if flips else dequantise,
        dequantise=dequantise,
        image_shape=(shape[0], shape[1], shape[2]),
        to_pixels=partial(torch.clamp, min=0, max=1),
        note=_note(verified),
    )


def _bits_of_pixels(
    log_prob: Float[Tensor, " n"], pixels: Float[Tensor, "n *event"], dim: int
) -> Float[Tensor, " n"]:
    """:func:`bits_from_pixel_density` with the signature of ``Dataset.to_unit``."""
    return bits_from_pixel_density(log_prob, dim)


def _note(verified: bool) -> str:
    return "" if verified else "files differ from the published ones: see dgm-bench data verify"


def dequantised_logits(
    images: Images, lam: float, rng: np.random.RandomState
) -> Float[Tensor, "n dim"]:
    """Return ``logit(lam + (1 - 2 lam) (k + u) / 256)``, flattened plane by plane, as float32.

    Args:
        images: Levels k.
        lam: The lambda of the MAF paper, section 4.3.
        rng: Source of u, drawn image by image.
    """
    flat = images.reshape(len(images), -1)
    logits = torch.empty(flat.shape, dtype=torch.float32)
    for start in range(0, len(flat), _ROWS):
        levels = flat[start : start + _ROWS]
        pixels = torch.from_numpy((levels + rng.rand(*levels.shape)) / LEVELS)
        logits[start : start + _ROWS] = to_logits(pixels, lam)
    return logits


def with_flips(x: Float[Tensor, "n dim"], shape: tuple[int, ...]) -> Float[Tensor, "2*n dim"]:
    """Append the mirror image of every row, noise and all, as the released MAF code does."""
    doubled = torch.empty(2 * len(x), x.shape[1], dtype=x.dtype)
    doubled[: len(x)] = x
    for start in range(0, len(x), _ROWS):
        mirrored = x[start : start + _ROWS].view(-1, *shape).flip(-1).flatten(1)
        doubled[len(x) + start : len(x) + start + len(mirrored)] = mirrored
    return doubled


def dequantise(
    images: UInt8[Tensor, "n channels height width"], generator: torch.Generator
) -> Float[Tensor, "n channels height width"]:
    """Return ``(k + u) / 256`` in [0, 1) with fresh noise, as float32."""
    device = images.device
    noise = torch.rand(images.shape, generator=generator, device=device, dtype=torch.float32)
    largest = 1 - 2**-24  # 255 + u rounds to 256 now and then
    return ((images + noise) / LEVELS).clamp(max=largest)


def flip_and_dequantise(
    images: UInt8[Tensor, "n channels height width"], generator: torch.Generator
) -> Float[Tensor, "n channels height width"]:
    """Mirror each image with probability one half, then :func:`dequantise`."""
    coins = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
    return dequantise(torch.where(coins < 0.5, images.flip(-1), images), generator)


# -------------------------------------------------------------------------------- readers


def read_cifar_batch(path: Path) -> Images:
    """Read the images of one batch of the python version of CIFAR-10.

    Raises:
        DataError: The file is truncated, corrupt, of another layout, or asks for code to run.
    """
    batch = read_pickle(path)
    data = batch.get(b"data") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise broken(path, "does not hold rows of 3,072 bytes")
    return data.reshape(-1, 3, 32, 32)
