"""Shuffled minibatches whose place in the stream is two integers."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dgm_bench.spec import LastBatch


class ShuffledBatches:
    """Index batches of one fixed size; every epoch is a new permutation.

    A permutation depends on the seed and its number alone, so that a checkpoint needs only
    ``epoch`` and ``position``.

    Args:
        n: Number of training examples.
        batch_size: Size of every batch; at most ``n`` is used.
        seed: The run's seed.
        device: Where the data lives.
        last_batch: What becomes of the examples that do not fill an epoch's last batch: left out
            (``drop``), a smaller batch (``use``), or one completed by the first examples of the
            next permutation, which then goes on from there: a new one (``wrap``) or the same one
            for ever (``cycle``).
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        last_batch: LastBatch = "drop",
    ) -> None:
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self.device, self.last_batch = torch.device(device), last_batch
        self.epoch = self.position = self._number = self._start = 0
        self._order = self._permutation(0)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(self.n, self.batch_size)
        return whole + (rest > 0 and self.last_batch != "drop")

    def next(self) -> Int[Tensor, " batch"]:
        """Return the next batch's indices."""
        batch = self._order[self._start : self._start + self.batch_size]
        self._start += self.batch_size
        self.position += 1
        if self._goes_on and self._start >= self.n:
            self._start -= self.n
            self._number += 1
            self._order = self._permutation(self._number)
            batch = torch.cat([batch, self._order[: self.batch_size - len(batch)]])
        if self.position == self.steps_per_epoch:
            self.seek(self.epoch + 1, 0)
        return batch

    def seek(self, epoch: int, position: int) -> None:
        """Go to a batch: the start of an epoch, or a checkpoint's place."""
        self.epoch, self.position = epoch, position
        self._number, self._start = epoch, position * self.batch_size
        if self._goes_on:
            passed = epoch * self.steps_per_epoch + position
            self._number, self._start = divmod(passed * self.batch_size, self.n)
        self._order = self._permutation(self._number)

    @property
    def _goes_on(self) -> bool:
        return self.last_batch in ("wrap", "cycle")

    def _permutation(self, number: int) -> Int[Tensor, "{self.n}"]:
        drawn = 0 if self.last_batch == "cycle" else number
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + drawn)
        return torch.randperm(self.n, generator=generator).to(self.device)
