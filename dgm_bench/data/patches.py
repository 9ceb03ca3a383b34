"""``bsds300-patches``: 8x8 patches drawn again from the images of BSDS300.

As the MAF paper describes its BSDS300 (appendix D.2, https://arxiv.org/abs/1705.07057): monochrome
8x8 patches, uniform dequantisation, rescaled to [0, 1], patch mean subtracted, bottom-right pixel
dropped. The paper's own patches are other rows of the same distribution. Of the official 200 train
images, sorted by name as text, the first 180 give the train patches and the last 20 the validation
patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.files import checksums
from dgm_bench.data.image_files import opened

SIDE = 8
TRAIN_IMAGES = 180
SEED = 300


def load(card: DatasetCard, home: Path) -> Dataset:
    """Draw the patches of all three splits, always the same ones.

    Raises:
        DataError: An image is truncated or is not an image.
    """
    train, test = (file.find(home) for file in card.files)
    images = {"train": train[:TRAIN_IMAGES], "val": train[TRAIN_IMAGES:], "test": test}
    files, verified = checksums(card, home)
    return Dataset(
        name=card.name,
        version=card.version,
        splits={
            split: draw_patches(paths, card.sizes[split], seed=(SEED, number))
            for number, (split, paths) in enumerate(images.items())
        },
        unit=card.unit,
        files=files,
        verified=verified,
        image_shape=(1, SIDE, SIDE),
        to_pixels=whole_patch,
        note=card.note,
    )


def draw_patches(paths: Sequence[Path], n: int, seed: Sequence[int]) -> Float[Tensor, "n 63"]:
    """Draw ``n`` patches, equally many from each image to within one, in random order.

    Args:
        paths: The images.
        n: How many patches.
        seed: Of the positions, the noise and the order.
    """
    patches = np.empty((n, SIDE * SIDE - 1), dtype=np.float32)
    image_of_row = np.random.default_rng([*seed, 0]).permutation(np.arange(n) % len(paths))
    by_image = np.split(np.argsort(image_of_row, kind="stable"), _bounds(n, len(paths)))
    for number, (path, rows) in enumerate(zip(paths, by_image, strict=True)):
        generator = np.random.default_rng([*seed, 1, number])
        patches[rows] = _patches_of(luma(path), len(rows), generator)
    return torch.from_numpy(patches)


def _bounds(n: int, parts: int) -> np.ndarray:
    """Where the rows of each next image begin, once the rows are sorted by image."""
    return np.cumsum([len(range(part, n, parts)) for part in range(parts - 1)])


def _patches_of(
    pixels: UInt8[np.ndarray, "height width"], n: int, generator: np.random.Generator
) -> Float[np.ndarray, "n 63"]:
    """Draw patches of one image: dequantised, rescaled, without mean and last pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE))
    height, width = windows.shape[:2]
    levels = windows[generator.integers(height, size=n), generator.integers(width, size=n)]
    values: np.ndarray = (levels.reshape(n, -1) + generator.random((n, SIDE * SIDE))) / 256
    values -= values.mean(axis=1, keepdims=True)
    return values[:, :-1]


def luma(path: Path) -> UInt8[np.ndarray, "height width"]:
    """Read an image as grey levels (ITU-R 601 luma).

    Raises:
        DataError: The file is truncated or is not an image.
    """
    with opened(path) as image:
        return np.asarray(image.convert("L"))


def whole_patch(x: Float[Tensor, "n 63"]) -> Float[Tensor, "n 64"]:
    """Return patches with their last pixel, which is minus the sum of the others, as grey levels.

    The patch mean is gone, so middle grey stands for it.
    """
    return (torch.cat([x, -x.sum(1, keepdim=True)], dim=1) + 0.5).clamp(0, 1)
