"""Packing the codes of all levels and the class of an image into one row of integers.

The second stage of a VQ-VAE trains on such rows as on any data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int, Num
from torch import Tensor

from dgm_bench.annotations import Count
from dgm_bench.data.labelled_images import pixels
from dgm_bench.kept import each
from dgm_bench.models.capabilities import HasCodes

Grids = Sequence[Sequence[Count]]

#: Type of stored rows; there are at most :data:`LARGEST` codes and classes.
CODE_TYPE = torch.int16
LARGEST = torch.iinfo(CODE_TYPE).max + 1


def packed_size(grids: Grids) -> int:
    """Return the length of a row: one entry for each code, and the class at the end."""
    return sum(math.prod(grid) for grid in grids) + 1


def pack(
    codes: Sequence[Int[Tensor, "batch _rows _columns"]], labels: Int[Tensor, " batch"]
) -> Int[Tensor, "batch packed"]:
    """Return codes, top level first and row by row, followed by the class."""
    return torch.cat([*(level.flatten(1) for level in codes), labels[:, None].to(codes[0])], dim=1)


def unpack(
    x: Int[Tensor, "batch packed"], grids: Grids
) -> tuple[list[Int[Tensor, "batch _rows _columns"]], Int[Tensor, " batch"]]:
    """Return the codes of each level, top first, and the classes, as int64."""
    *levels, labels = x.long().split([*(math.prod(grid) for grid in grids), 1], dim=1)
    shaped = zip(levels, grids, strict=True)
    return [level.unflatten(1, tuple(grid)) for level, grid in shaped], labels[:, 0]


@torch.no_grad()
def encoded(
    coder: HasCodes,
    images: Num[Tensor, "n channels height width"],
    labels: Int[Tensor, " n"] | None,
    batch_size: int,
    device: torch.device,
) -> Int[Tensor, "n packed"]:
    """Return the rows of images, as :data:`CODE_TYPE` on the host.

    Args:
        coder: On the device, in evaluation mode.
        images: Bytes, or pixels in [0, 1], anywhere.
        labels: Their classes, or None for zeros.
        batch_size: Images at a time.
        device: Where to compute.
    """
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    parts = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def rows(part: tuple[Tensor, Tensor]) -> Tensor:
        x, own = part
        return pack(coder.encode(pixels(x.to(device))), own.to(device)).to("cpu", CODE_TYPE)

    return torch.cat(list(each(parts, rows)))
