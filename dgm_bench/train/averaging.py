"""An exponential moving average of the parameters (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ParameterAverage:
    """Keeps ``average <- decay * average + (1 - decay) * parameter`` for every parameter."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = list(model.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the current parameters in."""
        torch._foreach_lerp_(self.averages, list(self.parameters), 1 - self.decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Evaluate with the averages in the model's place; the parameters come back after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            held = parameter.clone()
            parameter.copy_(average)
            average.copy_(held)

    @torch.no_grad()
    def load_into_model(self) -> None:
        """Replace the parameters by their averages for good."""
        torch._foreach_copy_(list(self.parameters), self.averages)

    def state(self) -> list[Tensor]:
        """Return the averages, for a checkpoint."""
        return self.averages

    def load(self, averages: list[Tensor]) -> None:
        """Take the averages of a checkpoint."""
        for own, saved in zip(self.averages, averages, strict=True):
            own.copy_(saved)
