"""DALL-E's loss of a transformer over text and image."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from dgm_bench.annotations import Fraction
from dgm_bench.errors import DeclarationError
from dgm_bench.models.codes.priors.joint_transformer import JointTransformer
from dgm_bench.models.whole_batch import mean
from dgm_bench.train.losses import Batch, Loss, Objective, detached


def text_and_image(text_weight: Fraction = 1 / 8) -> Objective:
    """Return the weighted cross-entropies of text and image, each in nats per token of its kind.

    Each is divided by the number of tokens of its kind in the batch (Ramesh et al., 2021, section
    2.2); padding after the end of a text does not count.

    Args:
        text_weight: Of the text; the image has the rest of 1. With 0 the text is only given.

    Raises:
        DeclarationError: The weight is not between 0 and 1.
    """
    if not 0 <= text_weight <= 1:
        raise DeclarationError(f"text_weight {text_weight}", "is no share", "use 0 to 1")

    def objective(model: nn.Module, x: Batch, step: int, generator: torch.Generator) -> Loss:
        joint = cast(JointTransformer, model)
        of_text, tokens, of_codes = joint.terms(x, generator)
        text = -of_text.mean() / mean(tokens.to(of_text.dtype))
        image = -of_codes.mean() / math.prod(joint.grids[0])
        total = text_weight * text + (1 - text_weight) * image
        return Loss(total, detached({"text": text, "image": image}))

    return objective
