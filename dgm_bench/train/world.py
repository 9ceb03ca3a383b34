"""The processes that compute one run together, and what they tell each other.

The first one does all that a single one does. The others follow it: they take the same steps, each
on its slice of every batch, and write nothing. What depends on time or on somebody's wish is
decided by the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Num
from torch import Tensor

from dgm_bench.control import Control, Interrupted, asking
from dgm_bench.errors import LostProcessError
from dgm_bench.models.whole_batch import Slice

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class World:
    """Processes that compute together: one, or those of torch's process group.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        lost: Returns which process went away, and how, as far as is known.
    """

    rank: int = 0
    size: int = 1
    lost: Callable[[], tuple[str, str]] = field(
        default=lambda: ("another process", "has gone"), compare=False
    )

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and decides."""
        return self.rank == 0

    def share(self, value: Shared) -> Shared:
        """Return the first process's value in all.

        Raises:
            LostProcessError: Another process has gone.
        """
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        with self._noticing():
            dist.broadcast_object_list(box, src=0)
        return cast(Shared, box[0])

    def agree(self, *wishes: bool) -> Sequence[bool]:
        """Return what the first process wishes, which costs less than :meth:`share`.

        Raises:
            LostProcessError: Another process has gone.
        """
        if self.size == 1:
            return wishes
        found = torch.tensor(wishes, dtype=torch.uint8)
        with self._noticing():
            dist.broadcast(found, src=0)
        return [bool(wish) for wish in found.tolist()]

    def add_up(self, x: Num[Tensor, "*shape"]) -> None:
        """Replace a contiguous tensor by its sum over all processes.

        Raises:
            LostProcessError: Another process has gone.
        """
        if self.size > 1:
            with self._noticing():
                dist.all_reduce(x)

    def gathered(self, rows: Num[Tensor, "n *rest"]) -> list[Num[Tensor, "_n *rest"]]:
        """Return the rows of each process, of which there may be different numbers.

        Raises:
            LostProcessError: Another process has gone.
        """
        if self.size == 1:
            return [rows]
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        self.add_up(counts)
        lengths = counts.tolist()
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in lengths]
        with self._noticing():
            dist.all_gather([_as_bytes(own) for own in found], _as_bytes(padded))
        return [own[:length] for own, length in zip(found, lengths, strict=True)]

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the first process's tensors, on the host, in all; large ones too.

        Raises:
            LostProcessError: Another process has gone.
        """
        shapes = self.share({name: (own.shape, own.dtype) for name, own in tensors.items()})
        if not self.leads:
            tensors = {name: torch.empty(shape, dtype=of) for name, (shape, of) in shapes.items()}
        for own in tensors.values() if self.size > 1 else ():
            with self._noticing():
                dist.broadcast(_as_bytes(own), src=0)
        return tensors

    def slice_of(self, total: int) -> Slice | None:
        """Return this process's part of a batch; None where there are fewer examples than parts."""
        if not 1 < self.size <= total:
            return None
        return Slice(self.rank, self.size, total, self.add_up)

    def call(self, method: str, x: Num[Tensor, "n *event"], noise: torch.Generator | None) -> None:
        """Do nothing: while all take the same steps, they know."""

    @contextmanager
    def in_step(self, control: Control) -> Iterator[None]:
        """Stop all processes between the same two pieces of work, until the block ends."""
        if self.size == 1:
            yield
            return

        def ask() -> None:
            if (reason := self.stop_reason(control)) is not None:
                raise Interrupted(reason)

        with asking(ask):
            yield

    def stop_reason(self, control: Control) -> str | None:
        """Return why the first process is to stop, in all processes."""
        reason = control.stop_reason() if self.leads else None
        (stops,) = self.agree(reason is not None)
        return self.share(reason) if stops else None

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what torch raises is not always of a kind of its own
            raise LostProcessError(*self.lost()) from error


def _as_bytes(x: Tensor) -> Tensor:
    """Return a view that every library of communication knows the type of."""
    return x.reshape(-1).view(torch.uint8)


#: The world of a process that has no others.
ALONE = World()
