"""A residual network is the Euler discretisation of an ODE (neural ODEs, equations 1 and 2).

The paper is https://arxiv.org/abs/1806.07366.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous.dynamics import Dynamics


class ResidualODENet(nn.Module):
    """``layers`` blocks ``h + f(t_l, h) / layers`` with ``t_l = l / layers``.

    Blocks differ in the time that is an input of ``f``: with layers such as ``ConcatSquash`` each
    block has weights of its own.

    Args:
        dynamics: ``f(t, h)``, a module, as a continuous flow has it.
        layers: Number of blocks.

    Raises:
        DeclarationError: There is no block.
    """

    times: Float[Tensor, " times"]

    def __init__(self, dynamics: Dynamics, layers: int) -> None:
        super().__init__()
        if layers < 1:
            raise DeclarationError("layers", f"{layers} blocks", "give at least one")
        self.dynamics, self.layers = dynamics, layers
        # From the parameters, so that times have their precision and device.
        like = next(dynamics.parameters())
        times = torch.arange(layers + 1, dtype=like.dtype, device=like.device) / layers
        self.register_buffer("times", times, persistent=False)

    def forward(self, h: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the output of the last block."""
        for t in self.times[:-1]:
            h = h + self.dynamics(t, h) / self.layers
        return h

    def solve(
        self, h: Float[Tensor, "batch dim"], *, adjoint: bool = False
    ) -> Float[Tensor, "batch dim"]:
        """Return the solution at t = 1 of ``dh/dt = f(t, h)`` by Euler's method, one step a block.

        Args:
            h: The value at t = 0.
            adjoint: Gradients by the adjoint equation, solved by Euler's method too, or by
                backpropagation through the solver, which are those of the residual network.
        """
        import torchdiffeq  # here: see :func:`integration.integrate`

        settings = {"method": "euler", "options": {"step_size": 1 / self.layers}}
        ends = self.times[[0, -1]]
        if not adjoint:
            return torchdiffeq.odeint(self.dynamics, h, ends, **settings)[-1]  # type: ignore[no-any-return]
        weights = tuple(self.dynamics.parameters())
        solution: Tensor = torchdiffeq.odeint_adjoint(
            self.dynamics, h, ends, adjoint_params=weights, **settings
        )
        return solution[-1]
