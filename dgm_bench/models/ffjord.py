"""FFJORD: continuous normalising flows (Grathwohl et al., 2018)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError, RunFailure, did_you_mean
from dgm_bench.models.dynamics import (
    Dynamics,
    DynamicsNetwork,
    Layer,
    Linearisation,
    Nonlinearity,
    hutchinson_trace,
)
from dgm_bench.models.flow import Flow
from dgm_bench.models.ode_steps import solve_by_steps

Noise = Literal["gaussian", "rademacher"]
SolverName = Literal["dopri5", "rk4"]
State = tuple[Tensor, ...]
#: What is integrated along a solution besides the position, from the dynamics at a point.
Integrand = Callable[[Linearisation], State]

#: Absolute tolerance of what is not to choose the steps (released RNODE code, ``cnf.py``).
UNCONTROLLED = 1e20


@dataclass
class Estimate:
    """Hutchinson's estimate of traces: where its noise comes from, and what else it measures.

    Attributes:
        generator: Source of the noise.
        noise: Distribution of the noise.
        penalties: Where each flow puts RNODE's two integrals, or None to leave them out.
    """

    generator: torch.Generator
    noise: Noise
    penalties: list[State] | None = None

    def draw(self, shape: torch.Size, like: Tensor) -> Tensor:
        """Return noise with mean zero and identity covariance."""
        noise = like.new_empty(shape)
        if self.noise == "gaussian":
            return noise.normal_(generator=self.generator)
        return noise.bernoulli_(0.5, generator=self.generator).mul_(2).sub_(1)


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
        estimate: How traces are estimated at the moment; None while they are exact.
        checkpointed: Whatever ``adjoint`` says, gradients through the solver's own steps, one at a
            time; see :mod:`dgm_bench.models.ode_steps`.
    """

    solver: SolverName = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8
    step_size: float | None = None
    adjoint: bool = True
    evaluations: int = 0
    estimate: Estimate | None = None
    checkpointed: bool = False

    def __post_init__(self) -> None:
        if self.solver not in ("dopri5", "rk4"):
            raise DeclarationError("solver", f"no {self.solver!r}", "use 'dopri5' or 'rk4'")
        if self.solver == "rk4" and self.step_size is None:
            raise DeclarationError("step_size", "rk4 needs one", "for instance step_size=0.05")

    @property
    def settings(self) -> str:
        """The solver and how exactly it solves, for the protocol of a number."""
        if self.solver == "rk4":
            return f"rk4 step {self.step_size:g}"
        return f"{self.solver} rtol {self.rtol:g}, atol {self.atol:g}"

    def change(self, **overrides: str | float | None) -> None:
        """Change settings; the others stay.

        Raises:
            DeclarationError: An override that does not exist, or makes no sense.
        """
        state = ("evaluations", "estimate")
        known = [f.name for f in dataclasses.fields(Solver) if f.name not in state]
        for name in overrides:
            if name not in known:
                remedy = did_you_mean(name, known) or f"known: {', '.join(known)}"
                raise DeclarationError(name, "is no setting of the solver", remedy)
        changed = Solver(**{**vars(self), **overrides})
        vars(self).update(vars(changed))

    @contextmanager
    def estimating(self, estimate: Estimate) -> Iterator[None]:
        """Estimate traces in all flows that share this solver, until the block ends."""
        self.estimate = estimate
        try:
            yield
        finally:
            self.estimate = None

    def solve(
        self,
        network: Dynamics,
        state: State,
        span: Float[Tensor, "2"],
        integrand: Integrand | None = None,
    ) -> State:
        """Return the state at the end of ``span``: position, and the integrals of ``integrand``.

        The errors of the position and of the first integral, the trace's, meet the tolerances each
        on its own, as in the released code. Further integrals do not choose the steps.

        Raises:
            RunFailure: The step size underflowed: stiff or non-finite dynamics.
        """
        options = {"step_size": self.step_size} if self.solver == "rk4" else None
        settings: dict[str, Any] = {
            "rtol": self.rtol, "atol": self.atol, "method": self.solver, "options": options,
        }  # fmt: skip
        if self.solver == "dopri5" and (free := len(state) - 2) > 0:
            settings["atol"] = (self.atol, self.atol, *[UNCONTROLLED] * free)
        function = _Derivative(network, self, integrand)
        parameters = tuple(network.parameters())
        if self.checkpointed:
            return solve_by_steps(function, state, span, parameters, settings)
        if self.adjoint:
            solution = torchdiffeq.odeint_adjoint(
                function,
                state,
                span,
                adjoint_params=parameters,
                adjoint_atol=self.atol,
                **settings,
            )
        else:
            solution = torchdiffeq.odeint(function, state, span, **settings)
        return tuple(part[-1] for part in solution)


