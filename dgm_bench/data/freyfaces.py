"""Frey Faces: 1,965 frames of a face, 28x20 with 256 levels (Sylvester code, ``load_data.py``)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dgm_bench.data.binary_images import as_images, as_pixels
from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.files import checksums, noted
from dgm_bench.data.pickles import read_pickle
from dgm_bench.errors import DataError

#: The frames are shuffled ahead of the split: runs 0, 1 and 2 have these seeds, then again.
SPLIT_SEEDS = (123, 321, 231)
SHAPE, LEVELS = (28, 20), 256


def load(card: DatasetCard, home: Path, seed: int) -> Dataset:
    """Load Frey Faces, split as the run's seed says; pixels of level k are k / 255.

    Raises:
        DataError: The file is truncated, corrupt, of another layout, or asks for code to run.
    """
    path = home / card.files[0].path
    stored = read_pickle(path)
    frames = np.asarray(stored[0]) if isinstance(stored, list) and stored else np.empty(0)
    if frames.dtype != np.uint8 or frames.shape != (sum(card.sizes.values()), math.prod(SHAPE)):
        reason = "does not hold 1,965 frames of 560 bytes"
        raise DataError(path, reason, "delete it and fetch it again")
    split_seed = SPLIT_SEEDS[seed % len(SPLIT_SEEDS)]
    order = np.random.RandomState(split_seed).permutation(len(frames))
    images = frames[order].reshape(-1, *SHAPE) / (LEVELS - 1)
    ends = np.cumsum(list(card.sizes.values()))[:-1]
    files, verified = checksums(card, home)
    return Dataset(
        name=card.name,
        version=card.version,
        splits={
            split: as_images(part)
            for split, part in zip(card.sizes, np.split(images, ends), strict=True)
        },
        unit=card.unit,
        to_unit=bits_per_dim,
        files=files,
        verified=verified,
        image_shape=(1, *SHAPE),
        to_pixels=as_pixels,
        note=f"{noted(card, verified)}; this split is that of seed {split_seed}",
    )


def bits_per_dim(
    log_prob: Float[Tensor, " n"], images: Float[Tensor, "n *event"]
) -> Float[Tensor, " n"]:
    """Return each image's bits per dimension, given its log probability in nats."""
    return -log_prob.double() / (images.shape[1:].numel() * math.log(2))
