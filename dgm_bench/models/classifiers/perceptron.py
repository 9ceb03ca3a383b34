"""The perceptron that neural ODEs are compared with (Chen et al. 2018, Table 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.models.classifiers.image_classifier import CLASSES, ImageClassifier
from dgm_bench.models.networks.perceptron import fully_connected


class Perceptron(ImageClassifier):
    """A fully connected network with hidden layers of hyperbolic tangents.

    With one of 300 units it has the 0.24 million parameters of the "1-Layer MLP" of Chen et al.
    (2018), https://arxiv.org/abs/1806.07366, Table 1; LeCun, Bottou, Bengio and Haffner (1998),
    "Gradient-Based Learning Applied to Document Recognition", section III.C.

    Args:
        event_shape: Shape of one example, an image and its class in one row.
        image_shape: Channels, height and width.
        hidden: Widths of the hidden layers.

    Example:
        >>> import torch
        >>> Perceptron((65,), image_shape=[1, 8, 8]).class_logits(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        image_shape: Sequence[Count] = (1, 28, 28),
        hidden: Sequence[Count] = (300,),
    ) -> None:
        super().__init__(event_shape, image_shape)
        self.network = fully_connected([math.prod(image_shape), *hidden, CLASSES], nn.Tanh)

    def class_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return unnormalised log probabilities of the classes."""
        logits: Tensor = self.network(images.flatten(1))
        return logits
