"""FFJORD as a posterior (https://arxiv.org/abs/1810.01367, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Positive
from dgm_bench.errors import require_choice
from dgm_bench.models.continuous.activations import Nonlinearity
from dgm_bench.models.continuous.dynamics import Dynamics, value_and_jvp
from dgm_bench.models.continuous.runge_kutta import State
from dgm_bench.models.continuous.solver import (
    Gradient,
    Integrand,
    Solver,
    SolverName,
    SolverUser,
)
from dgm_bench.models.latent.posteriors.amortised_dynamics import AmortisedNetwork, Kind
from dgm_bench.models.latent.posteriors.gaussian import GaussianPosterior, Latents
from dgm_bench.models.whole_batch import normal_

GradientName = Literal["steps", "adjoint", "solver"]
#: By the names that recipes have for them, which are hashed.
GRADIENTS: dict[GradientName, Gradient] = {
    "steps": "discrete-adjoint",
    "adjoint": "adjoint",
    "solver": "backpropagation",
}

#: End time of each flow (FFJORD code, ``train_vae_flow.py``: ``time_length``, not trained).
DURATION = 0.5


class AmortisedFFJORD(nn.Module):
    """Continuous flows, each from t = 0 to 1/2, whose dynamics depend on the example.

    In training the traces of the Jacobians are estimated with one Gaussian vector per sample and
    flow, otherwise they are exact; the FFJORD code has exact traces in testing only, and estimates
    in validation (``vae_lib/optimization/training.py``). There the amortised weights are part of
    the solver's state, with a derivative of zero; here they are constants of the solve, which
    changes neither the solution nor its errors.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    section 4.3 and appendix B.2.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        flows: Number of flows (FFJORD Table 5).
        hidden: Widths of the hidden layers (FFJORD Table 5).
        rank: Rank of the amortised part of each weight (FFJORD Table 5).
        activation: Nonlinearity (FFJORD Table 5).
        kind: Which parameters depend on the example; the paper's is ``"rank"``.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        solver: ``"dopri5"`` or ``"rk4"``.
        step_size: Step of ``"rk4"``.
        gradient: By the discrete adjoint (``"steps"``), by the adjoint equation (``"adjoint"``, as
            published), or by backpropagation through the solver (``"solver"``).

    Raises:
        DeclarationError: The gradient, kind or solver is not known.

    Example:
        >>> flow = AmortisedFFJORD(features=8, latent=2, flows=1, hidden=[4], rank=2)
        >>> features, z = torch.randn(5, 8), torch.randn(5, 3, 2)
        >>> z, log_det = flow(z, features, torch.Generator().manual_seed(0))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    span: Float[Tensor, "2"]

    def __init__(
        self,
        features: int,
        latent: int,
        flows: Count = 2,
        hidden: Sequence[Count] = (1024, 1024),
        rank: Count = 64,
        activation: Nonlinearity = "softplus",
        kind: Kind = "rank",
        rtol: Positive = 1e-5,
        atol: Positive = 1e-5,
        solver: SolverName = "dopri5",
        step_size: Positive | None = None,
        gradient: GradientName = "steps",
    ) -> None:
        super().__init__()
        require_choice("gradient", gradient, GRADIENTS)
        self.solver = Solver(solver, rtol, atol, step_size, GRADIENTS[gradient])
        networks = [AmortisedNetwork(latent, hidden, activation, kind, rank) for _ in range(flows)]
        self.networks = nn.ModuleList(networks)
        self.amortised = nn.ModuleList(
            nn.Linear(features, network.amortised_size)
            for network in networks
            if network.amortised_size
        )
        self.register_buffer("span", torch.tensor([0.0, DURATION]), persistent=False)

    def forward(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant (FFJORD, equation 4)."""
        log_det = z.new_zeros(z.shape[:2])
        for k, network in enumerate(cast(tuple[AmortisedNetwork, ...], tuple(self.networks))):
            amortised = self.amortised[k](features) if network.amortised_size else None
            integrand: Integrand = _exact
            if self.training:
                noise = normal_(z.new_empty(z.shape), generator)
                integrand = partial(_estimated, noise=noise)
            # The integral of each flow starts at zero, and the solver controls its error.
            start = (z, torch.zeros_like(log_det))
            z, change = self.solver.solve(
                network.condition_on(amortised), start, self.span, integrand
            )
            log_det = log_det + change
        return z, log_det


def _exact(network: Dynamics, t: Float[Tensor, ""], z: Latents) -> State:
    at = network.linearise(t, z)
    return at.value, at.exact_trace()


def _estimated(network: Dynamics, t: Float[Tensor, ""], z: Latents, noise: Latents) -> State:
    """Return ``dz/dt`` and Hutchinson's estimates, with one vector per sample (FFJORD, eq. 7)."""
    value, jvp = value_and_jvp(network, t, z, noise)
    return value, (jvp * noise).sum(-1)


class ContinuousPosteriorMixin(SolverUser):
    """Mixed into models with posterior ``"ffjord"``: their solver is the posterior's."""

    posterior: nn.Module

    def take_solver(self) -> None:
        """Report the posterior's solver from here on."""
        flow = cast(GaussianPosterior, self.posterior).flow
        self.solver = cast(AmortisedFFJORD, flow).solver
