"""The same models in other people's libraries: what a training step of ours is set beside."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.models.dynamics import DynamicsNetwork
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
        zuko = pytest.importorskip("zuko")
        self.flow = zuko.flows.MAF(dim, transforms=layers, hidden_features=(width, width))

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the log density in nats."""
        density: Tensor = self.flow().log_prob(x)
        return density


# ----------------------------------------------------------------------- continuous flows


class PlainDynamics(nn.Module):
    """The usual right-hand side: layer after layer, and ``e^T J e`` by reverse-mode autograd.

    So it stands in the released FFJORD code (``lib/layers/odefunc.py``, ``divergence_approx``) and
    in torchdiffeq's example of a continuous flow. Weights are a copy of ours.

    Args:
        network: Our dynamics.
    """

    def __init__(self, network: DynamicsNetwork) -> None:
        super().__init__()
        self.layers = copy.deepcopy(network.layers)
        self.activation = {"tanh": torch.tanh, "softplus": F.softplus}[network.activation]
        self.evaluations = 0

    def value(self, t: Float[Tensor, ""], z: Float[Tensor, "batch dim"]) -> Tensor:
        """Return ``dz/dt``."""
        self.evaluations += 1
        time = t.view(1)
        for i, layer in enumerate(self.layers):
            z = self.activation(z) if i else z
            z = layer.linear(z) * layer.gate(time).sigmoid() + layer.drift(time)
        return z

    def forward(self, t: Float[Tensor, ""], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the derivatives of position and log-determinant; the noise goes along."""
        z, _, noise = state
        with torch.enable_grad():
            z.requires_grad_(True)
            value = self.value(t, z)
            (product,) = torch.autograd.grad(value, z, noise, create_graph=True)
        return value, (product * noise).sum(1), torch.zeros_like(noise)
