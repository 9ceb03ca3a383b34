"""A model's parameters as one vector, and an optimiser that steps it as one tensor."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.spec import OptimizerSpec
from dgm_bench.train.optimizers import build_optimizer


class FlatParameters:
    """Parameters of a model as parts of a vector, until :meth:`give_back`.

    Optimisers whose rule is the same for every number step the vector exactly as they step its
    parts. What they remember is taken from the model's own optimiser, and goes back to it.

    Args:
        model: None of its parameters has a rule of its own, such as no weight decay.
        optimizer: The model's own.
        spec: What that was built from.
        vector: Where the parameters are to lie, in the order of ``parameters()``; they are copied.

    Attributes:
        parameters: The vector, as what gradients are clipped of.
        optimizer: Steps the vector.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        spec: OptimizerSpec,
        vector: Float[Tensor, " parameters"],
    ) -> None:
        self.model, self.own = model, optimizer
        self.vector = nn.Parameter(vector)
        self.parameters = [self.vector]
        for parameter, part in zip(model.parameters(), parts(vector, model), strict=True):
            part.copy_(parameter.detach())
            parameter.data = part
        stepped = build_optimizer(spec, _Vector(self.vector))
        self.optimizer = cast(torch.optim.Optimizer, stepped)  # a vector is a parameter
        self._take_memory()

    def _take_memory(self) -> None:
        """Go on from what the model's own optimiser remembers of each parameter."""
        each = [self.own.state[p] for p in self.model.parameters() if p in self.own.state]
        for name, first in (each[0] if each else {}).items():
            self.optimizer.state[self.vector][name] = (
                torch.cat([one[name].flatten() for one in each])
                if _is_memory(name, first)
                else _copied(first)
            )

    def take_gradients(self) -> None:
        """Take the gradients that autograd left in the model's parameters."""
        gradients = [cast(Tensor, p.grad).flatten() for p in self.model.parameters()]
        self.vector.grad = torch.cat(gradients)
        self.model.zero_grad(set_to_none=True)

    def share_memory(self) -> None:
        """Let the model's own optimiser have what is remembered: views of what is a vector.

        Numbers of steps are copied: each parameter counts its own.
        """
        for name, value in self.optimizer.state[self.vector].items():
            parameters = list(self.model.parameters())
            whole = _is_memory(name, value)
            views = parts(value, self.model) if whole else [_copied(value) for _ in parameters]
            for parameter, view in zip(parameters, views, strict=True):
                self.own.state[parameter][name] = view

    def give_back(self) -> None:
        """Give parameters and what the optimiser remembers memory of their own again."""
        self.share_memory()
        for parameter in self.model.parameters():
            parameter.data = parameter.detach().clone()
            memory = self.own.state[parameter]
            memory.update({name: _copied(value) for name, value in memory.items()})


class _Vector(nn.Module):
    """A model that is one vector, for who builds optimisers of models."""

    def __init__(self, vector: nn.Parameter) -> None:
        super().__init__()
        self.vector = vector


def parts(
    vectors: Float[Tensor, "*models parameters"], model: nn.Module
) -> list[Float[Tensor, "..."]]:
    """Return what the vectors hold of each parameter of a model, as views."""
    shapes = [p.shape for p in model.parameters()]
    whole = vectors.split([shape.numel() for shape in shapes], dim=-1)
    leading = vectors.shape[:-1]
    return [part.view(*leading, *shape) for part, shape in zip(whole, shapes, strict=True)]


def _is_memory(name: str, value: object) -> bool:
    """Say whether an optimiser keeps this for each number of a parameter, unlike its steps."""
    return name != "step" and isinstance(value, Tensor)


def _copied(value: Any) -> Any:  # noqa: ANN401  optimisers keep anything
    return value.clone() if isinstance(value, Tensor) else value
