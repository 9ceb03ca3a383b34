"""FFJORD: continuous normalising flows (Grathwohl et al., 2018)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, RunFailure, did_you_mean
from dgm_bench.models.dynamics import (
    DynamicsNetwork,
    Layer,
    Linearised,
    Nonlinearity,
    exact_trace,
    hutchinson_trace,
)
from dgm_bench.models.flow import Flow

Trace = Callable[[Linearised], Tensor]
State = tuple[Tensor, ...]


@dataclass
class Solver:
    """How differential equations are solved, and how often that evaluated the dynamics.

    Attributes:
        solver: ``"dopri5"`` adapts its step to the tolerances; ``"rk4"`` takes ``step_size``.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        step_size: Step of ``"rk4"``, as a part of the whole time 1.
        adjoint: Gradients by the adjoint equation, or else through the solver's own steps.
        evaluations: Evaluations of the dynamics so far, forward and adjoint.
    """

    solver: Literal["dopri5", "rk4"] = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8
    step_size: float | None = None
    adjoint: bool = True
    evaluations: int = 0

    def __post_init__(self) -> None:
        if self.solver not in ("dopri5", "rk4"):
            raise DeclarationError("solver", f"no {self.solver!r}", "use 'dopri5' or 'rk4'")
        if self.solver == "rk4" and self.step_size is None:
            raise DeclarationError("step_size", "rk4 needs one", "for instance step_size=0.05")

    def solve(
        self,
        network: DynamicsNetwork,
        state: State,
        span: Float[Tensor, "2"],
        trace: Trace | None = None,
    ) -> State:
        """Return the state at the end of ``span``: positions, and with ``trace`` its integral.

        The error of each of the two meets the tolerances on its own, as in the released code.

        Raises:
            RunFailure: The step size underflowed: stiff or non-finite dynamics.
        """
        options = {"step_size": self.step_size} if self.solver == "rk4" else None
        settings: dict[str, Any] = {
            "rtol": self.rtol, "atol": self.atol, "method": self.solver, "options": options,
        }  # fmt: skip
        function = _Derivative(network, self, trace)
        if self.adjoint:
            parameters = tuple(network.parameters())
            solution = torchdiffeq.odeint_adjoint(
                function, state, span, adjoint_params=parameters, **settings
            )
        else:
            solution = torchdiffeq.odeint(function, state, span, **settings)
        return tuple(part[-1] for part in solution)


class _Derivative:
    """The right-hand side of one solve. Holds the solve's noise, so solves may overlap."""

    def __init__(self, network: DynamicsNetwork, solver: Solver, trace: Trace | None) -> None:
        self.network, self.solver, self.trace = network, solver, trace

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        self.solver.evaluations += 1
        if self.trace is None:
            return (self.network(t, state[0]),)
        at = self.network.linearise(t, state[0])
        return at.value, self.trace(at)

    def callback_step(self, t: Float[Tensor, ""], state: State, step: Float[Tensor, ""]) -> None:
        """Fail before the solver's own assertion does: that would not survive ``python -O``."""
        if not t + step > t:
            solver = self.solver
            raise RunFailure(
                "solver-failed",
                f"{solver.solver} cannot meet rtol {solver.rtol:g} and atol {solver.atol:g}: its "
                f"step size underflowed at t = {abs(float(t)):.4f}",
                "look at the loss before: stiff dynamics want a lower learning rate, or float64",
            )

    callback_step_adjoint = callback_step


class ContinuousFlow(nn.Module):
    """One continuous flow: ``dz/dt = f(t, z)`` from data at t = 0 to noise at t = 1.

    Args:
        network: The dynamics ``f``.
        solver: Shared by all flows of a model.
    """

    span: Tensor

    def __init__(self, network: DynamicsNetwork, solver: Solver) -> None:
        super().__init__()
        self.network, self.solver = network, solver
        # The released code means to train the end time but cuts its gradient: it stays 1.
        self.register_buffer("span", torch.tensor([0.0, 1.0]), persistent=False)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch dim"], trace: Trace = exact_trace
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, the latter the integral of the trace (FFJORD, eq. 4)."""
        u, log_det = self.solver.solve(self.network, (x, x.new_zeros(len(x))), self.span, trace)
        return u, log_det

    def inverse(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``x``, by the same equation from t = 1 back to 0."""
        (x,) = self.solver.solve(self.network, (u,), self.span.flip(0))
        return x


