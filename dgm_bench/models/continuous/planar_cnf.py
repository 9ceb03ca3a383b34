"""The continuous planar flow (neural ODEs, https://arxiv.org/abs/1806.07366, section 4)."""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Positive
from dgm_bench.models.continuous.dynamics import Linearised
from dgm_bench.models.continuous.flow import ContinuousFlow, SolvedFlow
from dgm_bench.models.continuous.solver import Solver, SolverName, gradient_of


class LinearisedPlanar(Linearised):
    """Planar dynamics at a point; their trace has a closed form."""

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``sum_m g_m(t) (u_m.w_m) tanh'(w_m.z + b_m)`` (neural ODEs, section 4)."""
        w, u = self.weights
        return self.slopes[0] @ (w * u.T).sum(1)


class PlanarDynamics(nn.Module):
    """``dz/dt = sum_m g_m(t) u_m tanh(w_m.z + b_m)``: planar units with gates that depend on time.

    The paper names two ways in which time may enter (neural ODEs, section 4): these gates, or a
    hypernetwork that gives all weights. The gates are the outputs in (0, 1) of a network of the
    time, which the paper does not specify further; here it has one hidden layer of tanh.

    The layers ``inward`` and ``outward`` hold the paper's ``w`` and ``b``, and its ``u``.

    Args:
        dim: Number of dimensions.
        width: Number of units.
        gate_hidden: Width of the hidden layer of the gates' network.
    """

    def __init__(self, dim: int, width: int, gate_hidden: int) -> None:
        super().__init__()
        self.inward = nn.Linear(dim, width)
        self.outward = nn.Linear(width, dim, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(1, gate_hidden), nn.Tanh(), nn.Linear(gate_hidden, width), nn.Sigmoid()
        )

    def forward(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt``."""
        return F.linear(self.inward(z).tanh(), self._gated_u(t))

    def linearise(self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]) -> LinearisedPlanar:
        """Return ``dz/dt`` and the factors of its Jacobian in ``z``."""
        u, h = self._gated_u(t), self.inward(z).tanh()
        return LinearisedPlanar(F.linear(h, u), [self.inward.weight, u], [1 - h.square()])

    def _gated_u(self, t: Float[Tensor, ""]) -> Float[Tensor, "dim width"]:
        u: Tensor = self.outward.weight * self.gate(t.view(1))
        return u


class PlanarCNF(SolvedFlow):
    """The continuous planar flow (neural ODEs, section 4): one equation over a standard normal.

    Chen, Rubanova, Bettencourt and Duvenaud (2018), https://arxiv.org/abs/1806.07366, section 4.

    Args:
        event_shape: Shape of one example.
        width: Number of units: 64 in the paper's experiments with maximum likelihood (its
            section 4.2).
        gate_hidden: Width of the hidden layer of the gates' network.
        solver, rtol, atol, step_size, adjoint: As for
            :class:`~dgm_bench.models.continuous.ffjord.FFJORD`.

    Example:
        >>> model = PlanarCNF((2,), width=4, gate_hidden=4)
        >>> x = torch.randn(5, 2)
        >>> u, log_det = model.forward_and_log_det(x)
        >>> torch.allclose(model.inverse(u), x, atol=1e-3)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: Count = 64,
        gate_hidden: Count = 16,
        solver: SolverName = "dopri5",
        rtol: Positive = 1e-6,
        atol: Positive = 1e-8,
        step_size: Positive | None = None,
        adjoint: bool = True,
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, gradient_of(adjoint))
        network = PlanarDynamics(math.prod(event_shape), width, gate_hidden)
        super().__init__(event_shape, [ContinuousFlow(network, shared)], shared)
