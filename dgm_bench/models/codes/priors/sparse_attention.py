"""Which tokens attend to which in DALL-E's transformer over text and image.

Ramesh et al. (2021), https://arxiv.org/abs/2102.12092, section 2.2 and appendix B.1 (figure 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from dgm_bench.errors import require_choice

Pattern = Literal["row", "column", "convolutional"]


def layer_patterns(depth: int) -> list[Pattern]:
    """Return the pattern of each layer, the first one counted as 1.

    The last one is convolutional. Of the others layer i attends to columns where ``(i - 2) mod 4``
    is 0, and to rows elsewhere.
    """
    first: list[Pattern] = ["row" if (i - 2) % 4 else "column" for i in range(1, depth)]
    return [*first, "convolutional"]


def image_mask(pattern: Pattern, grid: Sequence[int], kernel: int) -> Bool[Tensor, "places places"]:
    """Return which places of a grid, in raster order, each place attends to: itself and before it.

    By row: as many as a row has places, so that the last one is in the same column of the row
    above. By column: its own column. Convolutional: what a square kernel around it covers, with
    wraparound at the sides.

    Args:
        pattern: Which.
        grid: Rows and columns.
        kernel: Side of the kernel, odd; 11 in the paper.

    Raises:
        DeclarationError: The pattern is not known.
    """
    require_choice("pattern", pattern, ("row", "column", "convolutional"))
    rows, columns = grid
    places = torch.arange(rows * columns)
    back = places[:, None] - places
    if pattern == "row":
        return (back >= 0) & (back <= columns)
    if pattern == "column":
        return (back >= 0) & (back % columns == 0)
    reach = kernel // 2
    offsets = product(range(reach + 1), range(-reach, reach + 1))
    covered = {up * columns + left for up, left in offsets}
    return (back >= 0) & torch.isin(back, torch.tensor(sorted(covered)))


def joint_mask(
    pattern: Pattern, text: int, grid: Sequence[int], kernel: int
) -> Bool[Tensor, "tokens tokens"]:
    """Return which tokens of text and then image each token attends to.

    Text attends to itself and to what is before it, and the image to all of the text.

    Args:
        pattern: Of the image.
        text: Number of tokens before the image.
        grid: Rows and columns of the image.
        kernel: As of :func:`image_mask`.
    """
    image = image_mask(pattern, grid, kernel)
    mask = torch.ones(text + len(image), text + len(image), dtype=torch.bool).tril()
    mask[text:, text:] = image
    return mask