class FFJORD(Flow):
    """A stack of continuous flows over a standard normal.

    ``log_prob`` takes the exact trace of the Jacobian, which the paper uses for its tests;
    ``log_prob_estimate`` Hutchinson's estimate, which it uses for training.

    Args:
        event_shape: Shape of one example.
        flows: Number of flows (FFJORD Table 4).
        hidden: Widths of the hidden layers of each flow's network (FFJORD Table 4).
        layer: How time enters: ``"concatsquash"`` is the released code's default, ``"concat"``
            what the paper's text says.
        activation: Nonlinearity (FFJORD Table 4).
        solver: ``"dopri5"`` or ``"rk4"``.
        rtol: Relative tolerance; the default is the paper's for tables (its appendix C).
        atol: Absolute tolerance; likewise.
        step_size: Step of ``"rk4"``.
        adjoint: Gradients by the adjoint equation, in constant memory, or through the solver.
        noise: Distribution of the vectors of Hutchinson's estimate.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        flows: int = 1,
        hidden: Sequence[int] = (64, 64, 64),
        layer: Layer = "concatsquash",
        activation: Nonlinearity = "tanh",
        solver: Literal["dopri5", "rk4"] = "dopri5",
        rtol: float = 1e-6,
        atol: float = 1e-8,
        step_size: float | None = None,
        adjoint: bool = True,
        noise: Literal["gaussian", "rademacher"] = "gaussian",
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, adjoint)
        networks = [
            DynamicsNetwork(math.prod(event_shape), hidden, layer, activation) for _ in range(flows)
        ]
        super().__init__(event_shape, [ContinuousFlow(network, shared) for network in networks])
        self.noise, self.solver = noise, shared

    @property
    def flows(self) -> tuple[ContinuousFlow, ...]:
        """The flows, in the order in which data passes."""
        return cast(tuple[ContinuousFlow, ...], tuple(self.layers))

    @property
    def function_evaluations(self) -> int:
        """Evaluations of the dynamics so far, of all flows, forward and adjoint."""
        return self.solver.evaluations

    @function_evaluations.setter
    def function_evaluations(self, count: int) -> None:
        self.solver.evaluations = count

    @property
    def solver_settings(self) -> str:
        """The solver and how exactly it solves, for the protocol of a number."""
        s = self.solver
        fixed = (
            f"step {s.step_size:g}" if s.solver == "rk4" else f"rtol {s.rtol:g}, atol {s.atol:g}"
        )
        return f"{s.solver} {fixed}"

    def solve_with(self, **overrides: str | float | None) -> None:
        """Change settings of the :class:`Solver`; the others stay.

        Raises:
            DeclarationError: An override that does not exist, or makes no sense.
        """
        known = [f.name for f in dataclasses.fields(Solver) if f.name != "evaluations"]
        for name in overrides:
            if name not in known:
                remedy = did_you_mean(name, known) or f"known: {', '.join(known)}"
                raise DeclarationError(name, "is no setting of the solver", remedy)
        changed = Solver(**{**vars(self.solver), **overrides})
        vars(self.solver).update(vars(changed))

    def log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density, with one noise vector per flow."""
        z = x.flatten(1)
        log_det = z.new_zeros(len(z))
        for layer in self.flows:
            noise = self._draw_noise(z, generator)
            z, change = layer.forward_and_log_det(z, partial(hutchinson_trace, noise=noise))
            log_det = log_det + change
        return self.density.log_prob(z) + log_det

    def _draw_noise(
        self, like: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, "batch dim"]:
        noise = torch.empty_like(like)
        if self.noise == "gaussian":
            return noise.normal_(generator=generator)
        return noise.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
