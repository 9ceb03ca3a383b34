"""The same models in other people's libraries: what a training step of ours is set beside."""

from __future__ import annotations

import copy
import math
from typing import cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.dynamics import ConcatSquash, DynamicsNetwork
from dgm_bench.models.ffjord import FFJORD
from dgm_bench.models.flow import StandardNormal

# ------------------------------------------------------------------- autoregressive flows


def nflows_maf(dim: int, width: int, layers: int) -> nn.Module:
    """Return nflows' MAF with two hidden layers of ``width`` in each MADE."""
    flows = pytest.importorskip("nflows.flows.autoregressive")
    model: nn.Module = flows.MaskedAutoregressiveFlow(
        dim, width, num_layers=layers, num_blocks_per_layer=1, use_residual_blocks=False
    )
    return model


class ZukoMAF(nn.Module):
    """zuko's MAF with two hidden layers in each MADE.

    Args:
        dim: Number of dimensions.
        width: Width of the hidden layers.
        layers: Number of MADEs.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        flows = pytest.importorskip("zuko.flows")
        self.flow = flows.MAF(dim, transforms=layers, hidden_features=(width, width))

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        density: Tensor = self.flow().log_prob(x)
        return density


# ----------------------------------------------------------------------- continuous flows


class PlainDynamics(nn.Module):
    """The usual right-hand side: layer after layer, and ``e^T J e`` by reverse-mode autograd.

    This is how the released FFJORD code (``lib/layers/odefunc.py``) and torchdiffeq's example of a
    continuous flow have it. Its weights are a copy of ours.

    Args:
        network: Our dynamics.
    """

    noise: Tensor

    def __init__(self, network: DynamicsNetwork) -> None:
        super().__init__()
        self.layers = copy.deepcopy(network.layers)
        self.activation = {"tanh": torch.tanh, "softplus": F.softplus}[network.activation]
        self.evaluations = 0

    def value(
        self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dz/dt``."""
        self.evaluations += 1
        time = t.view(1)
        for i, layer in enumerate(cast(tuple[ConcatSquash, ...], tuple(self.layers))):
            z = self.activation(z) if i else z
            z = layer.linear(z) * layer.gate(time).sigmoid() + layer.drift(time)
        return z

    def forward(self, t: Float[Tensor, ""], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the derivatives of the position and of the log-determinant."""
        z, _ = state
        with torch.enable_grad():
            z.requires_grad_(True)
            value = self.value(t, z)
            (product,) = torch.autograd.grad(value, z, self.noise, create_graph=True)
        return value, (product * self.noise).sum(1)


class PeerContinuousFlow(nn.Module):
    """One continuous flow over a standard normal, but for its solver.

    Args:
        ours: The model whose dynamics to copy.
    """

    def __init__(self, ours: FFJORD) -> None:
        super().__init__()
        (flow,) = ours.flows
        self.dynamics = PlainDynamics(flow.network)
        self.base = StandardNormal(math.prod(ours.event_shape))

    @property
    def function_evaluations(self) -> int:
        """Evaluations of the dynamics so far, forward and adjoint."""
        return self.dynamics.evaluations

    @function_evaluations.setter
    def function_evaluations(self, count: int) -> None:
        self.dynamics.evaluations = count


class PlainFFJORD(PeerContinuousFlow):
    """The plain formulation: torchdiffeq's ``odeint_adjoint`` over :class:`PlainDynamics`.

    Args:
        ours: The model whose dynamics and solver settings to copy.
    """

    span: Tensor

    def __init__(self, ours: FFJORD) -> None:
        super().__init__(ours)
        self.solver = copy.copy(ours.solver)
        self.register_buffer("span", torch.tensor([0.0, 1.0]), persistent=False)

    def log_prob_estimate(
        self, x: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density."""
        self.dynamics.noise = torch.empty_like(x).normal_(generator=generator)
        solver = self.solver
        z, log_det = torchdiffeq.odeint_adjoint(
            self.dynamics,
            (x, x.new_zeros(len(x))),
            self.span,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.solver,
            options={"step_size": solver.step_size} if solver.solver == "rk4" else None,
        )
        density: Tensor = self.base.log_prob(z[-1]) + log_det[-1]
        return density


class ZukoFFJORD(PeerContinuousFlow):
    """zuko's free-form transform with our dynamics, as its ``CNF`` has with a network of its own.

    Its solver is a Dormand-Prince method that judges the largest error of the whole batch; its
    gradient goes back over the accepted steps without judging errors again.

    Args:
        ours: The model whose dynamics to copy.
        tolerance: Relative and absolute.
    """

    def __init__(self, ours: FFJORD, tolerance: float) -> None:
        super().__init__(ours)
        self.transforms = pytest.importorskip("zuko.transforms")
        self.tolerance = tolerance

    def log_prob_estimate(
        self, x: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased estimate of the log density."""
        # zuko draws from the global generator; the same seed gives the same noise there.
        torch.manual_seed(generator.initial_seed())
        transform = self.transforms.FreeFormJacobianTransform(
            self.dynamics.value,
            phi=tuple(self.dynamics.parameters()),
            atol=self.tolerance,
            rtol=self.tolerance,
            exact=False,
        )
        z, log_det = transform.call_and_ladj(x)
        density: Tensor = self.base.log_prob(z) + log_det
        return density