class _Derivative:
    """The right-hand side of one solve. Holds the solve's noise, so solves may overlap."""

    def __init__(self, network: Dynamics, solver: Solver, integrand: Integrand | None) -> None:
        self.network, self.solver, self.integrand = network, solver, integrand

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        self.solver.evaluations += 1
        if self.integrand is None:
            return (self.network(t, state[0]),)
        at = self.network.linearise(t, state[0])
        return at.value, *self.integrand(at)

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


def _exact(at: Linearisation) -> State:
    return (at.exact_trace(),)


def _estimated(at: Linearisation, noise: Tensor) -> State:
    return (hutchinson_trace(at, noise),)


def _regularised(at: Linearisation, noise: Tensor) -> State:
    """Return the estimates of the trace and, as means over dimensions, of RNODE's penalties."""
    tangent = at.tangent(noise)
    trace = (tangent * noise).flatten(1).sum(1)
    return trace, 0.5 * at.value.flatten(1).square().mean(1), tangent.flatten(1).square().mean(1)


class ContinuousFlow(nn.Module):
    """One continuous flow: ``dz/dt = f(t, z)`` from data at t = 0 to noise at t = 1.

    Args:
        network: The dynamics ``f``, a module.
        solver: Shared by all flows of a model.
    """

    span: Tensor

    def __init__(self, network: Dynamics, solver: Solver) -> None:
        super().__init__()
        self.network, self.solver = network, solver
        # The released code means to train the end time but cuts its gradient: it stays 1.
        self.register_buffer("span", torch.tensor([0.0, 1.0]), persistent=False)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``, the latter the integral of the trace (FFJORD, eq. 4)."""
        integrand, count = self._integrand(x)
        state = (x, *(x.new_zeros(len(x)) for _ in range(count)))
        u, log_det, *penalties = self.solver.solve(self.network, state, self.span, integrand)
        if penalties and self.solver.estimate and self.solver.estimate.penalties is not None:
            self.solver.estimate.penalties.append(tuple(penalties))
        return u, log_det

    def inverse(self, u: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return ``x``, by the same equation from t = 1 back to 0."""
        (x,) = self.solver.solve(self.network, (u,), self.span.flip(0))
        return x

    def _integrand(self, x: Tensor) -> tuple[Integrand, int]:
        """Return what to integrate, with this solve's noise, and how many numbers that is."""
        estimate = self.solver.estimate
        if estimate is None:
            return _exact, 1
        noise = estimate.draw(x.shape, x)
        if estimate.penalties is None:
            return partial(_estimated, noise=noise), 1
        return partial(_regularised, noise=noise), 3


class SolvedFlow(Flow):
    """A flow some of whose layers are continuous, with one solver for all of them.

    ``log_prob`` takes the exact trace of the Jacobian; ``log_prob_estimate`` Hutchinson's estimate.

    Args:
        event_shape: Shape of one example.
        layers: The layers in the order in which data passes.
        solver: The solver that the continuous ones share.
        noise: Distribution of the vectors of Hutchinson's estimate.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: Sequence[nn.Module],
        solver: Solver,
        noise: Noise = "gaussian",
    ) -> None:
        super().__init__(event_shape, layers)
        self.noise, self.solver = noise, solver

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
        return self.solver.settings

    def solve_with(self, **overrides: str | float | None) -> None:
        """Change settings of the :class:`Solver`; the others stay.

        Raises:
            DeclarationError: An override that does not exist, or makes no sense.
        """
        self.solver.change(**overrides)

    def log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density, with one noise vector per flow."""
        with self.solver.estimating(Estimate(generator, self.noise)):
            return self.log_prob(x)

    def regularised_log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], dict[str, Float[Tensor, " batch"]]]:
        """Return :meth:`log_prob_estimate` and RNODE's two integrals along the way.

        ``kinetic`` is the integral of ``|f|^2 / 2``. ``jacobian`` estimates that of the squared
        Frobenius norm of ``J`` by ``|J e|^2``; the released code has ``|e^T J|^2``, of the same
        expectation (Finlay et al. 2020, section 3). Each is a mean over the dimensions of a flow
        and a sum over flows, as there: a flow on few dimensions weighs as much as one on many.
        """
        penalties: list[State] = []
        with self.solver.estimating(Estimate(generator, self.noise, penalties)):
            log_prob = self.log_prob(x)
        kinetic, jacobian = (torch.stack(parts).sum(0) for parts in zip(*penalties, strict=True))
        return log_prob, {"kinetic": kinetic, "jacobian": jacobian}


class FFJORD(SolvedFlow):
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
        solver: SolverName = "dopri5",
        rtol: float = 1e-6,
        atol: float = 1e-8,
        step_size: float | None = None,
        adjoint: bool = True,
        noise: Noise = "gaussian",
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, adjoint)
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
            DeclarationError: There are several flows, so no one velocity.
        """
        if len(self.flows) != 1:
            reason = f"there are {len(self.flows)}, and each has a velocity of its own"
            raise DeclarationError("flows", reason, "use flows=1")
        network = cast(DynamicsNetwork, self.flows[0].network)
        return network.velocity(t, z.flatten(1)).reshape(z.shape)
