"""Shuffled minibatches whose place in the stream is two integers."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


class ShuffledBatches:
    """Index batches of one fixed size; every epoch is a new permutation.

    The permutation of an epoch depends on the seed and the epoch alone, so that a checkpoint needs
    only ``epoch`` and ``position``. The remainder of an epoch that does not fill a batch is left
    out, as a small last batch would upset batch normalisation.

    Args:
        n: Number of training examples.
        batch_size: Size of every batch; at most ``n`` is used.
        seed: The run's seed.
        device: Where the data lives.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self.device = torch.device(device)
        self.epoch = self.position = 0
        self._order = self._permutation()

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.n // self.batch_size

    def next(self) -> Int[Tensor, "{self.batch_size}"]:
        """Return the next batch's indices."""
        start = self.position * self.batch_size
        batch = self._order[start : start + self.batch_size]
        self.position += 1
        if self.position == self.steps_per_epoch:
            self.seek(self.epoch + 1, 0)
        return batch

    def seek(self, epoch: int, position: int) -> None:
        """Go to a batch: the start of an epoch, or a checkpoint's place."""
        self.epoch, self.position = epoch, position
        self._order = self._permutation()

    def _permutation(self) -> Int[Tensor, "{self.n}"]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.n, generator=generator).to(self.device)
