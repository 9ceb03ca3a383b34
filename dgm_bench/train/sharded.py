"""Parameters of which each process holds a part, and with it that part of the optimiser's memory.

Adam remembers two numbers of each parameter: with an average and the best parameters so far, five
times the model. Of large models each process keeps its part of all that (torch's FSDP2). All have
the whole parameters while they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from dgm_bench.models.capabilities import CalibratesOnData, InitialisesOnData
from dgm_bench.train.losses import Batch
from dgm_bench.train.world import World

#: Models with as many parameters are kept in parts: those of the largest priors of codes.
SHARDED_FROM = 50_000_000


class Sharded(nn.Module):
    """A model that is in parts, and whole while a loss and its gradients are computed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss_of: Callable[[Batch], Float[Tensor, ""]], x: Batch) -> Float[Tensor, ""]:
        """Return a loss, whose gradients are summed over all processes."""
        return loss_of(x)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Have the model whole until the block ends; its parameters are only read."""
        parts = cast(FSDPModule, self)
        parts.unshard()
        try:
            yield
        finally:
            parts.reshard()

    @torch.no_grad()
    def join(self) -> None:
        """Make the model an ordinary one again."""
        for module in self.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(whole(parameter), parameter.requires_grad))


def sharded(model: nn.Module, world: World) -> Sharded | None:
    """Put a model into parts where it is large; return None where it stays as it is."""
    size = sum(parameter.numel() for parameter in model.parameters())
    reads_data = isinstance(model, InitialisesOnData | CalibratesOnData)
    if world.size == 1 or size < SHARDED_FROM or reads_data:
        return None
    device = next(model.parameters()).device.type
    found = Sharded(model)
    fully_shard(found, mesh=init_device_mesh(device, (world.size,)))
    cast(FSDPModule, found).set_gradient_divide_factor(1.0)
    return found


def whole(values: Any) -> Any:  # noqa: ANN401  what checkpoints are made of
    """Return values with all tensors whole; all processes have to ask for it."""
    return tree_map_only(DTensor, lambda part: part.detach().full_tensor(), values)


def parted_like(value: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor in parts, as ``own`` is, if it is and has the same shape."""
    if not isinstance(own, DTensor) or value.shape != own.shape:
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
