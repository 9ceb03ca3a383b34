"""Losses and gradients of several models of one kind at once, as one batch of models.

Small models cost the time of starting operations, not of arithmetic. Here an operation is started
once for all of them: ``torch.func`` turns the loss of one model into that of a batch of models,
which is traced once for the shapes at hand and then computed without autograd or Python modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from dgm_bench.train.flat import parts
from dgm_bench.train.losses import Batch, Objective
from dgm_bench.train.traced import trace

Traced = Callable[..., tuple[Float[Tensor, " models"], Float[Tensor, "models parameters"]]]


class StackedModels:
    """Computes what ``objective(model, x).backward()`` does, for each of several models.

    Buffers are taken as they are when a shape of batch is first seen, and again when one of them
    has changed.

    Args:
        models: Of the same class and arguments, in training mode; they change no buffer in it.
        objective: A mean over examples that depends neither on the step nor on noise.

    Attributes:
        vectors: The parameters of each model in a row, in the order of ``parameters()``. Whoever
            changes a row changes what is computed.
    """

    def __init__(self, models: Sequence[nn.Module], objective: Objective) -> None:
        self._loss = _Loss(models[0], objective)
        rows = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
        self.vectors: Float[Tensor, "models parameters"] = torch.stack(rows)
        self._parameters = [part.detach() for part in parts(self.vectors, models[0])]
        #: Those of one name together.
        self._buffers = list(zip(*(model.buffers() for model in models), strict=True))
        self._names = [name for name, _ in self._loss.named_parameters()]
        self._names += [name for name, _ in self._loss.named_buffers()]
        self._traced: dict[torch.Size, Traced] = {}
        self._seen: list[int] = []

    @torch.no_grad()
    def gradients(
        self, batches: Sequence[Batch]
    ) -> tuple[Float[Tensor, " models"], Float[Tensor, "models parameters"]]:
        """Return the loss of each model, and its gradient by ``vectors``.

        Args:
            batches: One for each model, all of one shape.

        Raises:
            RuntimeError: From torch, when the models cannot be computed as one batch.
        """
        x = torch.stack(list(batches))
        if (now := self._versions()) != self._seen:
            self._traced, self._seen = {}, now
        if x.shape not in self._traced:
            self._traced[x.shape] = self._trace(x)
        return self._traced[x.shape](x)

    def _versions(self) -> list[int]:
        return [buffer._version for same in self._buffers for buffer in same]

    def _trace(self, x: Float[Tensor, "models batch *event"]) -> Traced:
        """Return a function of examples to losses and gradients."""
        gathered = [_gathered(same) for same in self._buffers]
        buffers, axes = [buffer for buffer, _ in gathered], tuple(axis for _, axis in gathered)
        count = len(self._parameters)

        def loss(parameters: Sequence[Tensor], buffers: Sequence[Tensor], x: Batch) -> Tensor:
            values = dict(zip(self._names, (*parameters, *buffers), strict=True))
            value: Tensor = functional_call(self._loss, values, (x,))
            return value

        of_all = vmap(grad_and_value(loss), in_dims=(0, axes, 0))

        def flat(x: Batch, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            gradients, losses = of_all(tensors[:count], tensors[count:], x)
            return losses, torch.cat([gradient.reshape(len(x), -1) for gradient in gradients], 1)

        repeat = trace(flat, [x, *self._parameters, *buffers])
        return lambda x: repeat(x, *self._parameters, *buffers)


class _Loss(nn.Module):
    """An objective as the forward pass of a module, which is what torch can call with weights."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Batch) -> Float[Tensor, ""]:
        """Return the loss of a batch."""
        return self.objective(self.model, x, 0, torch.Generator(x.device)).total


def _gathered(same: Sequence[Tensor]) -> tuple[Tensor, int | None]:
    """Return one buffer of all models and its axis of models: none where all are equal."""
    first, *others = same
    if all(torch.equal(first, other) for other in others):
        return first, None
    return torch.stack(list(same)), 0
