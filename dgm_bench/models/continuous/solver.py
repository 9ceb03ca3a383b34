"""Solving differential equations: the solver's settings, its gradients, and what is integrated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.annotations import Positive
from dgm_bench.control import ask_within
from dgm_bench.errors import DeclarationError, RunFailure, choose_from, require_choice
from dgm_bench.models.continuous.discrete_adjoint import solve_with_discrete_adjoint
from dgm_bench.models.continuous.dynamics import Dynamics, VectorField
from dgm_bench.models.continuous.integration import integrate
from dgm_bench.models.continuous.runge_kutta import (
    NO_ERROR_CONTROL,
    RightHandSide,
    State,
    Time,
)
from dgm_bench.models.continuous.shared_solves import SharedDerivative, norm_of_state
from dgm_bench.models.whole_batch import coins_, is_shared, normal_

Noise = Literal["gaussian", "rademacher"]
#: ``"dopri5"`` adapts its steps; ``"rk4"`` and ``"rk5"``, the latter dopri5's formula, do not.
SolverName = Literal["dopri5", "rk4", "rk5"]
#: Of the adjoint equation, solved backwards in time; of the solver's own steps, by automatic
#: differentiation through all of them; or of those steps, one at a time and backwards (see
#: :mod:`dgm_bench.models.continuous.discrete_adjoint`).
Gradient = Literal["adjoint", "backpropagation", "discrete-adjoint"]
#: ``dz/dt``, and what is integrated along a solution besides: from dynamics, time and ``z``.
Integrand = Callable[[Dynamics, Float[Tensor, ""], Float[Tensor, "batch *event"]], State]


def gradient_of(adjoint: bool, checkpointed: bool = False) -> Gradient:
    """Return the choice that two booleans are, whose names are hashed with recipes.

    Args:
        adjoint: The adjoint equation, or else the solver's own steps.
        checkpointed: Whatever ``adjoint`` says, the solver's own steps, one at a time.
    """
    if checkpointed:
        return "discrete-adjoint"
    return "adjoint" if adjoint else "backpropagation"


class Overrides(TypedDict, total=False):
    """Settings that an evaluation may give the solver in place of the training's."""

    solver: SolverName
    rtol: Positive
    atol: Positive
    step_size: Positive | None
    first_step: Positive | None
    gradient: Gradient
    adjoint: bool
    checkpointed: bool


