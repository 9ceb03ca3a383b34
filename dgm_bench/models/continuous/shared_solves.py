"""Solving for a slice of a batch with the steps, and the adjoint, of the whole batch.

An adaptive solver takes one step for all examples, by an error over all of them. The adjoint
equation has the gradients of the parameters in its state, which are sums over all examples, and
their error counts too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.func import functional_call

from dgm_bench.errors import DeclarationError
from dgm_bench.models import whole_batch
from dgm_bench.models.continuous.runge_kutta import RightHandSide, State, Time


def norm_of_state(state: State) -> Float[Tensor, ""]:
    """Return the largest root mean square of a part of the state: torchdiffeq's own norm."""
    return torch.stack([whole_batch.mean(part.abs().square()).sqrt() for part in state]).max()


class SharedDerivative:
    """A right-hand side for torchdiffeq's adjoint, with gradients of the whole batch.

    What its parameters get back is the same for all slices, and so is what the solver makes of it.

    Args:
        function: The right-hand side, of a slice.
        network: The module that it evaluates.

    Attributes:
        parameters: For the solver, in the place of the network's. The network's get back the
            slice's share.

    Raises:
        DeclarationError: Some of the parameters belong to examples.
    """

    def __init__(self, function: RightHandSide, network: object) -> None:
        if not isinstance(network, nn.Module):
            reason = "has no steps of the whole batch where parameters belong to examples"
            raise DeclarationError("the adjoint equation", reason, "use one device")
        self._function, self._evaluated = function, _Evaluated(function, network)
        named = dict(self._evaluated.named_parameters())
        self._names = list(named)
        self.parameters: tuple[Tensor, ...] = _Share.apply(whole_batch.share(), *named.values())
        self.callback_step = function.callback_step

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        """Return the derivatives of the parts of the state."""
        t, *parameters = whole_batch.with_whole_gradients([t, *self.parameters])
        values = dict(zip(self._names, parameters, strict=True))
        found: State = functional_call(self._evaluated, values, (t, state))
        return found

    def callback_step_adjoint(self, t: Time, state: State, step: Time) -> None:
        """Fail as in the forward solution."""
        self._function.callback_step(t, state, step)


class _Evaluated(nn.Module):
    """A right-hand side as a module, which torch can call with other parameters."""

    def __init__(self, function: RightHandSide, network: nn.Module) -> None:
        super().__init__()
        self.function, self.network = function, network

    def forward(self, t: Float[Tensor, ""], state: State) -> State:
        """Return the derivatives of the parts of the state."""
        return self.function(t, state)


class _Context(FunctionCtx):
    share: float


class _Share(torch.autograd.Function):
    """Tensors as they are; of what they get back, a share is passed on."""

    @staticmethod
    def forward(ctx: FunctionCtx, share: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        cast(_Context, ctx).share = share
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Any, ...]:
        share = cast(_Context, ctx).share
        return None, *(share * gradient for gradient in gradients)
