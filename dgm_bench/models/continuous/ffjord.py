"""FFJORD: continuous normalising flows (Grathwohl et al., 2018, https://arxiv.org/abs/1810.01367)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor

from dgm_bench.annotations import Count, Positive
from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous.activations import Nonlinearity
from dgm_bench.models.continuous.dynamics import DynamicsNetwork, Layer
from dgm_bench.models.continuous.flow import ContinuousFlow, SolvedFlow
from dgm_bench.models.continuous.solver import Noise, Solver, SolverName, gradient_of


class FFJORD(SolvedFlow):
    """A stack of continuous flows over a standard normal.

    ``log_prob`` takes the exact trace of the Jacobian, which the paper uses for its tests;
    ``log_prob_estimate`` Hutchinson's estimate, which it uses for training.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    section 3.

    Args:
        event_shape: Shape of one example.
        flows: Number of flows (FFJORD Table 4).
        hidden: Widths of the hidden layers of each flow's network (FFJORD Table 4).
        layer: How time enters: ``"concatsquash"`` is the released code's default, ``"concat"``
            what the paper's text says.
        activation: Nonlinearity (FFJORD Table 4).
        solver: ``"dopri5"``, ``"rk4"`` or ``"rk5"``.
        rtol: Relative tolerance; the default is the paper's for tables (its appendix C).
        atol: Absolute tolerance; likewise.
        step_size: Step of ``"rk4"`` and ``"rk5"``.
        adjoint: Gradients by the adjoint equation, in constant memory, or through the solver.
        noise: Distribution of the vectors of Hutchinson's estimate.

    Example:
        >>> model = FFJORD((2,), hidden=[8], solver="rk4", step_size=0.25)
        >>> x, generator = torch.randn(5, 2), torch.Generator().manual_seed(0)
        >>> model.log_prob(x).shape, model.log_prob_estimate(x, generator).shape
        (torch.Size([5]), torch.Size([5]))
        >>> model.function_evaluations  # two solutions of four steps of four evaluations
        32
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        flows: Count = 1,
        hidden: Sequence[Count] = (64, 64, 64),
        layer: Layer = "concatsquash",
        activation: Nonlinearity = "tanh",
        solver: SolverName = "dopri5",
        rtol: Positive = 1e-6,
        atol: Positive = 1e-8,
        step_size: Positive | None = None,
        adjoint: bool = True,
        noise: Noise = "gaussian",
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, gradient_of(adjoint))
        networks = [
            DynamicsNetwork(math.prod(event_shape), hidden, layer, activation) for _ in range(flows)
        ]
        flows_ = [ContinuousFlow(network, shared) for network in networks]
        super().__init__(event_shape, flows_, shared, noise)

    @property
    def flows(self) -> tuple[ContinuousFlow, ...]:
        """The flows, in the order in which data passes."""
        return cast(tuple[ContinuousFlow, ...], tuple(self.layers))

    def velocity(
        self, t: Float[Tensor, " batch"], z: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch *event"]:
        """Return ``dz/dt`` of the only flow, with a time of its own for each example.

        Raises:
            DeclarationError: There are several flows, each with a velocity of its own.
        """
        if len(self.flows) != 1:
            reason = f"there are {len(self.flows)}, and each has a velocity of its own"
            raise DeclarationError("flows", reason, "use flows=1")
        network = cast(DynamicsNetwork, self.flows[0].network)
        return network.velocity(t, z.flatten(1)).reshape(z.shape)