@dataclass
class Estimate:
    """Hutchinson's estimate of traces: its noise, and whether RNODE's penalties are computed.

    Attributes:
        generator: Source of the noise.
        noise: Distribution of the noise.
        penalties: The list to which each flow appends RNODE's two integrals, or None to omit them.
    """

    generator: torch.Generator
    noise: Noise
    penalties: list[State] | None = None

    def draw(self, shape: torch.Size, like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return noise with mean zero and identity covariance."""
        noise = like.new_empty(shape)
        if self.noise == "gaussian":
            return normal_(noise, self.generator)
        return coins_(noise, self.generator).mul_(2).sub_(1)


@dataclass
class Solver:
    """Settings of the ODE solver, and the number of function evaluations so far.

    Attributes:
        solver: ``"dopri5"`` adapts its step to the tolerances; ``"rk4"`` and ``"rk5"`` (dopri5's
            formula, six evaluations a step) take ``step_size``.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        step_size: Step of ``"rk4"`` and ``"rk5"``, as a part of the whole time 1.
        gradient: What gradients are those of.
        first_step: The step that ``"dopri5"`` tries first, likewise: 1 is the whole time. None
            lets it choose one, by two evaluations.
        evaluations: Evaluations of the dynamics so far, forward and adjoint.
        estimate: How traces are estimated; None while they are exact.
    """

    solver: SolverName = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8
    step_size: float | None = None
    gradient: Gradient = "adjoint"
    first_step: float | None = None
    evaluations: int = 0
    estimate: Estimate | None = None

    def __post_init__(self) -> None:
        require_choice("solver", self.solver, get_args(SolverName))
        require_choice("gradient", self.gradient, get_args(Gradient))
        if self._fixed and self.step_size is None:
            raise DeclarationError("step_size", f"{self.solver} needs one", "give step_size=0.05")
        if self.solver == "rk5" and self.gradient == "adjoint":
            reason = "differentiates its own steps, not the adjoint equation"
            raise DeclarationError("rk5", reason, "give adjoint=False")

    @property
    def settings(self) -> str:
        """The solver and its tolerances or step size, for the protocol of a number."""
        if self._fixed:
            return f"{self.solver} step {self.step_size:g}"
        return f"{self.solver} rtol {self.rtol:g}, atol {self.atol:g}"

    def change(self, **overrides: str | float | None) -> None:
        """Change settings; the others stay.

        Recipes say ``adjoint`` and ``checkpointed`` for ``gradient``, as in :func:`gradient_of`.

        Raises:
            DeclarationError: There is no such setting, or its value is not valid.
        """
        state = ("evaluations", "estimate")
        known = [f.name for f in dataclasses.fields(Solver) if f.name not in state]
        settings = self._with_gradient(overrides)
        for name in settings:
            if name not in known:
                reason = "is no setting of the solver"
                raise DeclarationError(name, reason, choose_from(name, known))
        changed = Solver(**{**vars(self), **settings})
        vars(self).update(vars(changed))

    def _with_gradient(self, overrides: dict[str, Any]) -> dict[str, Any]:
        others = dict(overrides)
        adjoint = others.pop("adjoint", self.gradient == "adjoint")
        checkpointed = others.pop("checkpointed", self.gradient == "discrete-adjoint")
        return {"gradient": gradient_of(adjoint, checkpointed), **others}

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
        network: VectorField,
        state: State,
        span: Float[Tensor, "2"],
        integrand: Integrand | None = None,
    ) -> State:
        """Return the solution at the end of ``span``, and the integrals of ``integrand``.

        An integrand takes a network with :class:`Dynamics`.

        The errors of the state and of the first integral, the trace's, meet the tolerances
        separately, as in the released code. Further integrals are left out of step-size control.

        Raises:
            RunFailure: The step size underflowed: stiff or non-finite dynamics.
        """
        settings = self._settings(len(state))
        function = _Derivative(network, self, integrand)
        parameters: tuple[Tensor, ...] = tuple(network.parameters())
        if self.gradient == "discrete-adjoint":
            return solve_with_discrete_adjoint(function, state, span, parameters, settings)
        if self.gradient == "backpropagation":
            return integrate(function, state, span, settings)
        import torchdiffeq  # here: see :func:`integrate`

        solved: RightHandSide = function
        if is_shared():
            solved = SharedDerivative(function, network)
            parameters = solved.parameters
        solution = torchdiffeq.odeint_adjoint(
            solved, state, span, adjoint_params=parameters, adjoint_atol=self.atol, **settings
        )
        return tuple(part[-1] for part in solution)

    @property
    def _fixed(self) -> bool:
        return self.solver != "dopri5"

    def _settings(self, parts: int) -> dict[str, Any]:
        """Return settings as torchdiffeq has them, for a state of so many parts."""
        name = "step_size" if self._fixed else "first_step"
        value = getattr(self, name)
        atol: float | tuple[float, ...] = self.atol
        if not self._fixed and (free := parts - 2) > 0:
            atol = (self.atol, self.atol, *[NO_ERROR_CONTROL] * free)
        options: dict[str, Any] | None = None if value is None else {name: value}
        if is_shared() and not self._fixed:
            options = {**(options or {}), "norm": norm_of_state}
        return {"rtol": self.rtol, "atol": atol, "method": self.solver, "options": options}


class _Derivative:
    """The right-hand side of one solve; it holds that solve's noise, so that solves may overlap."""

    def __init__(self, network: VectorField, solver: Solver, integrand: Integrand | None) -> None:
        self.network, self.solver, self.integrand = network, solver, integrand

    def __call__(self, t: Float[Tensor, ""], state: State) -> State:
        ask_within()
        self.solver.evaluations += 1
        if self.integrand is None:
            return (self.network(t, state[0]),)
        return self.integrand(cast(Dynamics, self.network), t, state[0])

    def callback_step(self, t: Time, state: State, step: Time) -> None:
        """Fail ahead of the solver's own assertion, which ``python -O`` removes."""
        if not t + step > t:
            solver = self.solver
            raise RunFailure(
                "solver-failed",
                f"{solver.solver} cannot meet rtol {solver.rtol:g} and atol {solver.atol:g}: its "
                f"step size underflowed at t = {abs(float(t)):.4f}",
                "look at the loss before: stiff dynamics want a lower learning rate, or float64",
            )

    callback_step_adjoint = callback_step


class SolverUser:
    """What a model with a solver reports of it and lets change: mixed into such models.

    Attributes:
        solver: The one solver of all its flows.
    """

    solver: Solver

    @property
    def function_evaluations(self) -> int:
        """Evaluations of the dynamics so far, of all flows, forward and backward."""
        return self.solver.evaluations

    @function_evaluations.setter
    def function_evaluations(self, count: int) -> None:
        self.solver.evaluations = count

    @property
    def solver_settings(self) -> str:
        """The solver and its tolerances or step size, for the protocol of a number."""
        return self.solver.settings

    def solve_with(self, **overrides: str | float | None) -> None:
        """Change settings of the :class:`Solver`; the others stay.

        Raises:
            DeclarationError: There is no such setting, or its value is not valid.
        """
        self.solver.change(**overrides)
