"""Inverse autoregressive flow as a posterior (Kingma et al., https://arxiv.org/abs/1606.04934)."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.elementwise import elu, log_sigmoid
from dgm_bench.models.flows.layers.masked import MaskedLinear
from dgm_bench.models.latent.posteriors.gaussian import Latents

#: Added to the gates before the sigmoid, so that the map starts near the identity.
FORGET_BIAS = 1.0


def block_masks(latent: int, width: int) -> list[Bool[Tensor, "units inputs"]]:
    """Return the masks of the first layer, the hidden one and the last, which has two outputs each.

    Hidden units come in blocks of ``width / latent``, one for each dimension. A unit depends on the
    dimensions up to that of its block, and on no later hidden unit, also of its own block; an
    output depends on the blocks before its own (Sylvester code, ``models/layers.py``).
    """
    unit, start = torch.arange(width), torch.arange(latent) * (width // latent)
    first, hidden = unit[:, None] >= start, unit[:, None] >= unit
    return [first, hidden, start.repeat(2)[:, None] > unit]


class GatedMADE(nn.Module):
    """``z' = g * z + (1 - g) * m``; gate and mean of a dimension depend on those before it.

    Args:
        latent: Number of latent variables.
        width: Width of both hidden layers.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.first, self.hidden, self.last = map(MaskedLinear, block_masks(latent, width))
        # The code's kaiming_normal is of transposed weights: its fan-in is the number of outputs,
        # ``latent`` each for mean and gate.
        for layer, outputs in ((self.first, width), (self.hidden, width), (self.last, latent)):
            nn.init.normal_(layer.weight, std=(2 / outputs) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(
        self, z: Latents, context: Float[Tensor, "batch 1 width"]
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant (equation 14)."""
        z, log_gate = self.transform_by_variable(z, context)
        return z, log_gate.sum(-1)

    def transform_by_variable(
        self, z: Latents, context: Float[Tensor, "batch 1 width"]
    ) -> tuple[Latents, Latents]:
        """Return the transformed latent variables and the logarithm of each one's gate."""
        h = elu(self.first(z)) + context
        mean, raw = self.last(elu(self.hidden(h))).chunk(2, -1)
        gate = (raw + FORGET_BIAS).sigmoid()
        return gate * z + (1 - gate) * mean, log_sigmoid(raw + FORGET_BIAS)


class InverseAutoregressive(nn.Module):
    """A sequence of gated maps, the order of the dimensions reversed before every second one.

    Only the context depends on the example: a linear layer of the features, shared by all maps and
    added to the output of the first hidden layer (Sylvester code, ``models/flows.py``; weights are
    initialised as in its ``models/layers.py``).

    Kingma et al. (2016), https://arxiv.org/abs/1606.04934, section 4.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        flows: Number of maps.
        width: Width of their hidden layers, a multiple of the number of latent variables.

    Raises:
        DeclarationError: It is no such multiple.

    Example:
        >>> flow = InverseAutoregressive(features=8, latent=2, flows=2, width=6)
        >>> features, z = torch.randn(5, 8), torch.randn(5, 3, 2)
        >>> z, log_det = flow(z, features, torch.Generator().manual_seed(0))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    def __init__(self, features: int, latent: int, flows: Count = 16, width: Count = 1280) -> None:
        super().__init__()
        if width % latent:
            reason = f"no multiple of the {latent} latent variables"
            raise DeclarationError(f"width {width}", reason, f"use {-width % latent + width}")
        self.context = nn.Linear(features, width)
        self.maps = nn.ModuleList(GatedMADE(latent, width) for _ in range(flows))

    def forward(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant."""
        context = self.context(features)[:, None]
        log_det = z.new_zeros(z.shape[:2])
        for k, gated in enumerate(self.maps):
            z, change = gated(z.flip(-1) if k % 2 else z, context)
            log_det = log_det + change
        return z, log_det

    def transform_by_variable(
        self, z: Latents, features: Float[Tensor, "batch features"]
    ) -> tuple[Latents, Latents]:
        """Return the transformed latent variables and each one's term of the log-determinant.

        A term is of the gates that a variable went through.
        """
        context = self.context(features)[:, None]
        terms = torch.zeros_like(z)
        for k, gated in enumerate(self.maps):
            if k % 2:
                z, terms = z.flip(-1), terms.flip(-1)
            z, change = cast(GatedMADE, gated).transform_by_variable(z, context)
            terms = terms + change
        return z, terms
