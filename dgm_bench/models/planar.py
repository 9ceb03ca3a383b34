"""Planar flows: discrete (Rezende and Mohamed, 2015) and continuous (Chen et al., 2018)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.dynamics import Linearised
from dgm_bench.models.ffjord import ContinuousFlow, SolvedFlow, Solver, SolverName
from dgm_bench.models.flow import Flow
from dgm_bench.models.root import invert_monotone


class Planar(nn.Module):
    """``x = z + û tanh(w.z + b)``, from noise ``z`` to data ``x`` (planar flows, equation 10).

    ``û`` is ``u`` moved along ``w`` until ``w.û > -1``, which makes the map invertible (appendix
    A.1). That way the map is explicit. The other way one equation in one unknown is solved:
    ``s + (w.û) tanh(s) = w.x + b`` with ``s = w.z + b``, whose left side is increasing.

    Args:
        dim: Number of dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.push = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.direction = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.offset = nn.Parameter(torch.zeros(()))

    def constrained(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Return ``û``, ``w.û`` and, without cancellation, ``1 + w.û > 0``."""
        return constrained(self.push, self.direction, self.push @ self.direction)

    def generate(
        self, z: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(x, log|det dx/dz|)``, in one pass (equations 10 to 12)."""
        push, along, margin = self.constrained()
        h = (z @ self.direction + self.offset).tanh()
        return z + h[:, None] * push, (margin - along * h.square()).log()

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x`` from noise ``u``, in one pass."""
        return self.generate(u)[0]

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(z, log|det dz/dx|)``, by root finding; gradients are those of the solution."""
        push, along, margin = self.constrained()
        target = x @ self.direction + self.offset
        s = _solve(target.detach(), along.detach(), margin.detach())
        # One more step of Newton's changes nothing but brings the implicit function's gradient.
        h = s.tanh()
        slope = margin.detach() - along.detach() * h.square()
        h = (s + (target - s - along * h) / slope).tanh()
        return x - h[:, None] * push, -(margin - along * h.square()).log()


def constrained(
    push: Float[Tensor, "*batch dim"],
    direction: Float[Tensor, "*batch dim"],
    product: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return ``û``, ``w.û`` and, without cancellation, ``1 + w.û > 0`` (planar flows, A.1).

    Args:
        push: ``u``.
        direction: ``w``.
        product: ``w.u``.
    """
    margin = F.softplus(product)
    along = margin - 1
    unit = direction / direction.square().sum(-1, keepdim=True)
    return push + (along - product)[..., None] * unit, along, margin


class PlanarFlow(Flow):
    """Planar maps from a standard normal to data.

    One pass gives a sample and its own density, as variational inference wants it. The density of
    given data takes a root of one equation per layer and example.

    Args:
        event_shape: Shape of one example.
        layers: Number of maps.
    """

    def __init__(self, event_shape: tuple[int, ...], layers: int = 10) -> None:
        dim = math.prod(event_shape)
        super().__init__(event_shape, [Planar(dim) for _ in range(layers)])

    def sample_with_log_prob(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n *event"], Float[Tensor, " n"]]:
        """Return ``n`` examples and the log density of each in nats, with gradients."""
        x = self.density.sample(n, generator)
        log_prob = self.density.log_prob(x)
        for layer in reversed(cast(tuple[Planar, ...], tuple(self.layers))):
            x, log_det = layer.generate(x)
            log_prob = log_prob - log_det
        return x.reshape(-1, *self.event_shape), log_prob


class LinearisedUnits(Linearised):
    """Planar units at a point. Their trace takes no tangents."""

    def exact_trace(self) -> Float[Tensor, " batch"]:
        """Return ``sum_m g_m(t) (u_m.w_m) tanh'(w_m.z + b_m)`` (neural ODEs, section 4)."""
        inward, outward = self.weights
        return self.slopes[0] @ (inward * outward.T).sum(1)


class GatedUnits(nn.Module):
    """``dz/dt = sum_m g_m(t) u_m tanh(w_m.z + b_m)``: planar units that time turns on and off.

    Of the two ways in which time may enter a planar flow (neural ODEs, section 4), this is the
    gates; the other is a hypernetwork that gives all weights. The gates are the outputs in (0, 1)
    of a network of the time, of which the paper says no more; here it has one hidden layer of tanh.

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
        return F.linear(self.inward(z).tanh(), self._gated(t))

    def linearise(self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]) -> LinearisedUnits:
        """Return ``dz/dt`` and the factors of its Jacobian in ``z``."""
        weight, h = self._gated(t), self.inward(z).tanh()
        return LinearisedUnits(F.linear(h, weight), [self.inward.weight, weight], [1 - h.square()])

    def _gated(self, t: Float[Tensor, ""]) -> Float[Tensor, "dim width"]:
        weight: Tensor = self.outward.weight * self.gate(t.view(1))
        return weight


class PlanarCNF(SolvedFlow):
    """The continuous planar flow (neural ODEs, section 4): one equation over a standard normal.

    Args:
        event_shape: Shape of one example.
        width: Number of units: 64 in the paper's experiments with maximum likelihood (its
            section 4.2).
        gate_hidden: Width of the hidden layer of the gates' network.
        solver: ``"dopri5"`` or ``"rk4"``.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        step_size: Step of ``"rk4"``.
        adjoint: Gradients by the adjoint equation, in constant memory, or through the solver.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 64,
        gate_hidden: int = 16,
        solver: SolverName = "dopri5",
        rtol: float = 1e-6,
        atol: float = 1e-8,
        step_size: float | None = None,
        adjoint: bool = True,
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, adjoint)
        network = GatedUnits(math.prod(event_shape), width, gate_hidden)
        super().__init__(event_shape, [ContinuousFlow(network, shared)], shared)


def _solve(
    target: Float[Tensor, " batch"], along: Float[Tensor, ""], margin: Float[Tensor, ""]
) -> Float[Tensor, " batch"]:
    """Return ``s`` with ``s + along * tanh(s) = target``; ``margin`` is ``1 + along``."""

    def function(
        s: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        h = s.tanh()
        return s + along * h, margin - along * h.square()

    reach = along.abs() + 1
    return invert_monotone(function, target, target - reach, target + reach)
