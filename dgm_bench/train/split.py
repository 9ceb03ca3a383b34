"""Losses and gradients of a batch that is divided: among processes, or into parts in sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import SolvesODE
from dgm_bench.models.whole_batch import Slice, sharing
from dgm_bench.train.losses import Batch
from dgm_bench.train.state import TrainingState
from dgm_bench.train.world import ALONE, World

LossOf = Callable[[Batch], Float[Tensor, ""]]
#: Relative differences of gradients that rounding leaves, by what a stage computes in.
TOLERANCES = {"float64": 1e-6, "float32": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Split:
    """How batches are divided; their size, and so what a recipe trains, stays the same.

    Attributes:
        world: The processes that each take a slice.
        parts: Each process computes its slice in so many parts, whose gradients are accumulated.
    """

    world: World = ALONE
    parts: int = 1

    @property
    def divides(self) -> bool:
        """Whether batches are divided at all."""
        return self.world.size * self.parts > 1

    def backward(self, state: TrainingState, loss_of: LossOf, x: Batch) -> Float[Tensor, ""]:
        """Return the loss of a whole batch, and leave its gradients in the model.

        Args:
            state: Of the training; its noise is what one process would leave.
            loss_of: A mean over examples.
            x: The whole batch.
        """
        if not self.divides:
            loss = loss_of(x)
            loss.backward()
            return loss
        total = torch.zeros((), device=state.device)
        for part in _replayed(state, self._slices(len(x))):
            own = x if part is None else x[part.start : part.stop]
            with sharing(part):
                loss = loss_of(own) * (1 / self.world.size if part is None else part.share)
                loss.backward()
            total = total + loss.detach()
        # Those of a model in parts are of a class of their own, and added up already.
        gradients = [own for own in _gradients(state.model) if type(own) is Tensor]
        return _add_up(self.world, gradients, total)

    @property
    def fewest(self) -> int:
        """The fewest examples of which each process and part has one."""
        return self.world.size * self.parts

    def _slices(self, total: int) -> list[Slice | None]:
        """Return this process's parts of a batch; None is the whole of one that is too small."""
        world = self.world
        if total < world.size:
            return [None]
        parts = min(self.parts, total // world.size)
        if parts == 1:
            return [world.slice_of(total)]
        own = range(world.rank * parts, (world.rank + 1) * parts)
        return [Slice(number, world.size * parts, total) for number in own]

    def require_right(self, state: TrainingState, loss_of: LossOf, x: Batch) -> None:
        """Refuse a model whose gradients are not those of the whole batch when it is divided.

        Args:
            state: Of the training; it stays as it is.
            loss_of: A mean over examples.
            x: A few examples, more than :attr:`fewest` where there are so many.

        Raises:
            DeclarationError: Gradients, statistics or noise differ by more than rounding.
        """
        whole = _tried(state, lambda: WHOLE.backward(state, loss_of, x))
        divided = _tried(state, lambda: self.backward(state, loss_of, x))
        tolerance = TOLERANCES[state.precision]
        differ = [what for what in whole if not _close(whole[what], divided[what], tolerance)]
        if differ:
            name, remedy = type(state.model).__name__, "use one device, and no --accumulate"
            reason = f"has another {' and '.join(differ)} where its batch is divided"
            raise DeclarationError(name, reason, remedy)


#: Nothing is divided.
WHOLE = Split()


def _replayed(state: TrainingState, slices: list[Slice | None]) -> Iterator[Slice | None]:
    """Yield parts, each with the same noise ahead; what is counted is counted once."""
    generators, counted = state.noise_states(), state.function_evaluations
    for number, part in enumerate(slices):
        if number:
            state.set_noise_states(generators)
        yield part
    if isinstance(state.model, SolvesODE) and counted is not None and len(slices) > 1:
        taken = state.model.function_evaluations - counted
        state.model.function_evaluations = counted + taken // len(slices)


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def _add_up(world: World, gradients: list[Tensor], loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Add up gradients and loss over all processes, in one go."""
    if world.size == 1:
        return loss
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.view(1)])
    world.add_up(flat)
    *sums, total = flat.split([*(gradient.numel() for gradient in gradients), 1])
    views = [part.view_as(own) for part, own in zip(sums, gradients, strict=True)]
    if gradients:
        torch._foreach_copy_(gradients, views)
    whole: Tensor = total.view(())
    return whole


@contextmanager
def _unchanged(state: TrainingState) -> Iterator[None]:
    """Put all back that a loss and its gradients change."""
    generators, counted = state.noise_states(), state.function_evaluations
    buffers = [buffer.clone() for buffer in state.model.buffers()]
    try:
        yield
    finally:
        state.model.zero_grad(set_to_none=True)
        state.set_noise_states(generators)
        if isinstance(state.model, SolvesODE) and counted is not None:
            state.model.function_evaluations = counted
        with torch.no_grad():
            for buffer, before in zip(state.model.buffers(), buffers, strict=True):
                buffer.copy_(before)


def _tried(state: TrainingState, compute: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Return all that a loss and its gradients give."""
    with _unchanged(state):
        loss = compute()
        gradients = [gradient.flatten() for gradient in _gradients(state.model)]
        buffers = [b.flatten().double() for b in state.model.buffers() if b.is_floating_point()]
        noise = [own.double() for own in state.noise_states().values() if own is not None]
        return {
            "gradient": torch.cat([loss.detach().view(1), *gradients]).double(),
            "set of statistics": torch.cat([*buffers, loss.new_zeros(1).double()]),
            "state of its noise": torch.cat([own.cpu() for own in noise]),
        }


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * one.norm())
