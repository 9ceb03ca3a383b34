"""Images as bytes on the host, as they would be in a file: many more than a device could hold."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dgm_bench.errors import DeclarationError, ResultsError
from dgm_bench.metrics.finite import require_finite

Bytes = UInt8[Tensor, "n channels height width"]

#: Images that take more bytes than this are kept in a temporary file.
IN_MEMORY = 8 << 30


def as_bytes(
    images: Float[Tensor, "n channels height width"],
) -> UInt8[Tensor, "n channels height width"]:
    """Return images with pixels in [0, 1] as bytes on the host.

    Raises:
        RunFailure: A pixel is not finite.
    """
    require_finite(images, "a pixel", "images")
    return (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)


def gathered(
    parts: Iterable[UInt8[Tensor, "_batch channels height width"]], n: int
) -> UInt8[Tensor, "{n} channels height width"]:
    """Return ``n`` images, which come in parts, together."""
    images: Tensor | None = None
    start = 0
    for part in parts:
        images = _room((n, *part.shape[1:])) if images is None else images
        images[start : start + len(part)] = part
        start += len(part)
    if images is None:
        raise DeclarationError("images", "there are none", "draw at least one")
    return images


def require_room(size: int) -> None:
    """Refuse more bytes of images than the disk has room for.

    Raises:
        ResultsError: The temporary folder is too small.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > max(IN_MEMORY, free):
        reason = f"has {free / 1e9:.0f} GB free, and the images take {size / 1e9:.0f} GB"
        raise ResultsError(folder, reason, "free some, or name another folder with TMPDIR")


def _room(shape: tuple[int, ...]) -> Bytes:
    """Return room for images: in memory, or mapped from a file that goes when nobody needs it."""
    if math.prod(shape) <= IN_MEMORY:
        return torch.empty(shape, dtype=torch.uint8)
    require_room(math.prod(shape))
    with tempfile.TemporaryFile() as file:
        # Without it a full disk would show as a bus error, in the middle.
        os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
