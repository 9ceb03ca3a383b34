"""What models of an image's class share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError

CLASSES = 10


class ImageClassifier(nn.Module):
    """``p(class | image)``: a network from images to unnormalised log probabilities.

    Args:
        event_shape: Shape of one example: ``(channels * height * width + 1,)``, an image and its
            class in one row (:mod:`dgm_bench.data.class_rows`).
        image_shape: Channels, height and width.

    Raises:
        DeclarationError: The rows are not of such images.
    """

    def __init__(self, event_shape: tuple[int, ...], image_shape: Sequence[Count]) -> None:
        super().__init__()
        size = (*event_shape,)
        if len(image_shape) != 3 or size != (math.prod(image_shape) + 1,):
            reason = f"rows of {size} numbers are not {tuple(image_shape)} and a class"
            raise DeclarationError("image_shape", reason, "give channels, height and width")
        self.image_shape = tuple(image_shape)

    def class_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return unnormalised log probabilities of the classes of images in [0, 1]."""
        raise NotImplementedError
