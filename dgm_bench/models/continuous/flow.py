"""Continuous normalising flows: the change of variables by an ODE, exact or estimated traces.

FFJORD (https://arxiv.org/abs/1810.01367) and RNODE (https://arxiv.org/abs/2002.02798).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.continuous.dynamics import Dynamics, value_and_estimate, value_and_jvp
from dgm_bench.models.continuous.runge_kutta import State
from dgm_bench.models.continuous.solver import Estimate, Integrand, Noise, Solver, SolverUser
from dgm_bench.models.flows.flow import Flow


def _exact(network: Dynamics, t: Float[Tensor, ""], z: Float[Tensor, "batch *event"]) -> State:
    at = network.linearise(t, z)
    return at.value, at.exact_trace()


def _regularised(
    network: Dynamics,
    t: Float[Tensor, ""],
    z: Float[Tensor, "batch *event"],
    noise: Float[Tensor, "batch *event"],
) -> State:
    """Return ``dz/dt``, the trace's estimate and, as means over dimensions, RNODE's penalties."""
    value, jvp = value_and_jvp(network, t, z, noise)
    trace = (jvp * noise).flatten(1).sum(1)
    return value, trace, 0.5 * value.flatten(1).square().mean(1), jvp.flatten(1).square().mean(1)


class ContinuousFlow(nn.Module):
    """One continuous flow: ``dz/dt = f(t, z)`` from data at t = 0 to noise at t = 1.

    Args:
        network: The dynamics ``f``, a module.
        solver: Shared by all flows of a model.
    """

    span: Float[Tensor, "2"]

    def __init__(self, network: Dynamics, solver: Solver) -> None:
        super().__init__()
        self.network, self.solver = network, solver
        # The released code declares the end time trainable but detaches its gradient: it stays 1.
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

    def _integrand(self, x: Float[Tensor, "batch *event"]) -> tuple[Integrand, int]:
        """Return the integrand, with the noise of this solve, and its number of components."""
        estimate = self.solver.estimate
        if estimate is None:
            return _exact, 1
        noise = estimate.draw(x.shape, x)
        if estimate.penalties is None:
            return partial(value_and_estimate, noise=noise), 1
        return partial(_regularised, noise=noise), 3


class SolvedFlow(SolverUser, Flow):
    """A flow with continuous layers, which share one solver.

    ``log_prob`` takes the exact trace of the Jacobian; ``log_prob_estimate`` Hutchinson's estimate.

    Args:
        event_shape: Shape of one example.
        layers: The layers in the order in which data passes.
        solver: The solver of the continuous layers.
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

    def log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density, with one noise vector per flow."""
        with self.solver.estimating(Estimate(generator, self.noise)):
            return self.log_prob(x)

    def regularised_log_prob_estimate(
        self, x: Float[Tensor, "batch *event"], generator: torch.Generator
    ) -> tuple[Float[Tensor, " batch"], dict[str, Float[Tensor, " batch"]]]:
        """Return :meth:`log_prob_estimate` and RNODE's two penalties, integrated along the flow.

        ``kinetic`` is the integral of ``|f|^2 / 2``. ``jacobian`` estimates that of the squared
        Frobenius norm of ``J`` by ``|J e|^2``; the released code has ``|e^T J|^2``, of the same
        expectation (Finlay et al. 2020, section 3). Each is averaged over the dimensions of a flow
        and summed over flows, as in that code: flows of any dimension have the same weight.
        """
        penalties: list[State] = []
        with self.solver.estimating(Estimate(generator, self.noise, penalties)):
            log_prob = self.log_prob(x)
        kinetic, jacobian = (torch.stack(parts).sum(0) for parts in zip(*penalties, strict=True))
        return log_prob, {"kinetic": kinetic, "jacobian": jacobian}
