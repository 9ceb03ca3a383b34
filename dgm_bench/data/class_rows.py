"""Images and their classes in one row: what models that need both are trained on.

The loop, the batches of several processes and their parts then know of one tensor, as for any data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Integer, Num, UInt8
from torch import Tensor


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
