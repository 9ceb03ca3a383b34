"""What an objective is and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and named parts of it, all on the device and not yet read."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


#: From model, batch, step and noise to a loss: a mean over the examples of the batch.
Objective = Callable[[nn.Module, Tensor, int, torch.Generator], Loss]


def detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return named parts of a loss without their gradients."""
    return {name: term.detach() for name, term in terms.items()}
