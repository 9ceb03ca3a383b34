"""Images and their classes in one row: what models that need both are trained on.

The loop, the batches of several processes and their parts then know of one tensor, as for any data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float, Int64, Integer, Num, UInt8
from torch import Tensor

from dgm_bench.data import labelled_images
from dgm_bench.data.arrays import read_idx
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.files import checksums, noted
from dgm_bench.errors import DataError

ImageShape = tuple[int, int, int]
#: Pixels of padding of the released code of neural ODEs (torchdiffeq, odenet_mnist.py,
#: ``get_mnist_loaders``), of which a window of the image's size is cut at random.
PADDING = 4


def with_classes(
    images: UInt8[Tensor, "n channels height width"], classes: Int64[Tensor, " n"]
) -> Integer[Tensor, "n row"]:
    """Return the bytes of each image, row by row, followed by its class.

    Rows are of bytes where all classes are below 256, and else of 16-bit integers.
    """
    fits = not len(classes) or int(classes.max()) <= torch.iinfo(torch.uint8).max
    dtype = torch.uint8 if fits else torch.int16
    return torch.cat([images.flatten(1).to(dtype), classes[:, None].to(dtype)], dim=1)


def inputs_with_classes(
    inputs: Float[Tensor, "n *event"], classes: Int64[Tensor, " n"]
) -> Float[Tensor, "n row"]:
    """Return the numbers of each input, followed by its class as a number of their type."""
    return torch.cat([inputs.flatten(1), classes[:, None].to(inputs)], dim=1)


def without_classes(
    rows: Num[Tensor, "n row"], image_shape: Sequence[int]
) -> tuple[Num[Tensor, "n channels height width"], Int64[Tensor, " n"]]:
    """Return the images and the classes of rows, stored ones or model inputs.

    Args:
        rows: As :func:`with_classes` makes them.
        image_shape: Channels, height and width.
    """
    images, classes = rows.split([math.prod(image_shape), 1], dim=1)
    return images.unflatten(1, tuple(image_shape)), classes[:, 0].long()


def as_inputs(
    rows: Num[Tensor, "n row"], generator: torch.Generator | None = None
) -> Float[Tensor, "n row"]:
    """Return rows as a model takes them: bytes / 255, and the class as it is.

    Args:
        rows: Bytes; what is floating-point is an input already.
        generator: Not used: there is no noise.
    """
    if rows.is_floating_point():
        return rows
    inputs = rows.to(torch.float32)
    inputs[:, :-1] /= 255
    return inputs


def shifted(
    rows: Num[Tensor, "n row"], generator: torch.Generator, image_shape: ImageShape
) -> Float[Tensor, "n row"]:
    """Return rows as inputs, each image a window of itself in a frame of zeros.

    The window is uniform among those of the image's size; the frame is :data:`PADDING` wide.
    """
    images, classes = without_classes(as_inputs(rows), image_shape)
    _, height, width = image_shape
    places = torch.randint(
        2 * PADDING + 1, (2, len(rows)), generator=generator, device=generator.device
    ).to(images.device)
    padded = F.pad(images, (PADDING,) * 4)
    down = places[0, :, None, None] + torch.arange(height, device=images.device)[:, None]
    right = places[1, :, None, None] + torch.arange(width, device=images.device)
    which = torch.arange(len(rows), device=images.device)[:, None, None]
    windows = padded.permute(0, 2, 3, 1)[which, down, right].permute(0, 3, 1, 2)
    return torch.cat([windows.flatten(1), classes[:, None].to(windows)], dim=1)


# -------------------------------------------------------------------------------- loaders


def load_digits(card: DatasetCard, home: Path) -> Dataset:
    """Return scikit-learn's digits in the splits of ``digits``, as rows; they are not shifted.

    Args:
        card: With the sizes of the splits.
        home: Not used; the images come with scikit-learn.
    """
    labelled = labelled_images.load_digits(card, home)
    splits = {
        name: with_classes(images, labelled.labels[name])
        for name, images in labelled.splits.items()
    }
    return replace(
        labelled,
        splits=splits,
        augment=as_inputs,
        dequantise=as_inputs,
        image_shape=None,
        to_pixels=None,
        labels={},
    )


def load_mnist(card: DatasetCard, home: Path, shifts: str = "random") -> Dataset:
    """Load MNIST as rows: all 60,000 train images train, none validate.

    Args:
        card: The set's.
        home: Where its files are.
        shifts: ``random`` moves the images of each training batch; ``none`` leaves them.

    Raises:
        DataError: A file is truncated, corrupt, or not of MNIST's layout.
    """
    train, test = (read_idx(home / file.path)[:, None] for file in card.files[:2])
    classes = [labelled_images.read_idx_labels(home / file.path) for file in card.files[2:]]
    files, verified = checksums(card, home)
    pairs = zip(("train", "test"), (train, test), classes, strict=True)
    splits = {name: _checked(card, images, own) for name, images, own in pairs}
    dataset = rows_dataset(card, splits, (1, *train.shape[2:]), shifts)
    return replace(dataset, files=files, verified=verified, note=noted(card, verified))


def rows_dataset(
    card: DatasetCard,
    splits: Mapping[str, UInt8[Tensor, "_n row"]],
    image_shape: ImageShape,
    shifts: str,
) -> Dataset:
    """Return rows as a data set.

    Args:
        card: The set's.
        splits: The rows.
        image_shape: Channels, height and width.
        shifts: ``random`` moves the images of each training batch as :func:`shifted` does.
    """
    return Dataset(
        name=card.name,
        version=card.version,
        splits=splits,
        unit=card.unit,
        augment=partial(shifted, image_shape=image_shape) if shifts == "random" else as_inputs,
        dequantise=as_inputs,
        classes=labelled_images.DIGITS,
    )


def _checked(
    card: DatasetCard, images: np.ndarray, classes: Int64[np.ndarray, " _n"]
) -> UInt8[Tensor, "n row"]:
    if len(images) != len(classes) or not np.isin(classes, range(card.classes or 0)).all():
        reason = f"{len(classes):,} labels do not fit {len(images):,} images of 10 classes"
        raise DataError(card.name, reason, f"run dgm-bench data verify {card.name}")
    return with_classes(torch.from_numpy(images.copy()), torch.from_numpy(classes))
