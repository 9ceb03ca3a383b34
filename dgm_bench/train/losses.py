"""What an objective is and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and named parts of it, all on the device and not yet read."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


#: Examples as the model sees them; codes are integers.
Batch = Num[Tensor, "batch *event"]
#: From model, batch, step and noise to a loss: a mean over the examples of the batch.
Objective = Callable[[nn.Module, Batch, int, torch.Generator], Loss]


def mean_over_batch(values: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return the mean of what has one value for each example, and no axis more."""
    return values.mean()


def detached(terms: dict[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
    """Return named parts of a loss without their gradients."""
    return {name: term.detach() for name, term in terms.items()}
